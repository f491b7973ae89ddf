"""A Dask cluster of real processes on loopback, an inventory that tells who works on which node, how to break it."""

from __future__ import annotations

import select
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import SystemRandom

from lab.paths import REPO
from lab.processes import tool
from tests.deploy.fleet import Fleet, Run
from tests.fleet.runs import FLEET, environment
from tests.node.faults import wait_for

DASK = Path(sys.executable).parent / "dask"
SECONDS = 600
# Short, so that a test need not wait long for one to be over; long enough for a machine that does other things too.
LEASE = 20
# Every command on a node leaves a line; while a file `hold-WORKER` is there, it goes on and on leaving them.
_INVENTORY = """

import os as _os, time as _time
import gevent as _gevent
from pyinfra.connectors.fake import FakeConnector as _Fake

_home, _worker = Path(__file__).parent, _os.environ.get("WORKER", "controller")
_run = _Fake.run_shell_command


def _leave(host):
    with (_home / "trace").open("a") as trace:
        trace.write(f"{_os.getpid()} {_worker} {host.name} {_time.monotonic()}\\n")


def _traced(self, *args, **kwargs):
    _leave(self.host)
    while (_home / f"hold-{_worker}").exists():
        _gevent.sleep(0.25)
        _leave(self.host)
    return _run(self, *args, **kwargs)


_Fake.run_shell_command = _traced
"""


class Traced(Fleet):
    """A fleet whose nodes write down who works on them."""

    @property
    def inventory(self) -> Path:
        """The inventory as a file."""
        path = super().inventory
        path.write_text(path.read_text() + _INVENTORY)
        return path

    def hold(self, worker: str) -> Path:
        """From now on nodes do not answer this worker, until the file is removed."""
        path = self.directory / f"hold-{worker}"
        path.touch()
        return path

    @property
    def touches(self) -> list[tuple[int, str, str, float]]:
        """Each sign that a process left: its number, its worker, the node, and when."""
        trace = self.directory / "trace"
        whole = trace.read_text().rpartition("\n")[0] if trace.exists() else ""
        lines = [line.split() for line in whole.splitlines()]
        return [(int(pid), worker, host.removeprefix("@fake/"), float(when)) for pid, worker, host, when in lines]

    @property
    def runners(self) -> set[int]:
        """The processes that live and run pyinfra over these nodes: those that left a sign, and a controller's own.

        A worker serves many tests, so that what it has begun bears no mark of one.
        """
        signed = {pid for pid, *_ in self.touches}
        mark = f"HOME_OF_TEST={self.directory}".encode()
        found = set()
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):  # it has ended meanwhile
                if b"fleet.runner" in (process / "cmdline").read_bytes().split(b"\0"):
                    marked = mark in (process / "environ").read_bytes().split(b"\0")
                    found |= {int(process.name)} if marked or int(process.name) in signed else set()
        return found

    def workers_of(self, node: str) -> list[str]:
        """Who worked on a node, in order, each time that somebody else began."""
        seen: list[tuple[int, str]] = []
        for pid, worker, host, _ in self.touches:
            if host == node and (pid, worker) not in seen:
                seen.append((pid, worker))
        return [worker for _, worker in seen]

    def overlaps(self) -> list[str]:
        """The nodes on which two processes worked at a time."""
        spans: dict[tuple[str, int], tuple[float, float]] = {}
        for pid, _, host, when in self.touches:
            first, _ = spans.get((host, pid), (when, when))
            spans[host, pid] = (first, when)
        by_host: dict[str, list[tuple[float, float]]] = {}
        for (host, _), span in spans.items():
            by_host.setdefault(host, []).append(span)
        return [
            host
            for host, found in by_host.items()
            if any(later[0] <= earlier[1] for earlier, later in zip(sorted(found), sorted(found)[1:], strict=False))
        ]


