"""How the nodes of a lab are logged in to, by people and by pyinfra."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

HostData = dict[str, str | bool | dict[str, int]]


def key(lab: Path) -> Path:
    """The private key that every node of this lab (its directory) lets in."""
    return lab / "id_ed25519"


def known_hosts(lab: Path) -> Path:
    """The host keys of this lab's nodes, known before the first connection."""
    return lab / "known_hosts"


def command(lab: Path, address: str, words: str = "", more: Sequence[str] = ()) -> list[str]:
    """The ssh command line, to be run inside the lab. Without words for the node's shell, it is a login.

    `more` are further flags.
    """
    # In quotes: ssh takes a space for the end of a name.
    options = ["BatchMode=yes", f'UserKnownHostsFile="{known_hosts(lab)}"', "LogLevel=ERROR", "ConnectTimeout=60"]
    # Who was rebooted in the middle of a command says so only when asked; who is merely slow gets ten minutes.
    options += ["ServerAliveInterval=10", "ServerAliveCountMax=60"]
    flags = [word for option in options for word in ("-o", option)]
    return ["ssh", "-F", "none", "-i", str(key(lab)), *flags, *more, f"root@{address}", *([words] if words else [])]


def host_data(lab: Path, address: str) -> HostData:
    """The same for pyinfra, as host data of an inventory."""
    return {
        "ssh_hostname": address,
        "ssh_user": "root",
        "ssh_key": str(key(lab)),
        "ssh_known_hosts_file": str(known_hosts(lab)),
        "ssh_strict_host_key_checking": "yes",
        "ssh_allow_agent": False,
        "ssh_look_for_keys": False,
        # paramiko's own 15 and 30 seconds are short for an emulated machine on a busy one.
        "ssh_paramiko_connect_kwargs": {"banner_timeout": 300, "auth_timeout": 300},
    }
