"""Which commit of this project this is."""

from __future__ import annotations

import subprocess
from pathlib import Path

__all__ = ["commit"]

_ROOT = Path(__file__).resolve().parent.parent


def commit() -> str:
    """The commit of this project, with "+" where files of it were changed since; "" where it is no checkout."""
    git = ["git", "-C", str(_ROOT)]
    try:
        found = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
        changed = subprocess.run([*git, "status", "--porcelain", "-uno"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return found.stdout.strip() + ("+" if changed.stdout.strip() else "")
