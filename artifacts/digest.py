"""A file, by its digest."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Digest"]


@dataclass(frozen=True, slots=True)
class Digest:
    """What a file holds: its SHA-256 in hexadecimal, and its size in bytes."""

    sha256: str
    size: int
