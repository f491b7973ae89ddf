"""The command line as a process: interrupted, killed, cut off from its reader, and out of space."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from artifacts.lockfile import ROOT
from tests.artifacts.conftest import LOCK
from tests.artifacts.keys import Keys
from tests.artifacts.loopback import Answer, LoopbackSite, checksum_lines

# For the slowest machine; nothing waits this long on any other.
PATIENCE = 300


def start(scratch: Path, *arguments: object, before: Callable[[], object] | None = None) -> subprocess.Popen[str]:
    """The command line; `scratch` is its directory for temporary files."""

    def prepare() -> None:
        # Python minds an interrupt only where it was not told to ignore it, as a shell tells its background jobs.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        if before:
            before()

    scratch.mkdir()
    return subprocess.Popen(
        [sys.executable, "-m", "artifacts", *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | {"TMPDIR": str(scratch)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=prepare,
    )


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("command", ["add", "check"])
def test_an_interrupt_ends_it_at_once_and_leaves_nothing(
    site: LoopbackSite, keys: Keys, lock: Path, tmp_path: Path, command: str, sign: signal.Signals
) -> None:
    scratch = tmp_path / "scratch"
    if command == "add":
        # The second release never comes, when the first is verified and a keyring lies in a temporary file.
        published = site.publish("runc", "1.4.4")
        path = published.list_of(published.assets()["amd64"])
        site.put(path, keys.clear_sign(checksum_lines("runc", "1.4.4")))
        never = site.publish("runc", "1.3.7")
        waits = never.list_of(never.assets()["amd64"])
        arguments = ["runc", "1.4.4", "1.3.7", "--release-url", site.url, "--signer", keys.good]
        arguments += ["--keyring", str(keys.ring("good@example.org"))]
    else:
        waits = site.publish("containerd", "2.2.7").assets()["amd64"]
        arguments = [site.url, "--only", "containerd"]
    site.answers[waits] = Answer(b"x" * 100, headers={"Content-Length": "200"}, never=True)
    process = start(scratch, command, *arguments, "--lock", lock, "--timeout", 3600)
    try:
        while waits not in site.paths():
            assert site.asked.wait(PATIENCE)
            site.asked.clear()
        process.send_signal(sign)
        out, err = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 130
    assert out == ""
    assert err == f"python -m artifacts {command}: interrupted; nothing is half-written\n"
    assert lock.read_text() == LOCK
    assert os.listdir(scratch) == []
    assert sorted(os.listdir(tmp_path)) == ["lock.toml", "scratch"]


def test_no_space_for_the_new_lock_file(site: LoopbackSite, lock: Path, tmp_path: Path) -> None:
    def small() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))

    site.containerd("2.3.5")
    arguments = ("add", "containerd", "2.3.5", "--lock", lock, "--release-url", site.url)
    process = start(tmp_path / "scratch", *arguments, before=small)
    out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out) == (2, "")
    assert "could not be written: File too large. It is as it was" in err
    assert "Traceback" not in err
    assert lock.read_text() == LOCK
    assert sorted(os.listdir(tmp_path)) == ["lock.toml", "scratch"]


def test_a_reader_that_has_seen_enough(tmp_path: Path) -> None:
    process = start(tmp_path / "scratch", "list", "--json")
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == ""
    process.stderr.close()
    assert process.wait(PATIENCE) == 141  # and not 1, which says that something was refused


def test_a_pipe_gets_no_progress(site: LoopbackSite, lock: Path, tmp_path: Path) -> None:
    site.publish("containerd", "1.7.34")
    process = start(tmp_path / "scratch", "check", site.url, "--lock", lock, "--only", "containerd=1.7.34")
    out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, err) == (1, "")
    assert "\r" not in out
