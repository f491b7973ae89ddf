"""Ansible, set up for speed as an experienced operator does it: pipelining, 50 forks, lasting connections, no facts."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench import environment
from bench.fleet import ID_RANGE
from lab import Lab, LabError, LabNode, cache
from userns import paths

PLAYBOOK = Path(__file__).with_name("playbook.yml")
FORKS = 50

# Managed by both. The others are not on every node (the sysctl), or are lines in a file of others (sub-IDs).
_WRITTEN = (
    paths.CONFIG,
    paths.UNIT,
    paths.UNIT_DROP_IN,
    paths.PRE_START,
    paths.MODPROBE,
    paths.CHECK,
    paths.CHECK_UNIT,
)
_RECAP = re.compile(r"^(\S+)\s+: ok=(\d+)\s+changed=(\d+)\s+unreachable=(\d+)\s+failed=(\d+)\s+skipped=(\d+)", re.M)

# Its own choice of a Python on the node would cost a command more; the SSH options are those of lab.ssh.
_CONFIG = """\
[defaults]
home = {home}
forks = {forks}
remote_user = root
private_key_file = {key}
interpreter_python = /usr/bin/python3

[ssh_connection]
pipelining = true
ssh_args = -F none -o ControlMaster=auto -o ControlPersist=60s -o 'UserKnownHostsFile="{known_hosts}"' -o LogLevel=ERROR
control_path_dir = {connections}
"""


def installed() -> Path:
    """The programs of ansible-core."""
    return environment.programs("bench-venv", "bench")


def version() -> str:
    """The version of ansible-core that is installed."""
    ask = "from importlib.metadata import version; print(version('ansible-core'))"
    done = subprocess.run([installed() / "python", "-c", ask], stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout.strip()


def described() -> dict[str, str | int]:
    """What of Ansible decides how fast its runs are."""
    return {"ansible_core": version(), "ansible_forks": FORKS}


class Ansible:
    """The playbook against the end state that the deploy gave `example`."""

    name = "Ansible"

    def __init__(self, lab: Lab, example: LabNode) -> None:
        self._home = lab.home / "ansible"
        self._connections = lab.home / "ssh"
        self._managed = self._home / "managed"
        for path in _WRITTEN:
            copy = self._managed / path.lstrip("/")
            copy.parent.mkdir(parents=True, exist_ok=True)
            # As it is: no managed file has anything in it that Jinja would take for its own.
            copy.write_bytes((example.root / path.lstrip("/")).read_bytes())
        (self._home / "ansible.cfg").write_text(
            _CONFIG.format(
                home=self._home / "home",
                forks=FORKS,
                key=lab.key,
                known_hosts=lab.known_hosts,
                connections=self._connections,
            )
        )
        self.environment = {"ANSIBLE_CONFIG": str(self._home / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"}

    def command(
        self, hosts: Mapping[str, Mapping[str, object]], settings: Mapping[str, object], *, dry: bool
    ) -> list[str]:
        """The command line for these hosts."""
        variables = {"managed": str(self._managed), "id_range": ":".join(map(str, ID_RANGE))}
        variables |= {name: str(value) for name, value in settings.items() if name.endswith("_version")}
        addresses = {name: {"ansible_host": data["ssh_hostname"]} for name, data in hosts.items()}
        inventory = self._home / "inventory.json"
        inventory.write_text(json.dumps({"all": {"hosts": addresses, "vars": variables}}))
        cache.remove_tree(self._connections)
        program = installed() / "ansible-playbook"
        return [*map(str, (program, "-i", inventory, PLAYBOOK)), *(["--check"] if dry else [])]

    def check(self, output: str, hosts: Sequence[str]) -> int:
        """The number of tasks. Raises LabError where one was anything but ok on any host."""
        return tasks_that_were_ok(output, hosts)


def tasks_that_were_ok(output: str, hosts: Sequence[str]) -> int:
    """The number of tasks of a playbook's output, by its recap: the same on every host, and all of them ok."""
    recap = {host: [int(each) for each in counts] for host, *counts in _RECAP.findall(output)}
    tasks = {counts[0] for counts in recap.values()}
    if set(recap) != set(hosts) or any(sum(counts[1:]) for counts in recap.values()) or len(tasks) != 1:
        raise LabError(f"Ansible did not find every node as the playbook wants it:\n{output[-4000:]}")
    return tasks.pop()
