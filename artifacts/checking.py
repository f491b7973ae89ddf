"""`check`: a mirror, or a folder laid out like one, against the lock file."""

from __future__ import annotations

import hashlib
import os
import posixpath
import queue
import stat
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

from artifacts.bundlefile import BundleFile
from artifacts.digest import Digest
from artifacts.errors import Unusable
from artifacts.site import Absent, Site, Unreadable, keep
from artifacts.upstream import Release
from userns.releases import Asset, Lock

__all__ = ["Checked", "Reader", "Source", "bundle", "check", "folder", "locked", "mirror", "superfluous"]

_CHUNK = 1 << 18

# Digests the asset at a path and reports the bytes as they come. Raises Absent or Unreadable.
Reader = Callable[[str, Callable[[int], None]], Digest]


class Source(Protocol):
    """A Reader that also keeps what it reads in `into`, where that is given."""

    def __call__(self, path: str, seen: Callable[[int], None], into: IO[bytes] | None = None) -> Digest:
        """The digest."""


@dataclass(frozen=True, slots=True)
class Checked:
    """What became of one asset: `state` is good, missing, wrong or unreadable."""

    asset: Asset
    state: str
    detail: str = ""


def locked(lock: Lock, components: Iterable[str]) -> Iterator[Asset]:
    """Every asset that the lock pins, newest first."""
    for component in components:
        for version in lock.versions(component):
            for arch in lock.architectures(component, version):
                yield lock.asset(component, version, arch)


def check(
    assets: Sequence[Asset], read: Reader, *, jobs: int, seen: Callable[[int], None], done: Callable[[Checked], None]
) -> list[Checked]:
    """Check the assets, `jobs` at a time; the result is in the order of `assets`. One that fails hard fails all.

    The threads are daemons, so that an interrupt ends the program at once and not with the slowest download.
    """
    waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
    finished: queue.SimpleQueue[tuple[int, Checked | BaseException]] = queue.SimpleQueue()
    whose = {(asset.component, asset.sha256): asset for asset in assets}
    for number in range(len(assets)):
        waiting.put(number)

    def work() -> None:
        while True:
            try:
                number = waiting.get_nowait()
            except queue.Empty:
                return
            try:
                finished.put((number, _check_one(assets[number], read, seen, whose)))
            except BaseException as error:
                finished.put((number, error))
                return

    for _ in range(min(jobs, len(assets))):
        threading.Thread(target=work, daemon=True).start()
    results: dict[int, Checked] = {}
    while len(results) < len(assets):
        number, result = finished.get()
        if isinstance(result, BaseException):
            raise result
        results[number] = result
        done(result)
    return [results[number] for number in range(len(assets))]


def _check_one(asset: Asset, read: Reader, seen: Callable[[int], None], whose: dict[tuple[str, str], Asset]) -> Checked:
    try:
        found = read(asset.path, seen)
    except Absent as error:
        return Checked(asset, "missing", str(error))
    except Unreadable as error:
        return Checked(asset, "unreadable", str(error))
    if found.sha256 == asset.sha256:
        return Checked(asset, "good")
    other = whose.get((asset.component, found.sha256))
    what = f"it is {other.component} {other.version} for {other.arch}: " if other else ""
    return Checked(
        asset, "wrong", f"{what}{found.size} bytes with SHA-256 {found.sha256}, the lock file pins {asset.sha256}"
    )


def folder(root: Path) -> Source:
    """Reads assets below a folder."""
    if not os.path.isdir(root):
        what = "is no folder" if os.path.lexists(root) else "is not there: no such file or folder"
        raise Unusable(f"{root} {what}, and no http or https URL")

    def read(path: str, seen: Callable[[int], None], into: IO[bytes] | None = None) -> Digest:
        file = root / path.lstrip("/")
        try:
            # A pipe must not keep us waiting for somebody to write.
            descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise Absent(f"{file}: there is no such file") from error
        except OSError as error:
            raise Unreadable(f"{file}: {error.strerror}") from error
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise Unreadable(f"{file}: this is not a file")
            sha256, size = hashlib.sha256(), 0
            while chunk := os.read(descriptor, _CHUNK):
                sha256.update(chunk)
                size += len(chunk)
                seen(len(chunk))
                if into:
                    keep(chunk, into)
            return Digest(sha256.hexdigest(), size)
        except OSError as error:
            raise Unreadable(f"{file}: {error.strerror}") from error
        finally:
            os.close(descriptor)

    return read


def mirror(site: Site) -> Source:
    """Reads assets from a mirror."""
    return lambda path, seen, into=None: site.digest(path, seen=seen, into=into)


def bundle(file: BundleFile, lock: Lock) -> tuple[list[Asset], list[str], Reader]:
    """The locked assets that a bundle has, the members that the lock does not know, and what reads an asset."""
    pinned = {(asset.component, asset.version, asset.arch): asset for asset in locked(lock, lock.components)}
    members = {(each.component, each.version, each.architecture): each for each in file.bundle.assets}
    by_path = {asset.path: members[key] for key, asset in pinned.items() if key in members}

    def read(path: str, seen: Callable[[int], None]) -> Digest:
        if path not in by_path:
            raise Absent(f"{file.bundle.name}: there is no such asset in it")
        return file.digest(by_path[path], seen)

    unknown = sorted(each.member for key, each in members.items() if key not in pinned)
    return [asset for key, asset in pinned.items() if key in members], unknown, read


def superfluous(root: Path, lock: Lock, lock_file: Path) -> list[str]:
    """The files where releases lie below `root` that the lock does not know.

    The checksum files and signatures of those it knows do not count, nor what lies elsewhere: a mirror has more to do.
    """
    expected = {asset.path for asset in locked(lock, lock.components)}
    for component in lock.components:
        for version in lock.versions(component):
            expected |= Release(component, version, lock.path(component)).companions()
    own = os.path.realpath(lock_file)
    found = set()
    for component in lock.components:
        # The directories up to the first that is not the same for all releases.
        same = posixpath.dirname(lock.path(component).partition("{")[0])
        for directory, _, names in os.walk(root / same.lstrip("/")):
            for file in (Path(directory, name) for name in names):
                path = file.relative_to(root).as_posix()
                if f"/{path}" not in expected and os.path.realpath(file) != own:
                    found.add(path)
    return sorted(found)
