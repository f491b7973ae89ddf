"""What the deploys need of Python, as wheels for a node that runs them itself and reaches no package index."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

from lab import cache
from lab.errors import LabError
from lab.paths import REPO
from lab.processes import leashed

LOCK = REPO / "requirements" / "run.txt"
# Wheels say how old a C library they are content with; all that a node of today has are fine.
_C_LIBRARIES = ("2_34", "2_28", "2_17")


def fetched(python: str) -> Path:
    """A directory with the locked wheels for a version of Python such as 3.14, downloaded on first use."""
    machine = platform.machine()

    def build(into: Path) -> None:
        command = [*leashed(), sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
        command += ["--require-hashes", "--no-deps", "--only-binary=:all:", "--python-version", python]
        command += [f"--platform=manylinux_{version}_{machine}" for version in _C_LIBRARIES]
        command += [f"--platform=manylinux2014_{machine}", "--dest", str(into), "--requirement", str(LOCK)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise LabError(f"pip could not download the wheels for Python {python}:\n{done.stderr[-3000:]}")

    recipe = cache.digest(LOCK.read_text("utf-8"), python, machine)
    return cache.once(f"wheels-{python}", recipe, build)
