"""Checksum files, as `sha256sum` writes them."""

from __future__ import annotations

import posixpath
import re

from artifacts.errors import Refused
from userns.releases import VERSION

__all__ = ["digest_of", "versions_of"]

# "HASH  NAME", with a star before the name where sha256sum was told --binary.
_LINE = re.compile(r"([0-9A-Fa-f]{64}) [ *](.+)", re.ASCII)


def digest_of(asset: str, text: str, where: str) -> str | None:
    """The SHA-256 of the asset at this path as `text` says it, or None where it does not name the asset.

    `text` is from the net: a line of another shape is passed over, two digests for one name are refused.
    """
    name = posixpath.basename(asset)
    lines = (_LINE.fullmatch(line.rstrip("\r")) for line in text.split("\n"))
    found = {line[1].lower() for line in lines if line and posixpath.basename(line[2]) == name}
    if len(found) > 1:
        raise Refused(f"{where} has {len(found)} different digests for {name}")
    return found.pop() if found else None


def versions_of(component: str, text: str) -> set[str]:
    """The versions of which `text` names a source archive: a list that is of one release only."""
    name = re.compile(rf"{re.escape(component)}-({VERSION.pattern})\.tar\.[a-z]+", re.ASCII)
    lines = (_LINE.fullmatch(line.rstrip("\r")) for line in text.split("\n"))
    found = (name.fullmatch(posixpath.basename(line[2])) for line in lines if line)
    return {match[1] for match in found if match}
