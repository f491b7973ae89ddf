"""The node's side of a push, under every shell: an asset comes on stdin, whole and as pinned, or nothing is left."""

from __future__ import annotations

import io
import os
import tarfile
from hashlib import sha256
from pathlib import Path

import pytest

from tests.deploy.test_transport import run

# Every byte, so that nothing on the way may take it for text; more than a pipe holds.
ASSET = bytes(range(256)) * 1024
DIGEST = sha256(ASSET).hexdigest()


@pytest.fixture
def stage(tmp_path: Path) -> Path:
    """Where a stage would be, below a state directory that is not there yet."""
    return tmp_path / "state" / "staged" / "token"


def archive(**members: bytes | None) -> bytes:
    """A .tar.gz of bin/NAME; None is a link to what lies outside. Its owner is nobody of this machine."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, content in members.items():
            entry = tarfile.TarInfo(f"bin/{name}")
            entry.size, entry.mode, entry.uid, entry.gid = len(content or b""), 0o6777, 4711, 4711
            if content is None:
                entry.type, entry.linkname = tarfile.SYMTYPE, "/etc/passwd"
            tar.addfile(entry, io.BytesIO(content or b""))
    return packed.getvalue()


def receive(
    shell: list[str], stage: Path, content: bytes, *members: str, size: int | None = None, digest: str = ""
) -> tuple[int, str]:
    size = len(content) if size is None else size
    digest = digest or sha256(content).hexdigest()
    done = run(shell, "receive.sh", stage, "runc 1.4.3 for amd64", str(size), digest, *members, stdin=content)
    return done.returncode, done.stderr


def test_a_program_arrives_byte_for_byte_and_for_root_alone_until_it_is_whole(
    shell: list[str], stage: Path, tmp_path: Path
) -> None:
    assert receive(shell, stage, ASSET, "=runc") == (0, "")
    assert (stage / "runc").read_bytes() == ASSET
    assert os.listdir(stage) == ["runc"]
    assert (stage / "runc").stat().st_mode & 0o7777 == 0o755
    for directory in (stage, stage.parent, stage.parent.parent):
        assert directory.stat().st_mode & 0o7777 == 0o700


def test_an_archives_programs_belong_to_root_and_have_our_mode(shell: list[str], stage: Path) -> None:
    content = archive(containerd=b"one", ctr=b"two", more=b"three")
    assert receive(shell, stage, content, "bin/containerd=containerd", "bin/ctr=ctr") == (0, "")
    assert {path.name: path.read_bytes() for path in stage.iterdir()} == {"containerd": b"one", "ctr": b"two"}
    for path in stage.iterdir():
        status = path.stat()
        assert (status.st_uid, status.st_gid, status.st_mode & 0o7777) == (os.getuid(), os.getgid(), 0o755)


@pytest.mark.parametrize("came", [0, 1, len(ASSET) - 1])
def test_what_does_not_come_whole_is_told_and_takes_the_stage_with_it(
    shell: list[str], stage: Path, tmp_path: Path, came: int
) -> None:
    code, said = receive(shell, stage, ASSET[:came], "=runc", size=len(ASSET), digest=DIGEST)
    assert (code, os.listdir(tmp_path)) == (1, [])
    assert said == f"only {came} of {len(ASSET)} bytes of runc 1.4.3 for amd64 arrived; nothing was unpacked\n"


def test_another_content_of_the_same_size_is_not_unpacked(shell: list[str], stage: Path, tmp_path: Path) -> None:
    code, said = receive(shell, stage, ASSET[::-1], "=runc", digest=DIGEST)
    assert (code, os.listdir(tmp_path)) == (1, [])
    assert "what arrived as runc 1.4.3 for amd64 is not what the lock file pins: its SHA-256 is " in said


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (archive(ctr=b"two"), "does not hold all of: bin/containerd"),
        (archive(containerd=None), "bin/containerd in what arrived as runc 1.4.3 for amd64 is not a plain file"),
        (b"no archive", "does not hold all of: bin/containerd"),
    ],
)
def test_a_pinned_archive_without_the_program_is_refused(
    shell: list[str], stage: Path, tmp_path: Path, content: bytes, says: str
) -> None:
    code, said = receive(shell, stage, content, "bin/containerd=containerd")
    assert (code, os.listdir(tmp_path)) == (1, [])
    assert says in said


@pytest.mark.parametrize("gone", ["staged", "staged/token/.asset*"])
def test_a_stage_that_another_run_dropped_is_no_asset_that_somebody_changed(
    shell: list[str], stage: Path, tmp_path: Path, gone: str
) -> None:
    """Whoever ends a change drops all stages, also while this one is being filled."""
    (tmp_path / "bin").mkdir()
    timeout = tmp_path / "bin" / "timeout"
    timeout.write_text(f'#!/bin/sh\nshift; "$@"; code=$?\nrm -rf "{tmp_path}/state/"{gone}\nexit $code\n')
    timeout.chmod(0o755)
    path = f"{timeout.parent}:{os.environ['PATH']}"
    arguments = (stage, "runc", str(len(ASSET)), DIGEST, "=runc")
    done = run(shell, "receive.sh", *arguments, stdin=ASSET, path=path)
    assert done.returncode == 1
    assert done.stderr == "another run changed this node meanwhile; run again\n"
    assert [each for each in tmp_path.rglob("*") if each.is_file()] == [timeout]


def test_a_stage_that_cannot_be_made_is_told_once_all_was_taken(shell: list[str], stage: Path, tmp_path: Path) -> None:
    """Whoever sends would otherwise see a broken pipe and no reason."""
    (tmp_path / "state").write_text("a file where a directory should be")
    code, said = receive(shell, stage, ASSET * 20, "=runc")
    assert code != 0
    assert "state" in said
    assert os.listdir(tmp_path) == ["state"]


def test_the_components_before_it_go_too(shell: list[str], stage: Path, tmp_path: Path) -> None:
    assert receive(shell, stage, ASSET, "=runc") == (0, "")
    assert receive(shell, stage, ASSET[:5], "=crun", size=len(ASSET), digest=DIGEST)[0] == 1
    assert os.listdir(tmp_path) == []
