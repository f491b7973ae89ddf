"""The tests' side of the lab's file server (lab.server)."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lab import network
from lab.errors import LabError
from lab.paths import REPO

Fault = Literal["404", "truncate", "corrupt", "hang", "slow", "says less", "says more"]


@dataclass(frozen=True, slots=True)
class Request:
    """One request that the server got."""

    client: str
    method: str
    path: str
    status: int
    fault: str


class Served:
    """A directory that is being served. `url` is for nodes and for `Lab.run`."""

    def __init__(self, root: Path, port: int, state: Path) -> None:
        self.root = root
        self.url = f"http://{network.CONTROLLER}:{port}"
        self._port = port
        self._state = state
        self._faults: dict[str, dict[str, object]] = {}
        self._process: subprocess.Popen[bytes] | None = None
        state.mkdir()

    def start(self, start: Callable[..., subprocess.Popen[bytes]]) -> None:
        """Start the server (by `Lab.start`) and wait until it listens."""
        command = [sys.executable, "-m", "lab.server", self.root, network.CONTROLLER, str(self._port), self._state]
        log = self._state / "server.log"
        self._process = start(command, log, REPO)
        end = time.monotonic() + 60
        while not (self._state / "ready").exists():
            if self._process.poll() is not None or time.monotonic() > end:
                raise LabError(f"the lab's file server did not start:\n{log.read_text()[-2000:]}")
            time.sleep(0.01)

    def stop(self) -> None:
        """Stop serving: the port refuses connections from now on."""
        if self._process:
            self._process.kill()
            self._process.wait()

    def requests(self, path: str | None = None) -> list[Request]:
        """The requests so far, of one path or of all."""
        log = self._state / "requests.jsonl"
        lines = log.read_text().splitlines() if log.exists() else []
        found = [Request(**json.loads(line)) for line in lines]
        return [request for request in found if path in (None, request.path)]

    def forget(self) -> None:
        """Empty the log of requests."""
        (self._state / "requests.jsonl").unlink(missing_ok=True)

    def misbehave(self, path: str, how: Fault, times: int | None = None) -> None:
        """Spoil the answers for this path: the next `times` of them, or all."""
        self._faults[path] = {"how": how, "times": times, "id": secrets.token_hex(4)}
        self._write()

    def behave(self) -> None:
        """Spoil nothing any more."""
        self._faults.clear()
        self._write()

    def _write(self) -> None:
        new = self._state / "faults.new"
        new.write_text(json.dumps(self._faults))
        os.rename(new, self._state / "faults.json")
