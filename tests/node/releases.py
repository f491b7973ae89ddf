"""Releases that upstream never made, beside the real ones on a mirror: newer ones, and one that does not start."""

from __future__ import annotations

import io
import os
import shutil
import tarfile
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from lab import cache
from lab.mirror import Asset, Mirror, lock_text
from lab.paths import CACHE

# It calls itself containerd and takes any config, but as a service it ends at once.
BROKEN = b"""#!/bin/sh
case "$*" in
    *--version*) echo "containerd github.com/containerd/containerd/v2 0.0.0 broken" ;;
    *"config dump"*) exit 0 ;;
esac
echo "this containerd was made to fail" >&2
exit 1
"""


@dataclass(frozen=True)
class Releases:
    """A mirror with a real containerd and runc, the same under the next number, and a containerd that is broken."""

    mirror: Mirror
    containerd: str
    newer: str
    broken: str
    runc: str
    newer_runc: str

    def settings(self, url: str) -> dict[str, str]:
        """What a deploy of the older ones needs to be told, with the mirror served at `url`."""
        return {
            "release_url": url,
            "artifact_lock": str(self.mirror.lock),
            "containerd_version": self.containerd,
            "runc_version": self.runc,
        }

    def program(self, name: str, version: str) -> str:
        """The digest of a program of containerd's in one of these versions."""
        with tarfile.open(self.mirror.root / self.mirror.asset("containerd", version).path.lstrip("/")) as tar:
            content = tar.extractfile(f"bin/{name}")
            assert content
            return sha256(content.read()).hexdigest()


def build(real: Mirror) -> Releases:
    """Make them of the real ones, once for all test runs."""
    containerd, runc = real.asset("containerd"), real.asset("runc")
    added = newer, broken, newer_runc = _later(containerd, 1), _later(containerd, 2), _later(runc, 1)

    def fill(into: Path) -> None:
        root = into / "root"
        shutil.copytree(real.root, root, copy_function=os.link)
        with tarfile.open(real.root / containerd.path.lstrip("/")) as tar:
            programs = {member.name: tar.extractfile(member) for member in tar}
            content = {name: file.read() for name, file in programs.items() if file}
        # What follows the last section of a program is not read: another file that does the same.
        pack(root, newer, {name: program + b"newer\n" for name, program in content.items()})
        pack(root, broken, content | {"bin/containerd": BROKEN})
        program = (real.root / runc.path.lstrip("/")).read_bytes() + b"newer\n"
        write(root, newer_runc, program)
        (root / "lock.toml").unlink()  # a hard link to the real one
        (root / "lock.toml").write_text(lock_text([*real.assets, *(with_digest(root, each) for each in added)]))

    recipe = cache.digest(Path(__file__).read_text(), str(real.root))
    kind = f"made-of-{real.root.relative_to(CACHE).parts[0].rpartition('-')[0]}"
    root = cache.once(kind, recipe, fill) / "root"
    mirror = Mirror(root, (*real.assets, *(with_digest(root, each) for each in added)))
    return Releases(mirror, containerd.version, newer.version, broken.version, runc.version, newer_runc.version)


def _later(asset: Asset, by: int) -> Asset:
    minor, _, patch = asset.version.rpartition(".")
    return Asset(asset.component, f"{minor}.{int(patch) + by}", asset.arch, "")


def write(root: Path, asset: Asset, content: bytes) -> None:
    """Lay an asset where a mirror has it."""
    path = root / asset.path.lstrip("/")
    path.parent.mkdir(parents=True)
    path.write_bytes(content)


def pack(root: Path, asset: Asset, programs: dict[str, bytes]) -> None:
    """Lay a tarball of these programs, by their names in it, where a mirror has this asset."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz", compresslevel=1) as tar:
        for name, content in programs.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o755
            tar.addfile(entry, io.BytesIO(content))
    write(root, asset, packed.getvalue())


def with_digest(root: Path, asset: Asset) -> Asset:
    """The asset with the digest of what a mirror has in its place."""
    content = (root / asset.path.lstrip("/")).read_bytes()
    return Asset(asset.component, asset.version, asset.arch, sha256(content).hexdigest())
