"""What a node that pulls spends on a fetch has an end: in time and on its disk, whatever the other side does."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest

from tests.conftest import unavailable
from tests.unit.pull_place import MEBIBYTE, Node, make_node


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return make_node(tmp_path)


@pytest.fixture
def silent() -> Iterator[str]:
    """HOST:PORT where a connection is taken by the kernel, and never hears a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


def hurry(node: Node, words: str) -> None:
    """The script's 900 s become what `words` say; the rest of `timeout` is the real one."""
    (node.home / "bin/timeout").write_text(
        f'#!/bin/sh\n[ "$1 $2 $3" = "-k 10 900" ] || exit 2\nshift 3\nexec {shutil.which("timeout")} {words} "$@"\n'
    )
    (node.home / "bin/timeout").chmod(0o755)


@pytest.mark.parametrize("scheme", ["ssh", "http", "git"])
def test_a_repository_that_says_nothing_is_given_up(node: Node, silent: str, scheme: str) -> None:
    if not shutil.which(scheme if scheme == "ssh" else "git"):
        unavailable(f"needs {scheme}")
    commit = node.repository.release()
    assert node.pull().returncode == 0
    hurry(node, "-k 10 1")
    begun = time.monotonic()
    done = node.pull(PULL_REPOSITORY=f"{scheme}://{silent}/userns-node.git")
    assert (done.returncode, time.monotonic() - begun < 10) == (3, True), done.stdout
    assert (node.status["result"], node.status["converged"]["commit"]) == ("unreachable", commit)
    assert "it timed out after 900 s" in node.status["message"]
    assert "it timed out after 900 s" in done.stdout
    # Nothing of it runs on: it would hold the lock.
    assert node.pull().returncode == 0


def test_http_is_given_up_after_a_minute_of_silence(node: Node, silent: str) -> None:
    node.repository.release()
    # The minute becomes a second.
    hurry(node, "-k 10 30 sh -c 'GIT_HTTP_LOW_SPEED_TIME=${GIT_HTTP_LOW_SPEED_TIME%60}1 exec \"$@\"' sh")
    done = node.pull(PULL_REPOSITORY=f"http://{silent}/userns-node.git")
    assert (done.returncode, "Operation too slow" in done.stderr) == (3, True), done.stderr
    assert "git ended with 128 after" in node.status["message"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP], ids=lambda number: number.name)
def test_one_that_waits_for_a_silent_repository_can_be_stopped(node: Node, silent: str, number: signal.Signals) -> None:
    node.repository.release()
    command, environment = node.command(PULL_REPOSITORY=f"http://{silent}/userns-node.git")
    (node.home / "bin/timeout").write_text(f'#!/bin/sh\n: >"$PLACE/waits"\nexec {shutil.which("timeout")} "$@"\n')
    (node.home / "bin/timeout").chmod(0o755)
    running = subprocess.Popen(command, env=environment, start_new_session=True, stdout=subprocess.DEVNULL)
    while not (node.home / "waits").exists():
        assert running.poll() is None
        time.sleep(0.02)
    time.sleep(0.3)
    os.kill(running.pid, number)
    assert running.wait(10) == 143
    assert node.status["result"] == "stopped"
    # git was ended with it.
    subprocess.run(["flock", "--timeout", "5", node.state / "lock", "true"], check=True)


@contextmanager
def plain_web_server(root: Path, silent_after: int) -> Iterator[str]:
    """The URL of a server of files, as git's dumb protocol wants one; it stops in the middle after so many bytes."""
    sent, end = 0, Event()

    class Handler(SimpleHTTPRequestHandler):
        def __init__(self, *words: Any) -> None:
            super().__init__(*words, directory=str(root))

        def copyfile(self, source: Any, outputfile: Any) -> None:
            nonlocal sent
            text = source.read()
            outputfile.write(text)
            sent += len(text)
            if sent >= silent_after:
                end.wait(60)

        def log_message(self, *_words: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            end.set()
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("ends", [True, False], ids=["to its end", "before its end"])
def test_many_files_of_a_plain_web_server_have_one_limit(node: Node, ends: bool) -> None:
    first = node.repository.release()
    files = node.repository.home / ".git"
    node.repository.git("update-server-info")
    with plain_web_server(files, 10**9) as url:
        assert node.pull(PULL_REPOSITORY=url, PULL_MEBIBYTES="1").returncode == 0
    for number in range(8):
        (node.repository.home / f"file-{number}").write_bytes(os.urandom(MEBIBYTE // 4))
    node.repository.release()
    node.repository.git("update-server-info")
    with plain_web_server(files, 10**9 if ends else 3 * MEBIBYTE // 2) as url:
        done = node.pull(PULL_REPOSITORY=url, PULL_MEBIBYTES="1")
        assert (done.returncode, "PULL_MEBIBYTES=1" in node.status["message"]) == (3, True), done.stdout + done.stderr
        assert not (node.state / "incoming.git").exists()
        assert node.status["converged"]["commit"] == first
    with plain_web_server(files, 10**9) as url:
        assert node.pull(PULL_REPOSITORY=url).returncode == 0
