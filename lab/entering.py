"""Entering a lab: commands of this machine, run in the lab's network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lab.processes import tool


def inside(holder: int, argv: Sequence[str | Path], cwd: Path | None = None) -> list[str]:
    """`argv` as a command that runs in the namespaces of a lab's holder, and dies with its caller or with the lab."""
    # Entering a mount namespace leaves one at its root, so the directory has to be entered again.
    enter = [tool("nsenter"), f"--target={holder}", "--mount", "--net", "--pid", "--"]
    return [*enter, "env", f"--chdir={cwd or Path.cwd()}", "setpriv", "--pdeathsig", "KILL", "--", *map(str, argv)]
