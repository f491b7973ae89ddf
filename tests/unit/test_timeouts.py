"""A test that hangs fails by itself, and what it began is ended."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from lab.paths import REPO
from tests.conftest import SHORT

HANGS = """
import pathlib, time, pytest

@pytest.fixture
def node():
    yield
    pathlib.Path("ended").touch()

def test_hangs(node):
    time.sleep(60)
"""


def test_every_test_is_bounded(request: pytest.FixtureRequest) -> None:
    assert int(request.config.getini("timeout")) == 7200
    own = request.node.get_closest_marker("timeout")
    assert own
    assert own.args == (SHORT["unit"],)


def test_one_that_hangs_fails_with_its_fixtures_ended(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(HANGS)
    options = ["-c", str(REPO / "pyproject.toml"), "--rootdir=.", "-p", "no:cacheprovider", "--timeout=1"]
    command = [sys.executable, "-m", "pytest", *options, "test_it.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=50, check=False)
    assert (done.returncode, "Timeout (>1.0s) from pytest-timeout" in done.stdout) == (1, True), done.stdout
    assert (tmp_path / "ended").exists()
