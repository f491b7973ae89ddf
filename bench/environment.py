"""Virtual environments of the bench's own, below build/, with locked digests.

What is measured runs in one that holds what `make .venv` gives an operator. Beside what the tests need it would be
slower: at each start gevent has Python look through all that is installed, 25 times.
"""

from __future__ import annotations

import subprocess
import sys
from functools import cache
from pathlib import Path

from lab.paths import BUILD, REPO

_REQUIREMENTS = REPO / "requirements"


def operators() -> Path:
    """The programs of an operator's: python and pyinfra."""
    return programs("bench-operator", "run", "fleet")


@cache
def programs(name: str, *locked: str) -> Path:
    """The directory of its programs. It is made anew where what it is to hold has changed."""
    home = BUILD / name
    files = [_REQUIREMENTS / f"{each}.txt" for each in locked]
    wanted = "".join(file.read_text() for file in files)
    stamp = home / "locked.txt"
    if not stamp.exists() or stamp.read_text() != wanted:
        subprocess.run([sys.executable, "-m", "venv", "--clear", home], check=True)
        pip: list[str | Path] = [home / "bin/python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        only = ["--require-hashes", "--no-deps", "--only-binary=:all:"]
        subprocess.run([*pip, *only, *(f"--requirement={file}" for file in files)], check=True)
        stamp.write_text(wanted)
    return home / "bin"
