"""A controller on macOS: it only reaches nodes, and these are Linux."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fleet import run_locks
from lab.paths import REPO
from tests import nodes
from tests.conftest import program
from tests.deploy.fleet import Fleet, pyinfra
from tests.fleet.runs import apply, begun, fleet_py, hanging, seen


@pytest.fixture
def macos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory for a fleet; what is started from now on runs as on macOS."""
    python = tmp_path / "python"
    python.mkdir()
    shutil.copy(Path(__file__).with_name("as_on_macos.py"), python / "sitecustomize.py")
    monkeypatch.setenv("PYTHONPATH", str(python))
    return tmp_path


def test_the_plain_way_works(macos: Path) -> None:
    fleet = Fleet(macos)
    fleet.add("fresh")
    fleet.add("done", nodes.converged())
    run = fleet.deploy("--dry")
    assert run.code == 0, run.text
    assert "nothing to do" in run.text


def test_so_does_a_fleet(macos: Path) -> None:
    fleet = Fleet(macos)
    fleet.add("done", nodes.converged())
    assert fleet_py("plan", fleet.inventory, home=macos).code == 0
    assert apply(fleet).code == 0
    assert [each["outcome"] for each in seen(fleet, "history")] == ["done", "done"]


def test_a_run_that_was_killed_is_told_from_one_that_goes_on(macos: Path) -> None:
    """By ps, for there is no lock that ends with its process, and no /proc."""
    program("ps")
    fleet = hanging(macos)
    with begun("apply", fleet.inventory, "-y", home=macos, after="wave 1") as (process, _):
        (run,) = seen(fleet, "history")
        assert run["outcome"] == ""
        process.kill()
        process.wait()
    (run,) = seen(fleet, "history")
    assert run["outcome"] == "broken off"


def test_a_process_is_known_by_when_it_began(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    program("ps")
    monkeypatch.setenv("TZ", "America/New_York")
    ours = run_locks.process(os.getpid())
    monkeypatch.setenv("TZ", "Europe/Berlin")  # somebody else's, who looks at the same history
    assert ours == run_locks.process(os.getpid())
    assert ours.split()[0] == str(os.getpid())
    assert ours.split()[1:] not in ([], ["gone"])
    assert run_locks.process(2**22 + 1) == f"{2**22 + 1} gone"


def test_an_image_is_baked_on_linux(macos: Path) -> None:
    run = pyinfra(f"@image/{macos}", "deploy.py", "--dry")
    assert run.code == 1
    assert "images are baked on Linux, and this is darwin" in run.text


def test_the_file_says_what_is_not_there(macos: Path) -> None:
    """Else the tests above would prove nothing."""
    code = "import ctypes, fcntl, os, sys; print(sys.platform); fcntl.F_OFD_SETLK"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "darwin\n")
    assert "AttributeError" in done.stderr