def free_port() -> int:
    """A port that nobody listens on, and none of those that the kernel gives to whoever asks for any meanwhile."""
    first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    while True:
        port = SystemRandom().randrange(first // 2, first)
        with socket.socket() as listening, suppress(OSError):
            listening.bind(("127.0.0.1", port))
            return port


@dataclass
class Cluster:
    """A scheduler and its workers: each a process of its own, that dies with the test."""

    directory: Path
    protocol: str = "tcp"
    options: Sequence[str] = ()
    port: int = field(default_factory=free_port)
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def address(self) -> str:
        """The scheduler's address."""
        return f"{self.protocol}://127.0.0.1:{self.port}"

    def begin(self, *workers: str) -> Cluster:
        """Start the scheduler and these workers."""
        self.start_scheduler()
        for name in workers:
            self.start(name)
        return self

    def start_scheduler(self) -> None:
        """Start the scheduler; it is waited for by those who connect to it."""
        self._start(
            "scheduler",
            ["scheduler", "--host", f"{self.protocol}://127.0.0.1", "--port", str(self.port), "--no-dashboard"],
        )

    def start(self, name: str, *more: str, through: int | None = None, checkout: Path = REPO) -> None:
        """Start a worker, which reaches the scheduler at `through` (else at its own port)."""
        scheduler = f"{self.protocol}://127.0.0.1:{through or self.port}"
        options = ["--no-nanny", "--nthreads", "1", "--no-dashboard", "--memory-limit", "0", *more]
        options += ["--host", f"{self.protocol}://127.0.0.1", "--local-directory", str(self.directory / name)]
        self._start(name, ["worker", scheduler, *options], checkout)

    def kill(self, name: str) -> None:
        """SIGKILL, and wait for the end."""
        process = self.processes.pop(name)
        process.kill()
        process.wait()

    def log(self, name: str) -> str:
        """What it printed."""
        return (self.directory / f"{name}.log").read_text(errors="replace")

    def close(self) -> None:
        """End all of it."""
        for process in self.processes.values():
            process.kill()
        for process in self.processes.values():
            process.wait()
        self.processes.clear()

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _start(self, name: str, words: list[str], checkout: Path = REPO) -> None:
        self.directory.mkdir(exist_ok=True)
        with (self.directory / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [tool("setpriv"), "--pdeathsig", "KILL", str(DASK), *words, *self.options],
                cwd=self.directory,
                env={**environment(self.directory), "PYTHONPATH": str(checkout), "WORKER": name},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )


@dataclass
class Controller:
    """fleet.py while it runs."""

    process: subprocess.Popen[str]
    directory: Path

    @classmethod
    def begin(cls, *arguments: str | Path, home: Path, **more: str) -> Controller:
        """Start it."""
        with (home / "out").open("w") as out, (home / "err").open("w") as err:
            process = subprocess.Popen(
                [tool("setpriv"), "--pdeathsig", "KILL", sys.executable, FLEET, *map(str, arguments)],
                cwd=REPO,
                env={**environment(home), "HOME_OF_TEST": str(home), **more},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                text=True,
            )
        return cls(process, home)

    @property
    def said(self) -> str:
        """Its standard error until now."""
        return (self.directory / "err").read_text()

    def end(self) -> Run:
        """Wait for its end."""
        try:
            self.process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise AssertionError(f"it did not end:\n{self.said}") from None
        return Run(self.process.returncode, (self.directory / "out").read_text(), self.said)

    def __enter__(self) -> Controller:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()


class Relay:
    """What stands between somebody and a scheduler: it keeps all that passes, and can stop passing it on."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listening.getsockname()[1])
        self.passed = bytearray()
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._flowing = threading.Event()
        self._flowing.set()
        self._closed = False
        threading.Thread(target=self._accept, daemon=True).start()

    def hold(self) -> None:
        """Pass nothing on any more, and tell nobody: a cable that was pulled."""
        self._flowing.clear()

    def close(self) -> None:
        """End every connection, and take no other."""
        self._closed = True
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self.cut()
        self._flowing.set()

    def cut(self) -> None:
        """End every connection; others may come."""
        for pair in self._pairs:
            for each in pair:
                with suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)
        self._pairs.clear()

    def __enter__(self) -> Relay:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _accept(self) -> None:
        while not self._closed:
            try:
                near, _ = self._listening.accept()
                far = socket.create_connection(("127.0.0.1", self._to))
            except OSError:
                if self._closed:
                    return
                near.close()
                continue
            self._pairs.append((near, far))
            threading.Thread(target=self._carry, args=(near, far), daemon=True).start()

    def _carry(self, near: socket.socket, far: socket.socket) -> None:
        other = {near: far, far: near}
        with near, far, suppress(OSError):
            while True:
                for source in select.select([near, far], [], [])[0]:
                    self._flowing.wait()
                    chunk = source.recv(1 << 16)
                    if not chunk:
                        return
                    self.passed += chunk
                    other[source].sendall(chunk)


def apply(address: str, fleet: Fleet, *options: str) -> Controller:
    """`fleet.py apply` on a cluster, without a question, begun and not waited for."""
    words = ["apply", str(fleet.inventory), "-y", "--json", *on(address), *options]
    return Controller.begin(*words, home=fleet.directory)


def on(address: str) -> list[str]:
    """The options for a cluster on which nothing breaks."""
    return ["--scheduler", address, "--patience", "120"]


def nobody_left(nodes: Traced) -> None:
    """No process goes on over these nodes, on which some worked, once leases are over."""
    assert nodes.touches
    wait_for(lambda: not nodes.runners, 60)
