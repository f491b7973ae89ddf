"""Build a thing once: by one of several builders, and never half."""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from lab.paths import CACHE


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on `path`. The kernel drops it when the process dies, however it dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def digest(*recipe: str) -> str:
    """A short digest of everything that decides what a build gives."""
    return hashlib.sha256("\0".join(recipe).encode()).hexdigest()[:12]


def remove_tree(path: Path) -> None:
    """Remove a directory that may hold a whole system, but nothing that is mounted in it."""
    subprocess.run(["rm", "-rf", "--one-file-system", "--", str(path)], check=False)


def once(kind: str, recipe: str, build: Callable[[Path], None]) -> Path:
    """The cached directory of this kind and recipe; where there is none, `build` fills one, which is then renamed.

    A build that was cut leaves only a directory ending in `.part`; whoever builds that kind next removes it, together
    with what former recipes gave.
    """
    final = CACHE / f"{kind}-{recipe}"
    if final.is_dir():
        return final
    with locked(CACHE / f".{kind}.lock"):
        if final.is_dir():
            return final
        part = CACHE / f".{kind}.part"
        remove_tree(part)
        part.mkdir()
        try:
            build(part)
            os.rename(part, final)
        finally:
            remove_tree(part)
        for other in CACHE.glob(f"{kind}-*"):
            if other != final and other.name.rpartition("-")[0] == kind:
                remove_tree(other)
    return final
