"""What a node of the lab is to whoever uses it, container or virtual machine: it boots, and is reached over SSH."""

from __future__ import annotations

import contextlib
import os
import secrets
import shlex
import signal
import subprocess
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING

from lab import cache, cgroups, network, processes, ssh
from lab.errors import LabError
from lab.paths import NODES

if TYPE_CHECKING:
    from lab.world import Lab

_BOOT_ID = "cat /proc/sys/kernel/random/boot_id"
_UP = ("running", "degraded")
# unix(7) allows 107 bytes, of which ssh takes 17 while it makes one.
LONGEST_SOCKET = 90


class Machine(ABC):
    """One node of a lab. Its file system outlives a reboot and a power cut; `stop` removes it."""

    #: How long a boot may take, in seconds, before it counts as failed.
    patience: float = 120
    #: How long to wait between two looks whether it is up, in seconds: each look costs the node a login.
    pause: float = 0.05

    def __init__(self, lab: Lab, name: str, number: int) -> None:
        self.lab = lab
        self.name = name
        self.address = network.address(number)
        self.home = NODES / f"{name}-{lab.id}"
        self.console = self.home / "console.log"
        self.cgroup = lab.cgroup / name
        self._number = number
        self._process: subprocess.Popen[bytes] | None = None
        self._socket = lab.home / f"login{number}"
        self._login: subprocess.Popen[bytes] | None = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, {self.address})"

    @abstractmethod
    def create(self) -> None:
        """Make its file system, and plug it into the lab's network."""

    @abstractmethod
    def start(self) -> None:
        """Boot (again, after `cut_power`), and do not wait for it."""

    @abstractmethod
    def _unplug(self) -> None:
        """Take it out of the lab's network."""

    def wait(self, timeout: float | None = None) -> None:
        """Wait until sshd answers and systemd has finished booting; then log in, once for all commands.

        A login costs more than most of the commands: a tenth of a second of a processor on this side alone, and in an
        emulated machine a second.
        """
        self._log_out()
        seconds = timeout or self.patience
        end = time.monotonic() + seconds
        while self.ssh("systemctl is-system-running --wait", check=False, timeout=seconds).stdout.strip() not in _UP:
            if self._process is None or self._process.poll() is not None or "Kernel panic" in self._said():
                raise LabError(f"node {self.name} ended instead of booting:\n{self._said()}")
            if time.monotonic() > end:
                raise LabError(f"node {self.name} did not boot within {seconds:.0f} s:\n{self._said()}")
            time.sleep(self.pause)
        self._log_in()

    def _log_in(self) -> None:
        if len(str(self._socket)) > LONGEST_SOCKET:
            return
        words = ssh.command(self.lab.home, self.address, more=("-M", "-N", "-S", str(self._socket)))
        self._login = self.lab.start(words, self.home / "login.log")
        end = time.monotonic() + self.patience
        while not self._socket.exists():
            if self._login.poll() is not None or time.monotonic() > end:
                raise LabError(f"nobody could log in to {self.name}:\n{(self.home / 'login.log').read_text()}")
            time.sleep(0.02)

    def _log_out(self) -> None:
        if self._login:
            self._login.kill()
            self._login.wait()
            self._login = None
        self._socket.unlink(missing_ok=True)

    def _said(self) -> str:
        return self.console.read_text(errors="replace")[-3000:] if self.console.exists() else "(nothing on its console)"

    def ssh_command(self, command: str = "") -> list[str]:
        """The ssh command line, to be run inside the lab (`Lab.run`); without a command, a login.

        Through the one connection that there is, or by itself where there is none; a login always by itself.
        """
        more = ("-S", str(self._socket)) if command and self._login else ()
        return ssh.command(self.lab.home, self.address, command, more)

    def ssh(
        self, command: str, check: bool = True, *, timeout: float | None = None, input: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a shell command on the node as root."""
        seconds = timeout or 2.5 * self.patience
        return self.lab.run(self.ssh_command(command), check=check, timeout=seconds, input=input)

    def put(self, path: str, content: bytes, mode: int = 0o644) -> None:
        """Write a file on the node, whole or not at all."""
        new, quoted = shlex.quote(f"{path}.lab-new"), shlex.quote(path)
        write = f'mkdir -p "$(dirname {quoted})" && cat >{new} && chmod {mode:o} {new} && mv -f {new} {quoted}'
        self.output(f"set -e; umask 022; {write}", content)

    def get(self, path: str) -> bytes:
        """Read a file of the node."""
        return self.output(f"cat {shlex.quote(path)}")

    def output(self, command: str, content: bytes = b"") -> bytes:
        """Run a shell command that has to work on the node, and return what it printed; `content` is its input."""
        words = self.lab.inside(self.ssh_command(command))
        done = subprocess.run(words, input=content, capture_output=True, timeout=2.5 * self.patience, check=False)
        if done.returncode:
            raise LabError(f"{command}\nexited with {done.returncode}\n{done.stderr.decode(errors='replace')}")
        return done.stdout

    def reboot(self, timeout: float | None = None) -> None:
        """Reboot in the regular way, and wait until the node is back."""
        self._log_out()
        before = self.ssh(_BOOT_ID).stdout
        self.ssh("systemctl reboot", check=False)
        seconds = timeout or self.patience
        end = time.monotonic() + seconds
        while (now := self.ssh(_BOOT_ID, check=False)).returncode or now.stdout == before:
            if time.monotonic() > end:
                raise LabError(f"node {self.name} did not come back within {seconds:.0f} s:\n{self._said()}")
            time.sleep(self.pause)
        self.wait(timeout)

    def cut_power(self) -> None:
        """End the node at once. Its file system stays as it is; `start` boots it again."""
        self._log_out()
        members = cgroups.processes(self.cgroup)
        # The node first, and then what started it: that one collects it, where else an orphan would be left over.
        cgroups.remove(self.cgroup)
        if self._process:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout=60)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None
        processes.wait_for_the_end(members)

    def stop(self) -> None:
        """End the node and remove its file system."""
        self.cut_power()
        self._unplug()
        cache.remove_tree(self.home)
        self.lab.nodes.pop(self.name, None)

    def _own_files(self) -> dict[str, str]:
        """What makes a node another machine than the next one, by path."""
        hosts = f"127.0.0.1 localhost\n{self.address} {self.name}\n{network.CONTROLLER} controller\n"
        return {
            "etc/hostname": f"{self.name}\n",
            "etc/hosts": hosts,
            "etc/machine-id": f"{secrets.token_hex(16)}\n",
            "root/.ssh/authorized_keys": self.lab.key.with_suffix(".pub").read_text(),
        }

    def _make_host_key(self, path: Path) -> None:
        """Make the node's host key, and let the lab know it before the first connection."""
        self.lab.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", self.name, "-f", path])
        with self.lab.known_hosts.open("a") as known:
            known.write(f"{self.address} {path.with_suffix('.pub').read_text()}")
