"""A disk for a virtual machine of another architecture: the nodes' own tree, with arm64's programs in it.

    from lab import arm64, kernels
    vm = lab.vm("arm64", kernels.ARM64, disk=arm64.image())

Nothing of arm64 runs where it is made. What packages do when they are configured (users, links, units) this machine's
own have done in the tree, and the files of the same packages for arm64 are laid over theirs.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from lab import cache, debs, disk, kernels


def image() -> Path:
    """The disk's image, built on first use (some 30 s on a quiet machine). Nobody writes to it."""
    packages, kernel = debs.of_a_node(debs.ARM64), kernels.fetched(kernels.ARM64)
    recipe = cache.digest(Path(__file__).read_text(), Path(disk.__file__).read_text(), packages.name, kernel.release)

    def build(into: Path) -> None:
        root = disk.lay_out(into / "root", kernel)
        for library in (root / "usr/lib").glob("*-linux-gnu"):
            shutil.rmtree(library)
        (root / "etc/ld.so.cache").unlink()
        for deb in sorted(packages.glob("*.deb")):
            disk.run(*debs.laying_over(deb, root))
        status = root / "var/lib/dpkg/status"
        status.write_text(status.read_text().replace("\nArchitecture: amd64\n", "\nArchitecture: arm64\n"))
        disk.of_tree(root, into / "disk.img")
        cache.remove_tree(root)

    return cache.once("vm-disk-arm64", recipe, build) / "disk.img"
