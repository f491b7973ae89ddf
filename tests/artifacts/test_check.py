"""`python -m artifacts check`: a mirror or a folder against the lock file."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from artifacts import checking
from artifacts.digest import Digest
from tests.artifacts.conftest import Run, whole_lock
from tests.artifacts.loopback import Answer, LoopbackSite, content, digests, release
from userns.releases import Lock


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    """A lock file of which the site and the folder have everything."""
    return whole_lock(tmp_path / "whole.toml")


def asset(component: str = "containerd", version: str = "2.3.5", arch: str = "amd64") -> str:
    return release(component, version).assets()[arch]


class TestMirror:
    def test_all_is_well(self, run: Run, mirror: LoopbackSite, whole: Path) -> None:
        assert run("check", mirror.url, "--lock", whole) == (0, f"{mirror.url}: 15 good\n", "")

    def test_missing_wrong_swapped_and_unreadable(self, run: Run, mirror: LoopbackSite, whole: Path) -> None:
        del mirror.answers[asset()]
        del mirror.answers[asset(arch="arm64")]
        mirror.put(asset("containerd", "2.2.8"), content("containerd", "2.3.5", "amd64"))
        mirror.put(asset("runc", "1.4.4"), content("runc", "1.4.4", "amd64")[:100])
        mirror.answers[asset("runc", "1.4.4", "arm64")] = Answer(status=403)
        ran = run("check", mirror.url, "--lock", whole)
        assert ran.code == 1
        lines = ran.out.splitlines()
        assert lines[0] == "containerd 2.3.5: missing: amd64, arm64"
        assert lines[1].startswith("containerd 2.2.8 amd64: wrong: it is containerd 2.3.5 for amd64: ")
        assert lines[2].startswith("runc 1.4.4 amd64: wrong: 100 bytes with SHA-256 ")
        assert lines[2].endswith(f"the lock file pins {digests('runc', '1.4.4')['amd64']}")
        assert lines[3].startswith("runc 1.4.4 arm64: unreadable: ")
        assert lines[3].endswith("HTTP 403 Forbidden")
        assert lines[4] == f"{mirror.url}: 10 good, 2 missing, 2 wrong, 1 unreadable"

    def test_an_answer_that_ends_early_is_no_digest(self, run: Run, mirror: LoopbackSite, whole: Path) -> None:
        mirror.answers[asset()] = Answer(content("containerd", "2.3.5", "amd64"), cut=100)
        ran = run("check", mirror.url, "--lock", whole, "--retries", 0)
        assert ran.code == 2
        assert "containerd 2.3.5 amd64: unreadable: " in ran.out
        assert "the answer ends after 100 of " in ran.out

    def test_a_site_that_does_not_answer_is_one_line(self, run: Run, whole: Path) -> None:
        ran = run("check", "http://127.0.0.1:1", "--lock", whole, "--retries", 0)
        assert (ran.code, ran.out) == (2, "")
        assert len(ran.err.splitlines()) == 1
        assert "127.0.0.1:1/" in ran.err
        assert "Connection refused" in ran.err

    def test_only_some(self, run: Run, mirror: LoopbackSite, whole: Path) -> None:
        ran = run(
            "check", mirror.url, "--lock", whole, "--only", "containerd=2.2.8", "--only", "runc", "--arch", "amd64"
        )
        assert ran.out == f"{mirror.url}: 2 good\n"
        assert sorted(mirror.paths()) == sorted([asset("containerd", "2.2.8"), asset("runc", "1.4.4")])

    @pytest.mark.parametrize(
        ("options", "reason"),
        [
            (["--only", "nerdctl"], "'nerdctl' is no component"),
            (["--only", "crun"], "it has no crun at all"),
            (
                ["--only", "runc==1.4.4"],
                "'=1.4.4' is not a version such as 2.3.4: write runc=2.3.4",
            ),
            (["--only", "runc="], "'' is not a version such as 2.3.4"),
            (["--only", "runc=v1.4.4"], "'v1.4.4' is not a version such as 2.3.4"),
            (["--only", "runc=9.9.9"], "the lock file has no digest for runc 9.9.9"),
            (["--arch", "loongarch64"], "invalid choice"),
            (["--jobs", "0"], "'0' is not a number from 1 to 32"),
            (["--timeout", "0"], "'0' is not a number of seconds"),
            (["--timeout", "nan"], "'nan' is not a number of seconds"),
        ],
    )
    def test_bad_options(self, run: Run, mirror: LoopbackSite, whole: Path, options: list[str], reason: str) -> None:
        ran = run("check", mirror.url, "--lock", whole, *options)
        assert (ran.code, ran.out) == (2, "")
        assert reason in ran.err
        assert mirror.requests == []

    def test_json(self, run: Run, mirror: LoopbackSite, whole: Path) -> None:
        del mirror.answers[asset()]
        ran = run("check", mirror.url, "--lock", whole, "--json", "--only", "containerd")
        assert ran.code == 1
        found = json.loads(ran.out)
        assert found["where"] == mirror.url
        assert found["superfluous"] == []
        assert found["assets"][0] == {
            "component": "containerd",
            "version": "2.3.5",
            "architecture": "amd64",
            "path": asset(),
            "sha256": digests("containerd", "2.3.5")["amd64"],
            "state": "missing",
            "detail": f"{mirror.url}{asset()}: there is no such file (HTTP 404 Not Found)",
        }
        assert [each["state"] for each in found["assets"][1:]] == ["good"] * 9


class TestFolder:
    def test_all_is_well(self, run: Run, folder: Path, whole: Path) -> None:
        assert run("check", folder, "--lock", whole) == (0, f"{folder}: 15 good\n", "")

    def test_missing_wrong_and_unreadable(self, run: Run, folder: Path, whole: Path) -> None:
        (folder / asset().lstrip("/")).unlink()
        (folder / asset("containerd", "2.2.8").lstrip("/")).write_bytes(b"")
        runc = folder / asset("runc", "1.4.4").lstrip("/")
        runc.unlink()
        os.mkfifo(runc)
        ran = run("check", folder, "--lock", whole)
        assert ran.code == 1
        assert ran.out.splitlines()[0] == "containerd 2.3.5: missing: amd64"
        assert "containerd 2.2.8 amd64: wrong: 0 bytes" in ran.out
        assert f"runc 1.4.4 amd64: unreadable: {runc}: this is not a file" in ran.out
        assert ran.out.endswith(f"{folder}: 12 good, 1 missing, 1 wrong, 1 unreadable\n")

    def test_a_directory_where_the_asset_should_be(self, run: Run, folder: Path, whole: Path) -> None:
        file = folder / asset().lstrip("/")
        file.unlink()
        file.mkdir()
        ran = run("check", folder, "--lock", whole)
        assert ran.code == 2
        assert "1 unreadable" in ran.out

    def test_links_that_lead_nowhere(self, run: Run, folder: Path, whole: Path) -> None:
        file = folder / asset().lstrip("/")
        file.unlink()
        file.symlink_to(file.name)
        (file.parent / "circle").symlink_to("circle")
        ran = run("check", folder, "--lock", whole)
        assert ran.code == 2
        assert "containerd 2.3.5 amd64: unreadable: " in ran.out
        assert "circle: superfluous" in ran.out

    def test_what_the_lock_does_not_have_is_superfluous_and_no_fault(self, run: Run, folder: Path, whole: Path) -> None:
        old = folder / release("runc", "1.3.6").assets()["amd64"].lstrip("/")
        old.parent.mkdir()
        old.write_bytes(b"old")
        beside = release("containerd", "2.3.5").list_of(asset())
        (folder / beside.lstrip("/")).write_text("a checksum file is no asset")
        (folder / "debian").mkdir()
        (folder / "debian" / "Packages").write_text("a mirror may have more to do")
        ran = run("check", folder, "--lock", whole, "--only", "containerd")
        assert ran.code == 0
        assert ran.out.splitlines() == [
            "opencontainers/runc/releases/download/v1.3.6/runc.amd64: superfluous: the lock file does not have it",
            f"{folder}: 10 good",
        ]
        assert json.loads(run("check", folder, "--lock", whole, "--json").out)["superfluous"] == [
            "opencontainers/runc/releases/download/v1.3.6/runc.amd64"
        ]

    def test_many_superfluous_files_are_counted(self, run: Run, folder: Path, whole: Path) -> None:
        directory = folder / Path(asset().lstrip("/")).parent
        for number in range(30):
            (directory / f"{number:02}\x1b[31m").write_bytes(b"")
        ran = run("check", folder, "--lock", whole)
        assert ran.code == 0
        assert "and 10 superfluous files more: --json has them all" in ran.out
        assert "\x1b" not in ran.out
        assert r"00\x1b[31m: superfluous" in ran.out

    @pytest.mark.parametrize("where", ["/nowhere", "ftp://mirror.example", "mirror.example"])
    def test_no_folder(self, run: Run, whole: Path, where: str) -> None:
        ran = run("check", where, "--lock", whole)
        assert (ran.code, ran.out) == (2, "")
        assert ran.err.endswith(" is not there: no such file or folder, and no http or https URL\n")
        assert ran.err.count("\n") == 1

    def test_what_is_neither_a_folder_nor_a_bundle(self, run: Run, whole: Path) -> None:
        ran = run("check", "/dev/null", "--lock", whole)
        assert (ran.code, ran.out) == (2, "")
        assert "/dev/null is no folder, and no http or https URL" in ran.err


@pytest.mark.parametrize("jobs", [1, 3, 50])
def test_so_many_are_read_at_a_time_and_told_in_order(whole: Path, jobs: int) -> None:
    assets = list(checking.locked(Lock.parse(whole.read_text()), ["containerd", "runc"]))
    all_at_work = threading.Barrier(min(jobs, len(assets)))
    at_work: list[str] = []
    most = 0

    def read(path: str, _: Callable[[int], None]) -> Digest:
        nonlocal most
        at_work.append(path)
        most = max(most, len(at_work))
        with suppress(threading.BrokenBarrierError):
            all_at_work.wait(60)
        all_at_work.abort()
        at_work.remove(path)
        return Digest("0" * 64, 1)

    found = checking.check(assets, read, jobs=jobs, seen=lambda _: None, done=lambda _: None)
    assert [each.asset for each in found] == assets
    assert most == min(jobs, len(assets))


def test_a_reader_that_breaks_down_is_not_swallowed(whole: Path) -> None:
    assets = list(checking.locked(Lock.parse(whole.read_text()), ["runc"]))

    def read(_: str, __: Callable[[int], None]) -> Digest:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        checking.check(assets, read, jobs=2, seen=lambda _: None, done=lambda _: None)
