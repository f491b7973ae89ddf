"""Each command line says which version it is of, and which commit."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lab.paths import REPO
from userns import __version__
from userns.commit import commit


@pytest.mark.parametrize("program", ["fleet.py", "-m userns", "-m artifacts"])
def test_the_version_is_told_with_the_commit_where_git_knows_it(tmp_path: Path, program: str) -> None:
    def told(**environment: str) -> str:
        words = [sys.executable, *program.split(), "--version"]
        done = subprocess.run(
            words, cwd=REPO, env={**os.environ, **environment}, capture_output=True, text=True, check=True
        )
        assert done.stderr == ""
        return done.stdout

    here = commit().replace("+", " and changes since")
    assert told() == f"userns-node {__version__}" + (f" (commit {here})\n" if here else "\n")
    assert told(PATH=str(tmp_path)) == f"userns-node {__version__}\n"
    assert told(GIT_DIR=str(tmp_path)) == told()


def test_the_commit_of_a_repository_that_has_a_copy_is_not_this_projects(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for words in ("init", "-c user.name=a -c user.email=a@b.invalid commit --allow-empty -m one"):
        subprocess.run(["git", "-C", tmp_path, *words.split()], capture_output=True, check=True)
    monkeypatch.setattr("userns.commit._ROOT", tmp_path)
    assert len(commit()) == 40
    (tmp_path / "vendor").mkdir()
    monkeypatch.setattr("userns.commit._ROOT", tmp_path / "vendor")
    assert commit() == ""
