"""A lab: a small network of nodes that the machine around it does not notice."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from lab import detached, network, ssh, traces
from lab.detached import Detached
from lab.entering import inside
from lab.errors import LabError
from lab.machine import Machine
from lab.node import LabNode
from lab.paths import LABS, REPO
from lab.processes import tool
from lab.serving import Served
from lab.vm import LabVM

if TYPE_CHECKING:
    from lab.mirror import Mirror

_PROGRAMS = ("unshare", "nsenter", "setpriv", "ip", "ssh", "ssh-keygen", "systemd-nspawn", "tar", "mmdebstrap")


class Lab:
    """A context manager. Nodes are reached from inside the lab's network only: see `run`."""

    controller = network.CONTROLLER

    def __init__(self) -> None:
        if os.geteuid() != 0:
            raise LabError("the lab needs root, because it makes namespaces, mounts and containers")
        for program in _PROGRAMS:
            tool(program)
        self.id = secrets.token_hex(4)
        self.home = LABS / self.id
        self.key = ssh.key(self.home)
        self.known_hosts = ssh.known_hosts(self.home)
        self.nodes: dict[str, Machine] = {}
        self._processes: list[subprocess.Popen[bytes]] = []
        self._numbers = iter(range(network.FIRST_NODE, 2**16))
        self._ports = iter(range(8080, 2**16))
        lock = traces.claim(self.id)
        try:
            self._keeper = self._start_keeper(lock)
        finally:
            os.close(lock)
        try:
            self._read_state()
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "lab", "-f", self.key], check=True)
            self.known_hosts.touch()
        except BaseException:
            self.close()
            raise

    def _start_keeper(self, lock: int) -> subprocess.Popen[str]:
        # Its own session, so that Ctrl-C does not reach it; its errors to a file, so that a detached lab does not
        # hold the owner's terminal or pipe open.
        with (self.home / "keeper.log").open("w") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "lab.keeper", self.id],
                cwd=REPO,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                pass_fds=[lock],
                start_new_session=True,
            )

    def _read_state(self) -> None:
        assert self._keeper.stdout
        with (self.home / "keeper.log").open() as log, self._keeper.stdout as answer:
            line = answer.readline()
            if not line:
                self._keeper.wait()
                raise LabError(f"the lab did not start:\n{log.read()}")
        state = json.loads(line)
        self.holder: int = state["holder"]
        self.cgroup = Path(state["cgroup"])

    @property
    def keeper(self) -> int:
        """The process that ends the lab when it gets a SIGTERM."""
        return self._keeper.pid

    def __enter__(self) -> Lab:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End every node and process of the lab and remove what it put on disk, unless it was detached."""
        assert self._keeper.stdin
        if not self._keeper.stdin.closed:
            self._keeper.stdin.close()
            self._keeper.wait()
            for process in self._processes:
                process.wait()

    def detach(self) -> None:
        """Leave the lab running after its owner's end. `Lab.end_detached` ends it, or a SIGTERM to its keeper."""
        nodes = {node.name: node.address for node in self.nodes.values()}
        detached.remember(Detached(self.home, self.keeper, self.holder, nodes))
        assert self._keeper.stdin
        self._keeper.stdin.write("detach\n")
        self._keeper.stdin.close()

    @staticmethod
    def end_detached() -> list[str]:
        """End the labs that were left running, and return the names of their nodes."""
        return detached.end()

    def login(self, node: Machine) -> str:
        """What an operator types to log in to a node, once the lab is detached."""
        return detached.login(node.name)

    def ssh_data(self, node: Machine) -> ssh.HostData:
        """How pyinfra reaches a node: host data for an inventory that is used through `run`."""
        return ssh.host_data(self.home, node.address)

    def inside(self, argv: Sequence[str | Path], cwd: Path | None = None) -> list[str]:
        """`argv` as a command that runs in the lab's namespaces, and dies with its caller or with the lab."""
        return inside(self.holder, argv, cwd)

    def run(
        self,
        argv: Sequence[str | Path],
        *,
        check: bool = True,
        capture: bool = True,
        timeout: float | None = 600,
        env: Mapping[str, str] | None = None,
        input: str | None = None,
        cwd: Path | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command on the controller: on this machine, but inside the lab's network.

        `env` is added to the environment; with `capture=False` the output goes where the caller's own goes.
        """
        done = subprocess.run(
            self.inside(argv, cwd),
            capture_output=capture,
            text=True,
            timeout=timeout,
            env=None if env is None else {**os.environ, **env},
            input=input,
            stdin=subprocess.DEVNULL if input is None else None,
            check=False,
        )
        if check and done.returncode:
            said = f"\n{done.stdout[-4000:]}{done.stderr[-4000:]}" if capture else ""
            raise LabError(f"{' '.join(map(str, argv))}\nexited with {done.returncode}{said}")
        return done

    def start(self, argv: Sequence[str | Path], log: Path, cwd: Path | None = None) -> subprocess.Popen[bytes]:
        """Start a process in the lab that runs until it is killed or the lab ends."""
        with log.open("ab") as output:
            process = subprocess.Popen(
                self.inside(argv, cwd), stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )
        self._processes.append(process)
        return process

    def node(self, name: str, suite: str = "testing", *, wait: bool = True) -> LabNode:
        """Boot a node. With `wait`, return when its systemd is up and its sshd answers; else call its `wait` later."""
        node = LabNode(self, name, suite, next(self._numbers))
        self._boot(node, wait)
        return node

    def vm(
        self, name: str, kernel: str = "newest", *, wait: bool = True, disk: Path | None = None, options: str = ""
    ) -> LabVM:
        """Boot a virtual machine with one of lab.kernels.KERNELS, from the disk that all share or from another one."""
        vm = LabVM(self, name, kernel, next(self._numbers), disk, options)
        self._boot(vm, wait)
        return vm

    def _boot(self, machine: Machine, wait: bool) -> None:
        if machine.name in self.nodes:
            raise LabError(f"this lab already has a node named {machine.name}")
        self.nodes[machine.name] = machine
        try:
            machine.create()
            machine.start()
        except BaseException:
            machine.stop()
            raise
        if wait:
            machine.wait()

    def light_nodes(self, count: int, name: str = "fleet") -> dict[str, ssh.HostData]:
        """A fleet for benchmarks: `count` hosts for a pyinfra inventory, all of them one node with many addresses."""
        more = self.node(name).answer_at_more(count)
        return {f"{name}-{number:03}": ssh.host_data(self.home, one) for number, one in enumerate(more, start=1)}

    def serve(self, what: Mirror | Path, port: int | None = None) -> Served:
        """Serve a mirror or a directory over HTTP to the nodes, for as long as the lab lives."""
        port = port or next(self._ports)
        served = Served(what if isinstance(what, Path) else what.root, port, self.home / f"http-{port}")
        served.start(self.start)
        return served
