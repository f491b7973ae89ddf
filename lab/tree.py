"""Trees of images: Debian as an image's builder leaves it, with kernels and without a container runtime."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from lab import base, cache, kernels

# Of what mmdebstrap's minbase lacks, all that an image needs to be baked, and to have modules.
SMALL = ("systemd", "systemd-sysv", "kmod")


def build(root: Path, suite: str, *names: str) -> Path:
    """The lab's Debian `suite` in the new directory `root`, with these of the lab's kernels; it boots."""
    root.mkdir(parents=True)
    _run(*base.UNPACK, str(base.tar(suite)), "--directory", str(root))
    for unit in base.MASKED_FOR_THE_MACHINE:
        (root / "etc/systemd/system" / unit).unlink()
    return _with_kernels(root, *names)


def small(root: Path, suite: str, *names: str) -> Path:
    """The same with as little as an image can have: a third of the time to make, and nobody can log in."""
    root.mkdir(parents=True)
    _run(*base.UNPACK, str(small_tar(suite)), "--directory", str(root))
    return _with_kernels(root, *names)


def small_tar(suite: str) -> Path:
    """The small tree of `suite` as a tar, made on first use."""

    def make(into: Path) -> None:
        base.bootstrap(suite, into, "minbase", SMALL)

    return cache.once(f"tree-{suite}", cache.digest(suite, *SMALL), make) / "root.tar"


def _with_kernels(root: Path, *names: str) -> Path:
    for name in names:
        kernel = kernels.fetched(name)
        (root / "usr/lib/modules").mkdir(exist_ok=True)
        _run("cp", "-a", str(kernel.modules), str(root / "usr/lib/modules/"))
        _run("chroot", str(root), "depmod", "-a", kernel.release)
        shutil.copy(kernels.config(name), root / f"boot/config-{kernel.release}")
    return root


def copy(root: Path, to: Path) -> Path:
    """A copy that shares its files with `root`: a bake replaces files and changes none."""
    _run("cp", "-al", str(root), str(to))
    return to


def _run(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True)
