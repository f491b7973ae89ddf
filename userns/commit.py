"""Which commit of this project this is."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

__all__ = ["commit"]

_ROOT = Path(__file__).resolve().parent.parent


def commit() -> str:
    """The commit of this project, with "+" where files of it were changed since; "" where it is no checkout."""
    try:
        top, found = _git("rev-parse", "--show-toplevel", "HEAD").splitlines()
        if Path(top).resolve() != _ROOT:  # another repository's, in which this is a copy
            return ""
        changed = _git("status", "--porcelain", "-uno")
    except (OSError, ValueError, subprocess.CalledProcessError):
        return ""
    return found + ("+" if changed.strip() else "")


def _git(*words: str) -> str:
    # Of the repository whose hook this may be run from.
    theirs = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE")
    own = {name: value for name, value in os.environ.items() if name not in theirs}
    done = subprocess.run(["git", "-C", str(_ROOT), *words], capture_output=True, text=True, check=True, env=own)
    return done.stdout
