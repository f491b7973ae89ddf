"""A file server inside the lab's network, which can be told to misbehave and remembers what it was asked.

It is told and it tells through files, because its network is not the tests' network: a fault is an entry in
faults.json, read at every request, and a request is a line in requests.jsonl.

Run by lab.serving as: python -m lab.server ROOT ADDRESS PORT STATE
"""

from __future__ import annotations

import json
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

_CHUNK = 1 << 18


class Server(ThreadingHTTPServer):
    """The server: what it serves, where its state lies, and how often each fault was applied."""

    daemon_threads = True

    def __init__(self, root: Path, address: tuple[str, int], state: Path) -> None:
        self.root = root.resolve()
        self.state = state
        self.lock = threading.Lock()
        self.applied: dict[str, int] = {}
        super().__init__(address, Handler)

    def fault(self, path: str) -> str:
        """How to misbehave for this request, if at all."""
        try:
            faults: dict[str, dict[str, Any]] = json.loads((self.state / "faults.json").read_text())
        except FileNotFoundError:
            return ""
        fault = faults.get(path)
        if fault is None:
            return ""
        with self.lock:
            seen = self.applied.get(fault["id"], 0)
            if fault["times"] is not None and seen >= fault["times"]:
                return ""
            self.applied[fault["id"]] = seen + 1
        return str(fault["how"])

    def remember(self, **request: object) -> None:
        """Write a request down before it is answered, so that whoever has the answer finds it in the log."""
        with self.lock, (self.state / "requests.jsonl").open("a") as log:
            log.write(json.dumps(request) + "\n")


class Handler(BaseHTTPRequestHandler):
    """GET and HEAD of plain files."""

    server: Server

    def do_HEAD(self) -> None:
        """Answer without the body."""
        self._answer(body=False)

    def do_GET(self) -> None:
        """Answer with the file."""
        self._answer(body=True)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: the log is requests.jsonl."""

    def _answer(self, *, body: bool) -> None:
        path = unquote(urlsplit(self.path).path)
        file = (self.server.root / path.lstrip("/")).resolve()
        fault = self.server.fault(path)
        found = file.is_relative_to(self.server.root) and file.is_file() and fault != "404"
        status = 200 if found else 404
        self.server.remember(client=self.client_address[0], method=self.command, path=path, status=status, fault=fault)
        if not found:
            self.send_error(404)
            return
        size = file.stat().st_size
        says = {"says less": size // 2, "says more": size + 1000}.get(fault, size)
        self.send_response(200)
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Content-Length", str(says))
        self.end_headers()
        if body:
            self._send(file, size, fault)

    def _send(self, file: Path, size: int, fault: str) -> None:
        """The body, or what the fault makes of it. Faults strike in the middle, where a careless client has begun."""
        middle = size // 2
        with file.open("rb") as content:
            position = 0
            while chunk := content.read(_CHUNK if position >= middle else min(_CHUNK, middle - position) or _CHUNK):
                if position >= middle and fault == "truncate":
                    return
                if fault == "slow":
                    time.sleep(0.05)
                if position >= middle and fault == "hang":
                    time.sleep(24 * 3600)
                if position == middle and fault == "corrupt":
                    chunk = bytes([chunk[0] ^ 0xFF]) + chunk[1:]
                try:
                    self.wfile.write(chunk)
                except (BrokenPipeError, ConnectionResetError):
                    return
                position += len(chunk)


def main(root: str, address: str, port: str, state: str) -> None:
    """Serve until killed."""
    server = Server(Path(root), (address, int(port)), Path(state))
    (server.state / "ready").touch()
    server.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
