"""Faults while a node is changed: a run that is held at a chosen command, cut, or killed; and what is there then."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path

from lab import Lab, LabNode, Machine, processes
from lab.errors import LabError
from lab.paths import PYINFRA, REPO
from tests.node.runs import Operator, Run, Shell

STATE = "var/lib/userns-node"
MARK = "/var/lib/userns-node/activation"
RECOVERY = "/etc/systemd/system/userns-node-recover.service"
# Those of a change: the check, which stays, is none of them.
UNITS = "systemctl list-units --all --plain --no-legend 'userns-node-activate-*' 'userns-node-recover*'"
STALE = "error: another run changed this node since the plan was made; run again"


def contents(node: LabNode) -> dict[str, str]:
    """Every file that a deploy may change, byte for byte, with its mode and owner.

    The record is read without what `stat` says of a program, for a program that comes back has a new ctime.
    """
    found = {}
    for top in ("etc", "usr/local", STATE):
        for directory, names, files in os.walk(node.root / top):
            for name in (*names, *files):
                path = Path(directory, name)
                now = path.lstat()
                about = f"{now.st_mode:o} {now.st_uid}:{now.st_gid}"
                if path.is_symlink():
                    about += f" to {path.readlink()}"
                elif path.is_file():
                    content = path.read_bytes()
                    if path == node.root / STATE / "manifest":
                        content = b"\n".join(b"\t".join(line.split(b"\t")[:5]) for line in content.split(b"\n"))
                    about += f" {sha256(content).hexdigest()}"
                found[str(path.relative_to(node.root))] = about
    return found


def program(node: LabNode) -> str:
    """The digest of the program that containerd's main process runs, whatever lies in its place now."""
    return node.ssh("sha256sum /proc/$(systemctl show --property MainPID --value containerd)/exe").stdout.split()[0]


def wait_for(what: Callable[[], object], seconds: float = 600) -> None:
    """Wait until `what` is true of the node."""
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


class Deploying:
    """A deploy, or another task of ours, that runs while the test goes on."""

    def __init__(
        self, lab: Lab, operator: Operator, node: Machine, settings: Mapping[str, object], task: str = "deploy.py"
    ) -> None:
        inventory = operator.inventory({"nodes": {node: settings}})
        pyinfra: list[str | Path] = [PYINFRA, inventory, task, "--json", "-y"]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(lab.inside(pyinfra, REPO), stdout=pipe, stderr=pipe, text=True)
        self._run: Run | None = None

    def ended(self) -> bool:
        """Whether it has come to its end."""
        return self.process.poll() is not None

    def interrupt(self) -> None:
        """What Ctrl-C sends, and wait for its end."""
        wait_for(lambda: self.ended() or self._interrupted())
        self.end()

    def _interrupted(self) -> bool:
        with suppress(LabError, ProcessLookupError):  # nsenter, whose child pyinfra is, forks in its own time
            os.kill(processes.child_of(self.process.pid), signal.SIGINT)
            return True
        return False

    def kill(self) -> None:
        """A SIGKILL, and wait for its end."""
        self.process.kill()  # pyinfra is on the leash of this process
        self.end()

    def end(self, seconds: float = 1800) -> Run:
        """Wait for its end."""
        if self._run is None:
            stdout, stderr = self.process.communicate(timeout=seconds)
            self._run = Run(self.process.returncode, stdout, stderr)
        return self._run


@contextmanager
def held(node: Machine, name: str, words: str) -> Iterator[Callable[[], bool]]:
    """While inside, the node's program `name` waits before it does something with `words`; yields whether one waits.

    The script that changes a node finds this program before the real one; it has no idea of tests.
    """
    shim = f"/usr/local/sbin/{name}"
    text = (
        f'#!/bin/sh\ncase "$*" in *"{words}"*)\n'
        f"    touch /run/held-{name}; while [ -e /run/holding-{name} ]; do sleep 0.05; done ;;\n"
        f'esac\nexec /usr/bin/{name} "$@"\n'
    )
    node.ssh(f"rm -f /run/held-{name}; touch /run/holding-{name}")
    node.put(shim, text.encode(), 0o755)
    node.ssh(f"sync {shim}")  # after a power cut it would else be there without a word in it
    try:
        yield lambda: node.ssh(f"test -e /run/held-{name}", check=False).returncode == 0
    finally:
        if isinstance(node, LabNode):  # whose files are at hand after a power cut, too
            (node.root / shim.lstrip("/")).unlink()
        node.ssh(f"rm -f {shim} /run/holding-{name}", check=False)


def settle(node: Shell) -> None:
    """Wait until nothing of us runs on the node any more."""
    wait_for(lambda: node.ssh(f"{UNITS}; pgrep -fl '[u]serns-node/staged|[l]aunch.sh'", check=False).stdout == "")
