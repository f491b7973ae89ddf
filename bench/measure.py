"""What a command costs: seconds, CPU of everything it started, CPU of the nodes meanwhile, and remote commands."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lab import Lab, LabError, LabNode, cgroups

# `$1/cgroup.procs` as the lab sees it; what the command starts later is in the same group, and can't leave it unseen.
_JOIN = 'echo $$ > "$1/cgroup.procs"; shift; exec "$@"'


@dataclass(frozen=True, slots=True)
class Cost:
    """What one run cost. `controller_cpu` and `nodes_cpu` are seconds; `load` is the machine's when it began."""

    wall: float
    controller_cpu: float
    nodes_cpu: float
    load: float
    status: int
    output: str


def run(
    lab: Lab, argv: Sequence[str | Path], *, cwd: Path, env: Mapping[str, str], nodes: Sequence[LabNode], timeout: float
) -> Cost:
    """Run `argv` on the lab's controller side and wait for it; then end what it left running.

    A cgroup and not wait4(2) counts the CPU: Ansible's SSH connections outlive their parents (ControlPersist) and
    would be missing. For the same reason they are ended here: every run begins without an open connection.
    """
    group = lab.cgroup / "measured"
    group.mkdir()
    log = lab.home / "measured.log"
    inside = Path("/sys/fs/cgroup", lab.cgroup.name, group.name)
    command = lab.inside(["sh", "-c", _JOIN, "join", inside, *argv], cwd)
    load, before = os.getloadavg()[0], sum(map(_node_cpu, nodes))
    try:
        with log.open("w") as output:
            started = time.perf_counter()
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **env},
                timeout=timeout,
                check=False,
            )
            wall = time.perf_counter() - started
        controller, after = _cpu(group), sum(map(_node_cpu, nodes))
    except subprocess.TimeoutExpired:
        raise LabError(f"{' '.join(map(str, argv))} did not end within {timeout:.0f} s") from None
    finally:
        cgroups.remove(group)
    return Cost(wall, controller, after - before, load, done.returncode, log.read_text(errors="replace"))


def _cpu(group: Path) -> float:
    """Seconds of CPU that a cgroup's processes have used, those that ended and those below it included."""
    for line in (group / "cpu.stat").read_text().splitlines():
        if line.startswith("usage_usec "):
            return int(line.split()[1]) / 1e6
    raise ValueError(f"{group}/cpu.stat has no usage_usec")


def _node_cpu(node: LabNode) -> float:
    return _cpu(node.cgroup)


_READ = """
set -- $SSH_CONNECTION
journalctl --sync
journalctl --quiet --output=cat --after-cursor='{cursor}' | grep 'Starting session: ' | grep -vc " port $2 "
"""


class SessionLog:
    """What sshd of a node was asked to run: a line in its journal for each command and each subsystem (sftp).

    Neither tool is believed about itself. For a run that is not measured: so much logging costs.
    """

    def __init__(self, node: LabNode) -> None:
        self._node = node
        self._drop_in = node.root / "etc/ssh/sshd_config.d/00-bench.conf"  # the first line that sets a value wins
        self._cursor = ""
        self.sessions = 0

    def __enter__(self) -> SessionLog:
        self._drop_in.write_text("LogLevel VERBOSE\n")
        self._node.ssh("systemctl restart ssh")
        mark = "journalctl --sync; journalctl --quiet --lines=1 --show-cursor --output=cat"
        self._cursor = self._node.ssh(mark).stdout.rpartition("-- cursor: ")[2].strip()
        return self

    def __exit__(self, *_: object) -> None:
        self.sessions = int(self._node.ssh(_READ.format(cursor=self._cursor), check=False).stdout)
        self._drop_in.unlink()
        self._node.ssh("systemctl restart ssh")
