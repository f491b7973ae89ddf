"""Debian's own kernels, for the lab's virtual machines: the images and the modules, as the packages have them.

The flavour is `cloud`: it has NVMe, ext4 and the serial console built in, so that it boots without an initramfs.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from lab import cache, debs
from lab.errors import LabError
from lab.processes import leashed, tool

# By the name that `Lab.vm` takes: the suite whose kernel it is. The last is whatever is newest today.
KERNELS = {"5.10": "bullseye", "6.1": "bookworm", "6.12": "trixie", "newest": debs.NEWEST_KERNEL}

# One of another architecture, for a disk of its own (lab.arm64).
ARM64 = "arm64"
_SUITES = {**KERNELS, ARM64: debs.ARM64}
# What a kernel is made of: one package up to trixie, three after it. `linux-base` and its like are only scripts.
_PARTS = re.compile(r"linux-(image|binary|modules)-\d")


@dataclass(frozen=True, slots=True)
class Kernel:
    """One kernel: its architecture as Debian names it, its release as `uname -r` says it, its image, its modules."""

    name: str
    architecture: str
    release: str
    image: Path
    modules: Path


def fetched(name: str) -> Kernel:
    """The kernel of this name, downloaded on first use."""
    if name not in _SUITES:
        raise LabError(f"the lab has no kernel {name}, only {', '.join(_SUITES)}")
    suite = _SUITES[name]
    recipe = cache.digest(_meta_package(suite), _PARTS.pattern)
    home = cache.once(f"kernel-{suite}", recipe, lambda into: _fetch(suite, into))
    modules = next((home / "modules").iterdir())
    return Kernel(name, debs.architecture(suite), modules.name, home / "vmlinuz", modules)


def config(name: str) -> Path:
    """The configuration of the kernel of this name, as its package has it: for images, which have it in /boot."""

    def fetch(into: Path) -> None:
        tree = _unpacked(KERNELS[name], into)
        found = [*tree.glob("boot/config-*"), *tree.glob("usr/lib/modules/*/config")]
        if len(found) != 1:
            raise LabError(f"the kernel of Debian {KERNELS[name]} has no configuration, or several")
        shutil.move(found[0], into / "config")
        for directory in (into / "apt", into / "debs", tree):
            cache.remove_tree(directory)

    recipe = cache.digest(_meta_package(KERNELS[name]), _PARTS.pattern, fetched(name).release)
    return cache.once(f"kernel-config-{KERNELS[name]}", recipe, fetch) / "config"


def _meta_package(suite: str) -> str:
    return f"linux-image-cloud-{debs.architecture(suite)}"


def _unpacked(suite: str, into: Path) -> Path:
    """The kernel's packages, in `into`/debs, unpacked into `into`/tree."""
    apt = debs.Apt(suite, into / "apt")
    wanted = [_meta_package(suite)]
    for package in wanted:
        wanted += [each for each in apt.dependencies(package) if _PARTS.match(each) and each not in wanted]
    packages, tree = into / "debs", into / "tree"
    packages.mkdir()
    apt.download(wanted[1:], packages)
    for deb in packages.iterdir():
        subprocess.run([*leashed(), tool("dpkg-deb"), "--extract", str(deb), str(tree)], check=True)
    return tree


def _fetch(suite: str, into: Path) -> None:
    tree = _unpacked(suite, into)
    modules = [path for place in ("lib/modules", "usr/lib/modules") for path in (tree / place).glob("[0-9]*")]
    images = [*tree.glob("boot/vmlinuz-*"), *tree.glob("usr/lib/modules/*/vmlinuz")]
    if len(modules) != 1 or len(images) != 1:
        packages = ", ".join(deb.name for deb in (into / "debs").iterdir())
        raise LabError(f"the kernel packages of Debian {suite} are not as expected: {packages}")
    shutil.move(images[0], into / "vmlinuz")
    (into / "modules").mkdir()
    shutil.move(modules[0], into / "modules")
    for directory in (into / "apt", into / "debs", tree):
        cache.remove_tree(directory)
