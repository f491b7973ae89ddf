"""A bundle on disk: a plain tar file, the manifest first, then the assets under upstream's paths.

Not compressed, since the assets are; so that any part of it can be read where it lies, for many nodes at a time,
without a copy in memory or on disk. Unpacked with tar, it is a mirror.
"""

from __future__ import annotations

import hashlib
import io
import os
import stat
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from artifacts.digest import Digest
from artifacts.errors import Refused, Unusable
from userns.bundles import Bundle, Bundled, BundleError

__all__ = ["MANIFEST", "BundleFile", "write"]

MANIFEST = "manifest.json"

_LONGEST_MANIFEST = 1 << 22
_PIECE = 1 << 16
# What tarfile raises for what is no tar file, or was made to break it. ValueError: also a size that no file has.
_BROKEN = (tarfile.TarError, EOFError, LookupError, MemoryError, RecursionError, ValueError)


class BundleFile:
    """A bundle that was opened: what it holds, and where. The contents themselves are judged by `digest`."""

    def __init__(self, path: Path, name: str | None = None) -> None:
        """Read the manifest and where each asset lies. Raises Unusable or Refused; `name` is for messages."""
        name = name or str(path)
        self._good: set[str] = set()
        try:
            # A pipe must not keep us waiting for somebody to write.
            self._file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise Unusable(f"the bundle {name} cannot be read: {error.strerror}") from error
        try:
            if not stat.S_ISREG(os.fstat(self._file).st_mode):
                raise Unusable(f"the bundle {name} is no file")
            self.bundle, self._offsets = self._read(name)
        except BaseException:
            os.close(self._file)
            raise

    def __repr__(self) -> str:
        return f"BundleFile({self.bundle.name!r})"

    def __del__(self) -> None:
        with suppress(AttributeError, OSError):
            os.close(self._file)

    def _read(self, name: str) -> tuple[Bundle, dict[str, int]]:
        try:
            with open(self._file, "rb", closefd=False) as raw, tarfile.open(fileobj=raw, mode="r:") as tar:
                first = tar.next()
                if first is None or first.name != MANIFEST or not first.isreg() or first.size > _LONGEST_MANIFEST:
                    raise BundleError(f"it does not begin with {MANIFEST}")
                manifest = tar.extractfile(first)
                assert manifest
                bundle = Bundle.parse(manifest.read().decode("utf-8"), name)
                there = _members(tar, first, {asset.member for asset in bundle.assets}, name)
        except _BROKEN as error:
            why = str(error) or type(error).__name__
            raise Refused(f"{name} is no whole bundle: {why}. Make it, or copy it, anew") from error
        except OSError as error:
            raise Unusable(f"the bundle {name} cannot be read: {error.strerror}") from error
        offsets = {}
        for asset in bundle.assets:
            member = there.pop(asset.member, None)
            if member is None or not member.isreg() or member.size != asset.size:
                raise Refused(f"{name} is no whole bundle: {asset} is not in it as its manifest says. Copy it anew")
            if member.offset_data + member.size > os.fstat(self._file).st_size:
                raise Refused(f"{name} is no whole bundle: it ends in the middle of {asset}. Copy it anew")
            offsets[asset.member] = member.offset_data
        return bundle, offsets

    def pieces(self, asset: Bundled) -> Iterator[bytes]:
        """The asset's content, piece by piece. Raises OSError where the file has become shorter since."""
        at, end = self._offsets[asset.member], self._offsets[asset.member] + asset.size
        while at < end:
            piece = os.pread(self._file, min(_PIECE, end - at), at)
            if not piece:
                raise OSError(f"{self.bundle.name} ends in the middle of {asset}: somebody cut it while it was read")
            at += len(piece)
            yield piece

    def digest(self, asset: Bundled, seen: Callable[[int], None] = lambda _: None) -> Digest:
        """What the asset in the file really is."""
        sha256, size = hashlib.sha256(), 0
        for piece in self.pieces(asset):
            sha256.update(piece)
            size += len(piece)
            seen(len(piece))
        return Digest(sha256.hexdigest(), size)

    def prove(self, asset: Bundled) -> None:
        """Read the asset once, however often it is asked for. Raises Refused where it is not what the manifest says."""
        if asset.sha256 in self._good:
            return
        if (found := self.digest(asset).sha256) != asset.sha256:
            raise Refused(
                f"{self.bundle.name} is damaged: {asset} in it has the SHA-256 {found}, and not {asset.sha256}. "
                f"See python -m artifacts check {self.bundle.name}, and copy it anew"
            )
        self._good.add(asset.sha256)


def _members(tar: tarfile.TarFile, first: tarfile.TarInfo, named: set[str], name: str) -> dict[str, tarfile.TarInfo]:
    """What is in the file after its first member, by name. Raises Refused where that is not named, or there twice."""
    there: dict[str, tarfile.TarInfo] = {}
    at = first.offset
    for member in tar:
        if member is first:
            continue
        # Some versions of Python take a size below 0, and come to the same headers again and again (CVE-2025-8194).
        if member.offset <= at:
            raise tarfile.ReadError("one of its headers leads back")
        at = member.offset
        if member.name not in named or member.name in there:
            raise Refused(f"{name} holds what its manifest does not name, or twice: {member.name!r}")
        there[member.name] = member
    return there


def write(target: Path, bundle: Bundle, contents: Sequence[Path]) -> None:
    """Write a bundle, whole or not at all; the same bundle gives the same bytes. `contents` are its assets' files."""
    made = None
    try:
        descriptor, made = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        with open(descriptor, "wb") as file:
            with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
                manifest = bundle.text.encode()
                tar.addfile(_entry(MANIFEST, len(manifest)), io.BytesIO(manifest))
                for asset, path in zip(bundle.assets, contents, strict=True):
                    with path.open("rb") as content:
                        tar.addfile(_entry(asset.member, asset.size), content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(made, 0o644)
        os.replace(made, target)
        made = None
    except OSError as error:
        raise Unusable(f"{target} could not be written: {error.strerror or error}") from error
    finally:
        if made:
            Path(made).unlink(missing_ok=True)


def _entry(name: str, size: int) -> tarfile.TarInfo:
    """A header without a clock, an owner or a mode of this machine's."""
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = size, 0o644
    return entry
