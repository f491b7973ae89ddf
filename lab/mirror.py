"""A mirror of release assets with the upstream paths, made from Debian's own binaries, and its lock file.

The lab needs no upstream site this way, and the deploys can't tell the difference: the same paths, the same shape of
assets, SHA-256 digests in a lock file. Beside them, under /debian, lies a small apt repository with the packages.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lab import cache, debs
from lab.errors import LabError
from lab.processes import tool
from userns import versions

# As upstream lays its releases out. crun's tags have no "v".
PATHS = {
    "containerd": "/containerd/containerd/releases/download/v{version}/containerd-{version}-linux-{arch}.tar.gz",
    "runc": "/opencontainers/runc/releases/download/v{version}/runc.{arch}",
    "crun": "/containers/crun/releases/download/{version}/crun-{version}-linux-{arch}",
}
CONTAINERD_PROGRAMS = ("containerd", "containerd-shim-runc-v2", "ctr")

# Linked to a JSON library of which other suites than the nodes' have another one.
_NOT_FROM_ANOTHER_SUITE = ("crun",)


@dataclass(frozen=True, slots=True)
class Asset:
    """One release asset on the mirror."""

    component: str
    version: str
    arch: str
    sha256: str

    @property
    def path(self) -> str:
        """Its path on the mirror, with a leading slash."""
        return PATHS[self.component].format(version=self.version, arch=self.arch)


@dataclass(frozen=True, slots=True)
class Mirror:
    """A directory to serve (`Lab.serve`), and what is in it."""

    root: Path
    assets: tuple[Asset, ...]

    @property
    def lock(self) -> Path:
        """The lock file of the assets."""
        return self.root / "lock.toml"

    def versions(self, component: str) -> list[str]:
        """The versions of a component, the newest first."""
        found = (asset.version for asset in self.assets if asset.component == component)
        return sorted(found, key=versions.parse, reverse=True)

    def asset(self, component: str, version: str | None = None) -> Asset:
        """One asset, of the newest version where none is named."""
        wanted = version or self.versions(component)[0]
        for asset in self.assets:
            if (asset.component, asset.version) == (component, wanted):
                return asset
        raise LabError(f"the mirror has no {component} {wanted}, only {', '.join(self.versions(component))}")


def build(*suites: str) -> Mirror:
    """The mirror of these suites' runtimes (the nodes' suite first; `testing` alone by default), built on first use."""
    wanted = suites or ("testing",)
    packages = {suite: sorted(debs.fetched(suite).glob("*.deb")) for suite in wanted}
    names = [deb.name for suite in wanted for deb in packages[suite]]

    def fill(into: Path) -> None:
        for suite, found in packages.items():
            _add_assets(into, found, () if suite == wanted[0] else _NOT_FROM_ANOTHER_SUITE)
        _add_repository(into / "debian", [deb for found in packages.values() for deb in found])
        (into / "lock.toml").write_text(lock_text(list(_assets(into))))

    recipe = cache.digest(Path(__file__).read_text(), *names)
    root = cache.once(f"mirror-{'+'.join(wanted)}", recipe, fill)
    return Mirror(root, tuple(_assets(root)))


def lock_text(assets: list[Asset]) -> str:
    """The lock file that pins these assets."""
    lines = ["# Made by lab/mirror.py: Debian's binaries in upstream's paths."]
    for component, path in PATHS.items():
        own = [asset for asset in assets if asset.component == component]
        lines += ["", f"[{component}]", f'path = "{path}"', 'source = "the lab\'s mirror, made from Debian packages"']
        for version in sorted({asset.version for asset in own}, key=versions.parse, reverse=True):
            lines += ["", f'[{component}.sha256."{version}"]']
            lines += [f'{asset.arch} = "{asset.sha256}"' for asset in own if asset.version == version]
    return "\n".join(lines) + "\n"


def _assets(root: Path) -> Iterator[Asset]:
    """The assets in a mirror's directory, by their paths."""
    for component, pattern in PATHS.items():
        prefix, rest = pattern.lstrip("/").split("{version}", 1)
        for file in sorted(root.glob(f"{prefix}*/*")):
            version = str(file.relative_to(root)).removeprefix(prefix).split("/")[0]
            before, _, after = rest.split("/", 1)[1].replace("{version}", version).partition("{arch}")
            arch = file.name.removeprefix(before).removesuffix(after)
            yield Asset(component, version, arch, hashlib.sha256(file.read_bytes()).hexdigest())


def _field(deb: Path, name: str) -> str:
    shown = subprocess.run([tool("dpkg-deb"), "--field", str(deb), name], capture_output=True, text=True, check=True)
    return shown.stdout.strip()


def _add_assets(root: Path, packages: list[Path], left_out: tuple[str, ...]) -> None:
    for deb in packages:
        component = _field(deb, "Package")
        if component not in PATHS or component in left_out:
            continue
        version = versions.upstream(_field(deb, "Version"))
        if version is None:
            raise LabError(f"{deb.name} has a version that does not start with an upstream version")
        asset = root / PATHS[component].lstrip("/").format(version=version, arch=_field(deb, "Architecture"))
        asset.parent.mkdir(parents=True, exist_ok=True)
        tree = root / "unpacked"
        subprocess.run([tool("dpkg-deb"), "--extract", str(deb), str(tree)], check=True)
        if component == "containerd":
            _pack([_program(tree, name) for name in CONTAINERD_PROGRAMS], asset)
        else:
            shutil.copyfile(_program(tree, component), asset)
        cache.remove_tree(tree)


def _program(tree: Path, name: str) -> Path:
    for directory in ("usr/bin", "usr/sbin"):
        if (tree / directory / name).is_file():
            return tree / directory / name
    raise LabError(f"Debian's package has no program {name} any more")


def _pack(programs: list[Path], archive: Path) -> None:
    """A release tarball, byte for byte the same whenever it is made of the same programs."""
    with (
        archive.open("wb") as file,
        gzip.GzipFile("", "wb", compresslevel=1, fileobj=file, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as tar,
    ):
        for program in programs:
            entry = tarfile.TarInfo(f"bin/{program.name}")
            entry.size, entry.mode = program.stat().st_size, 0o755
            tar.addfile(entry, io.BytesIO(program.read_bytes()))


def _add_repository(repository: Path, packages: list[Path]) -> None:
    """A flat repository: `deb [trusted=yes] http://MIRROR/debian ./`."""
    repository.mkdir()
    stanzas = []
    for deb in packages:
        if (repository / deb.name).exists():
            continue
        os.link(deb, repository / deb.name)
        control = subprocess.run([tool("dpkg-deb"), "--field", str(deb)], capture_output=True, text=True, check=True)
        digest = hashlib.sha256(deb.read_bytes()).hexdigest()
        place = f"Filename: ./{deb.name}\nSize: {deb.stat().st_size}\nSHA256: {digest}\n"
        stanzas.append(control.stdout.rstrip("\n") + "\n" + place)
    (repository / "Packages").write_text("\n".join(stanzas))
