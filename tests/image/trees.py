"""Trees of images to bake, pyinfra run on them as an image's builder runs it, and what is in them afterwards."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from lab import cache
from lab.paths import PYINFRA, REPO
from lab.tree import build, copy

__all__ = ["KERNEL", "PYINFRA", "Bake", "Builder", "build", "changed", "contents", "copy", "look", "look_at", "remove"]

KERNEL = "6.12"


def remove(root: Path) -> None:
    """Remove a tree."""
    cache.remove_tree(root)


def look(root: Path) -> dict[str, str]:
    """Everything in a tree: what it is, with its mode, owner, time, and content or target."""
    found = {}
    for directory, names, files in os.walk(root):
        for name in (*names, *files):
            path = Path(directory, name)
            state = path.lstat()
            about = f"{stat.filemode(state.st_mode)} {state.st_uid}:{state.st_gid} {state.st_mtime_ns}"
            if path.is_symlink():
                about += f" to {os.readlink(path)}"
            elif stat.S_ISREG(state.st_mode):
                about += f" {state.st_size} {state.st_ino}"
            found[f"/{path.relative_to(root)}"] = about
    return found


def contents(root: Path, paths: Mapping[str, object] | list[str]) -> dict[str, str]:
    """What these paths of a tree are, with their digests in the place of inodes."""
    found = {}
    for name in paths:
        path = root / name.lstrip("/")
        about = look_at(path)
        found[name] = about
    return found


def look_at(path: Path) -> str:
    """One path: mode, owner, time, and digest or target."""
    state = path.lstat()
    about = f"{stat.filemode(state.st_mode)} {state.st_uid}:{state.st_gid} {state.st_mtime_ns}"
    if path.is_symlink():
        return f"{about} to {os.readlink(path)}"
    if stat.S_ISREG(state.st_mode):
        return f"{about} {hashlib.sha256(path.read_bytes()).hexdigest()}"
    return about


def changed(before: Mapping[str, str], after: Mapping[str, str]) -> set[str]:
    """The paths that are not as they were, directories apart whose time alone has changed."""
    different = {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}
    return {path for path in different if not (_directory(before.get(path)) and _directory(after.get(path)))}


def _directory(about: str | None) -> bool:
    return about is not None and about.startswith("d")


@dataclass(frozen=True)
class Bake:
    """One run of pyinfra over images: its exit code and what it said."""

    code: int
    stdout: str
    stderr: str

    @property
    def text(self) -> str:
        """All that it printed."""
        return self.stdout + self.stderr

    @cached_property
    def operations(self) -> list[str]:
        """The names of the operations that ran with success."""
        results: list[dict[str, Any]] = json.loads(self.stdout)["results"]["operations"]
        return [each["name"] for each in results if each["success"]]

    @property
    def said(self) -> list[str]:
        """What it told, line by line, without the image's name."""
        return [line.partition("] ")[2] for line in self.stderr.splitlines() if line.lstrip().startswith("[@")]


class Builder:
    """Somebody who bakes images, with a mirror and its lock file."""

    def __init__(self, release_url: str, artifact_lock: Path, **settings: object) -> None:
        self.settings: dict[str, object] = {
            "release_url": release_url,
            "artifact_lock": str(artifact_lock),
            "containerd_version": None,
            "runc_version": None,
            **settings,
        }

    def run(
        self,
        *words: str | Path,
        inventory: str = "inventories/golden.py",
        deploy: tuple[str, ...] = ("deploy.py",),
        before: tuple[str, ...] = (),
        environment: Mapping[str, str] | None = None,
        **settings: object,
    ) -> Bake:
        """pyinfra over these roots. A word that begins with a dash is one of its options."""
        roots = [str(word) for word in words if not str(word).startswith("-")]
        options = [str(word) for word in words if str(word).startswith("-")]
        data = [f"--data={name}={json.dumps(value)}" for name, value in {**self.settings, **settings}.items()]
        done = subprocess.run(
            [*before, str(PYINFRA), "--json", *options, *data, inventory, *deploy],
            cwd=REPO,
            env={**os.environ, "IMAGE_ROOTS": ":".join(roots), **(environment or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        return Bake(done.returncode, done.stdout, done.stderr)

    def bake(self, *roots: Path, **settings: Any) -> Bake:
        """The real thing, which has to succeed."""
        bake = self.run(*roots, "-y", **settings)
        assert bake.code == 0, bake.text
        return bake

    def dry(self, *roots: Path, **settings: Any) -> Bake:
        """A dry run with diffs."""
        return self.run(*roots, "--dry", "--diff", **settings)
