"""What fails one host alone, where pyinfra would end the whole run and name no host, or wait for an answer for ever.

pyproject.toml holds pyinfra to 3.10; tests/deploy/test_connecting.py fails where what is replaced is otherwise.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from getpass import getpass
from typing import Any

from paramiko import SSHException
from pyinfra.api.exceptions import ConnectError, PyinfraError
from pyinfra.connectors import ssh_util, util
from pyinfra.connectors.ssh import SSHConnector
from pyinfra.connectors.sshuserclient.client import AskPolicy

__all__ = ["install"]

_SUDO = (
    "sudo asks for a password, and there is no terminal to ask at: let it ask this user for none (NOPASSWD), or set "
    "_sudo_password"
)
_KEY = "its SSH key is encrypted, and there is no terminal to ask for the password at: set ssh_key_password"
_UNKNOWN_HOST = (
    "known_hosts has no key of {}, and nobody is there to be asked about it: add the key, or set StrictHostKeyChecking "
    "for this host in the SSH configuration (of a node, ssh_strict_host_key_checking in its data)"
)


def install() -> None:
    """For this process: a key that is not there, is no key, or has another password; a question that nobody answers."""
    connect = SSHConnector.connect
    ask_about_key: Callable[..., None] = AskPolicy.missing_host_key

    def connect_or_fail(connector: SSHConnector) -> None:
        try:
            connect(connector)
        except ConnectError:
            raise
        except (PyinfraError, SSHException, OSError, ValueError) as error:
            raise ConnectError(str(error) or type(error).__name__) from error

    def ask_about_key_or_fail(policy: AskPolicy, client: Any, hostname: str, key: Any) -> None:
        """It reads standard input: of fleet.py's process that is a pipe, on which no answer ever comes."""
        try:
            if _somebody_is_there():
                ask_about_key(policy, client, hostname, key)
                return
        except EOFError:
            pass
        raise SSHException(_UNKNOWN_HOST.format(hostname))

    SSHConnector.connect = connect_or_fail  # type: ignore[method-assign, assignment]
    AskPolicy.missing_host_key = ask_about_key_or_fail  # type: ignore[method-assign]
    util.getpass = _asking_or(_SUDO)  # type: ignore[assignment]
    ssh_util.getpass = _asking_or(_KEY)  # type: ignore[assignment]


def _asking_or(nobody: str) -> Callable[[str], str]:
    def ask_who_is_there(prompt: str) -> str:
        if not _somebody_is_there():
            raise PyinfraError(nobody)
        return getpass(prompt)

    return ask_who_is_there


def _somebody_is_there() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDWR))  # where getpass asks; without one it would wait for standard input
    except OSError:
        return False
    return True
