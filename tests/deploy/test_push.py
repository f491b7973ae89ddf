"""A push by the real pyinfra, to a directory of this machine: what it shows, says, and holds in memory."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import threading
import tracemalloc
from hashlib import sha256
from pathlib import Path
from random import Random

import pytest

from artifacts import bundlefile
from artifacts.bundlefile import BundleFile
from lab.paths import PYINFRA, REPO
from tasks.pushing import Pieces
from tests.deploy.fleet import Run, pyinfra
from userns.bundles import Bundle, Bundled

CONTENT = Random(4).randbytes(20_000_000)
ASSET = Bundled(
    "runc", "1.4.3", "amd64", "/runc/v1.4.3/runc.amd64", len(CONTENT), sha256(CONTENT).hexdigest(), "", "a test"
)

DEPLOY = """
from pathlib import Path
from artifacts.bundlefile import BundleFile
from tasks import operations, pushing

bundle = BundleFile(Path({bundle!r}))
for asset in bundle.bundle.assets:
    pushing.install()
    pushing.shown.progress.expect(asset.size)
    operations.push(name="Push runc", stage={stage!r}, bundle=bundle, asset=asset, programs={{"": "runc"}})
"""


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    (tmp_path / "runc").write_bytes(CONTENT)
    bundlefile.write(tmp_path / "bundle.tar", Bundle((ASSET,)), [tmp_path / "runc"])
    return tmp_path / "bundle.tar"


@pytest.fixture
def stage(tmp_path: Path) -> Path:
    return tmp_path / "node" / "state" / "staged" / "token"


@pytest.fixture
def deploy(bundle: Path, stage: Path, tmp_path: Path) -> Path:
    file = tmp_path / "push.py"
    file.write_text(DEPLOY.format(bundle=str(bundle), stage=str(stage)))
    stage.parents[2].mkdir()
    return file


def push(deploy: Path, *options: str) -> Run:
    return pyinfra("@local", deploy, "-y", *options, PYTHONPATH=str(REPO))


@pytest.mark.parametrize("options", [(), ("--json",), ("-vvv", "--diff")], ids=" ".join)
def test_all_of_it_arrives_and_a_pipe_sees_no_progress(deploy: Path, stage: Path, options: tuple[str, ...]) -> None:
    run = push(deploy, *options)
    assert run.code == 0, run.text
    assert (stage / "runc").read_bytes() == CONTENT
    assert "MB/s" not in run.text
    assert "\r" not in run.text
    if "--json" in options:
        assert run.json["results"]["failed_hosts"] == []


def on_a_terminal(deploy: Path, *options: str, stdout: int | None = None) -> str:
    """What a terminal gets to see of a push."""
    ours, theirs = pty.openpty()
    seen = bytearray()

    def read() -> None:
        while True:
            try:
                seen.extend(os.read(ours, 4096))
            except OSError:  # the other side is closed
                return

    reader = threading.Thread(target=read)
    reader.start()
    try:
        done = subprocess.run(
            [PYINFRA, "@local", deploy, "-y", *options],
            cwd=REPO,
            env={**os.environ, "PYTHONPATH": str(REPO)},
            stdin=theirs,
            stdout=theirs if stdout is None else stdout,
            stderr=theirs,
            timeout=100,
            check=False,
        )
    finally:
        os.close(theirs)
        reader.join()
        os.close(ours)
    assert done.returncode == 0, seen
    return seen.decode()


@pytest.fixture
def slow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node that takes its time: it is away for a while after 40 % of all."""
    directory = tmp_path / "slow"
    directory.mkdir()
    (directory / "cat").write_text("#!/bin/sh\nhead -c 8000000\nsleep 5\nPATH=${PATH#*:} exec cat\n")
    (directory / "cat").chmod(0o755)
    monkeypatch.setenv("PATH", f"{directory}:{os.environ['PATH']}")


def test_a_terminal_sees_a_bar(deploy: Path, slow: None) -> None:
    seen = on_a_terminal(deploy)
    assert re.search(r"\[#{6} +\] +4\d% 8/20 MB, \d+\.\d MB/s, 0/1 assets pushed", seen), seen


def test_a_terminal_sees_a_bar_beside_json_in_a_file(deploy: Path, slow: None, tmp_path: Path) -> None:
    with (tmp_path / "out.json").open("wb") as out:
        seen = on_a_terminal(deploy, "--json", stdout=out.fileno())
    assert "/20 MB, " in seen
    assert (tmp_path / "out.json").read_text().startswith("{")


def test_why_the_node_did_not_take_it_is_told(deploy: Path, bundle: Path, stage: Path) -> None:
    """And not that a pipe is broken, which is all that the one who writes gets to see."""
    stage.parents[1].write_text("a file where the state directory should be")
    run = push(deploy)
    assert run.code == 1
    assert any("mkdir" in line for line in run.said("@local")), run.text
    assert "Broken pipe" not in run.text


def test_a_bundle_that_changes_while_it_is_read_fails_the_host(deploy: Path, bundle: Path, stage: Path) -> None:
    """The digest is the node's to judge."""
    with bundle.open("r+b") as file:
        file.seek(bundle.stat().st_size // 2)
        file.write(b"changed")
    run = push(deploy)
    assert run.code == 1
    assert "what arrived as runc 1.4.3 for amd64 is not what the lock file pins" in run.text
    assert not stage.exists()


def test_an_asset_is_never_in_memory_as_a_whole(bundle: Path) -> None:
    file = BundleFile(bundle)
    tracemalloc.start()
    try:
        many = [Pieces(file, file.bundle.assets[0], lambda _: None) for _ in range(50)]
        going = [iter(each) for each in many]
        for _ in range(20):
            for each in going:
                assert next(each).encode()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        for pieces in many:
            pieces.timer.close()
    assert peak < 50 * 200_000


def test_through_su_with_a_password_it_is_refused_by_name(deploy: Path) -> None:
    run = push(deploy, "--data", "_su_user=root", "--data", "_su_password=secret")
    assert run.code == 1
    assert "cannot be pushed through su with a password" in run.text
