"""What a node that pulls spends on what others hand out has an end: in time, on its disk and in memory."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest

from tests.conftest import program
from tests.unit.pull_place import BRANCH, MEBIBYTE, Node, make_node


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
    program(scheme if scheme == "ssh" else "git")
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


@pytest.mark.usefixtures("signals_are_heard")
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


# --- memory -----------------------------------------------------------------------------------------------------------


def entry(kind: int, size: int, content: bytes, base: bytes = b"") -> bytes:
    """One object in a pack: its kind, its size, the base of a delta, what it holds."""
    head, size = [kind << 4 | size & 15], size >> 4
    while size:
        head[-1] |= 128
        head.append(size & 127)
        size >>= 7
    return bytes(head) + base + zlib.compress(content, 9)


def number(value: int) -> bytes:
    """As a delta has sizes."""
    digits = []
    while value >= 128:
        digits.append(value & 127 | 128)
        value >>= 7
    return bytes([*digits, value])


def name_of(kind: str, content: bytes) -> str:
    return hashlib.sha1(f"{kind} {len(content)}\0".encode() + content).hexdigest()


def write_bundle(path: Path, message: bytes, mebibytes: int) -> None:
    """A file that git can fetch a branch from: a commit, and beside it a delta that makes one file of so many MiB."""
    copy = b"\xf0\xff\xff\xff"  # the first 16 MiB of the base, but for a byte
    base, times = bytes(0xFFFFFF), mebibytes // 16
    delta = number(len(base)) + number(times * len(base)) + copy * times
    who = b"A <a@example.internal> 0 +0000\n"
    commit = b"tree %s\nauthor %scommitter %s\n" % (name_of("tree", b"").encode(), who, who) + message
    entries = [entry(1, len(commit), commit), entry(2, 0, b"")]
    if times:
        reference = bytes.fromhex(name_of("blob", base))
        entries += [entry(3, len(base), base), entry(7, len(delta), delta, reference)]
    pack = b"PACK" + (2).to_bytes(4, "big") + len(entries).to_bytes(4, "big") + b"".join(entries)
    head = f"# v2 git bundle\n{name_of('commit', commit)} {BRANCH}\n\n"
    path.write_bytes(head.encode() + pack + hashlib.sha1(pack).digest())


MEASURE = """\
import resource, subprocess, sys
ended = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode
print(ended, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


@pytest.mark.parametrize(
    ("message", "file", "code"),
    [(0, 512, 3), (200, 0, 4), (0, 64, 4)],
    ids=["a file", "a message", "a file that is well"],
)
def test_a_few_bytes_that_unpack_to_many_do_not_take_the_memory(
    node: Node, tmp_path: Path, message: int, file: int, code: int
) -> None:
    bundle = tmp_path / "evil.bundle"
    write_bundle(bundle, b"x" * (message * MEBIBYTE), file)
    assert bundle.stat().st_size < MEBIBYTE
    command, environment = node.command(PULL_REPOSITORY=str(bundle), PULL_REF=BRANCH, PULL_MEBIBYTES="16")
    # What it and all that it started took at most; not from here, since a program begins with what its parent took.
    measured = [sys.executable, "-c", MEASURE, *command]
    done = subprocess.run(measured, env=environment, stdout=subprocess.PIPE, text=True, check=True, timeout=60)
    ended, most = map(int, done.stdout.split())
    assert (ended, node.status["exit"]) == (code, code)
    assert most < (16 + 256) * 1024
    if code == 3:
        assert "with 272 MiB of memory at most" in node.status["message"]
    assert node.ran == []
