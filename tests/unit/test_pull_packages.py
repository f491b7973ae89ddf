"""What a node that pulls spends on packages has an end, and nothing of what fails stays: with the real venv and pip."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread

import pytest

from tests.unit import pull_place
from tests.unit.pull_place import MEBIBYTE, Node, make_node

WHEEL = "idna-3.10-py3-none-any.whl"
# What the script's 512 MiB become.
MOST = 64


class Index(ThreadingHTTPServer):
    """A package index whose one wheel has no end, or stops in its middle."""

    silent_after = 10**6
    sent = 0

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.end = Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/simple"


class Answer(BaseHTTPRequestHandler):
    server: Index

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        if not self.path.endswith(WHEEL):
            self.wfile.write(f'<a href="/{WHEEL}">{WHEEL}</a>'.encode())
            return
        with suppress(OSError):
            while self.server.sent < 16 * MOST and not self.server.end.is_set():
                self.wfile.write(bytes(MEBIBYTE))
                self.server.sent += 1
                if self.server.sent == self.server.silent_after:
                    self.server.end.wait(60)

    def log_message(self, *_words: object) -> None:
        pass


@pytest.fixture
def index() -> Iterator[Index]:
    with Index() as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.end.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Node:
    script = tmp_path / "userns-node-pull"
    script.write_text(pull_place.SCRIPT.read_text().replace("512", str(MOST)))
    monkeypatch.setattr(pull_place, "SCRIPT", script)
    node = make_node(tmp_path)
    node.settings |= {"PULL_PYTHON": sys.executable}
    return node


def begin(node: Node, index: Index) -> subprocess.Popen[str]:
    """A run that asks this index, and no other."""
    command, environment = node.command()
    environment = {name: value for name, value in environment.items() if not name.startswith("PIP_")}
    for name in ("tmp", "home"):
        (node.home / name).mkdir()
    environment |= {"PIP_CONFIG_FILE": os.devnull, "PIP_INDEX_URL": index.url, "no_proxy": "*"}
    environment |= {"TMPDIR": str(node.home / "tmp"), "HOME": str(node.home / "home")}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def left(node: Node) -> list[Path]:
    """What is there of a virtual environment and of what pip had on its way."""
    return [*node.state.glob("venv-*"), *(node.home / "tmp").iterdir(), *(node.home / "home").glob(".cache")]


def test_a_package_without_an_end_is_given_up_and_leaves_nothing(node: Node, index: Index) -> None:
    node.repository.release(packages=f"idna==3.10 --hash=sha256:{'a' * 64}")
    running = begin(node, index)
    said, _ = running.communicate(timeout=60)
    assert (running.returncode, "File too large" in said) == (5, True), said
    assert "the virtual environment could not be made: pip ended with 1 after" in node.status["message"]
    assert MOST <= index.sent < 2 * MOST
    assert left(node) == []


def test_a_run_that_is_stopped_while_it_waits_for_a_package_leaves_nothing(node: Node, index: Index) -> None:
    node.repository.release(packages=f"idna==3.10 --hash=sha256:{'a' * 64}")
    index.silent_after = 4
    running = begin(node, index)
    while index.sent < index.silent_after:
        assert running.poll() is None
        time.sleep(0.02)
    time.sleep(0.3)
    running.send_signal(signal.SIGTERM)
    said, _ = running.communicate(timeout=20)
    assert (running.returncode, node.status["result"]) == (143, "stopped"), said
    assert left(node) == []
