"""Release assets: a locked version and an architecture give a path below `release_url` and a SHA-256."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from userns.versions import parse

__all__ = [
    "ARCHITECTURES",
    "COMPONENTS",
    "VERSION",
    "Asset",
    "Lock",
    "LockError",
    "NoDigest",
    "is_asset_path",
    "is_sha256",
    "newest_first",
]

# What `uname -m` says, and what the release assets call it.
ARCHITECTURES: Mapping[str, str] = {
    "x86_64": "amd64",
    "aarch64": "arm64",
    "ppc64le": "ppc64le",
    "riscv64": "riscv64",
    "s390x": "s390x",
}
COMPONENTS = ("containerd", "runc", "crun")
# An upstream release, without the "v" of its tag: 2.3.4, 1.17 (crun), 1.6.0-rc.2.
VERSION = re.compile(r"\d{1,5}(?:\.\d{1,5}){1,2}(?:-(?:alpha|beta|rc)\.?\d{1,5})?", re.ASCII)

_SHA256 = re.compile(r"[0-9a-f]{64}")
_PATH = re.compile(r"(?:/[A-Za-z0-9._+~-]+)+")


class LockError(ValueError):
    """The lock file cannot be used: `row` is the table or key (empty for the file as a whole)."""

    def __init__(self, row: str, problem: str) -> None:
        self.row = row
        self.problem = problem
        super().__init__(f"{row}: {problem}" if row else problem)


class NoDigest(LookupError):
    """The lock has no digest for this component, version and architecture."""


@dataclass(frozen=True, slots=True)
class Asset:
    """One release asset: `path` starts with a slash and is relative to the setting `release_url`."""

    component: str
    version: str
    arch: str
    path: str
    sha256: str


@dataclass(frozen=True, slots=True)
class _Component:
    path: str
    source: str
    digests: Mapping[str, Mapping[str, str]]
    sources: Mapping[str, str]
    verified: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Lock:
    """The digests of every release asset that may be installed, as the lock file has them."""

    components: Mapping[str, _Component]

    @staticmethod
    @lru_cache(maxsize=64)
    def parse(text: str) -> Lock:
        """The lock in `text` (TOML). Raises LockError with the row and what is wrong with it."""
        try:
            tables = tomllib.loads(text)
        except (tomllib.TOMLDecodeError, RecursionError) as error:
            raise LockError("", f"this is not TOML: {error}") from error
        return Lock({name: _component(name, table) for name, table in tables.items()})

    def versions(self, component: str) -> tuple[str, ...]:
        """Every locked version of `component`, newest first; none where the lock does not have it."""
        entry = self.components.get(component)
        return tuple(entry.digests) if entry else ()

    def architectures(self, component: str, version: str) -> tuple[str, ...]:
        """The architectures that have a digest for this version."""
        entry = self.components.get(component)
        return tuple(entry.digests.get(version, ())) if entry else ()

    def source(self, component: str, version: str) -> str:
        """Where the digests of this version come from."""
        entry = self.components[component]
        return entry.sources.get(version, entry.source)

    def path(self, component: str) -> str:
        """The pattern of the paths of a component's assets, with {version} and {arch}."""
        return self.components[component].path

    def verified(self, component: str, version: str) -> str:
        """How the digests of this version were verified when they were added; "" where nobody did it here."""
        return self.components[component].verified.get(version, "")

    def asset(self, component: str, version: str, arch: str) -> Asset:
        """The asset to fetch. Raises NoDigest, with what the lock has and the command that adds a version."""
        entry = self.components.get(component)
        sha256 = entry.digests.get(version, {}).get(arch) if entry else None
        if entry is None or sha256 is None:
            raise NoDigest(self.missing(component, version, arch))
        path = entry.path.replace("{version}", version).replace("{arch}", arch)
        return Asset(component, version, arch, path, sha256)

    def missing(self, component: str, version: str, arch: str = "") -> str:
        """The message for a version without a digest."""
        locked = self.versions(component)
        if architectures := self.architectures(component, version):
            has = f"it has {component} {version} for {', '.join(architectures)}"
        elif locked:
            has = f"it has {len(locked)} versions of {component}: {', '.join(locked[:5])}{', …' if locked[5:] else ''}"
        else:
            has = f"it has no {component} at all"
        wanted = f"{component} {version} on {arch}" if arch else f"{component} {version}"
        return (
            f"the lock file has no digest for {wanted} ({has}). "
            f"Add it with `python -m artifacts add {component} {version}`, or choose a locked version"
        )


def is_sha256(text: str) -> bool:
    """Whether `text` is 64 lower-case hexadecimal digits."""
    return bool(_SHA256.fullmatch(text))


def is_asset_path(text: str) -> bool:
    """Whether `text` may be fetched, and written below a directory: no query, no space, and it leads nowhere else."""
    return bool(_PATH.fullmatch(text)) and not {".", ".."} & set(text.split("/"))


def newest_first(versions: Mapping[str, object] | list[str]) -> tuple[str, ...]:
    """Version numbers sorted as versions: 2.0.11 before 2.0.9, a release candidate below its release."""
    return tuple(sorted(versions, key=parse, reverse=True))


def _component(name: str, table: object) -> _Component:
    if name not in COMPONENTS:
        raise LockError(f"[{name}]", f"unknown component; known are {', '.join(COMPONENTS)}")
    row = _table(f"[{name}]", table)
    if unknown := sorted(set(row) - {"path", "source", "sha256"}):
        raise LockError(f"[{name}]", f"unknown key {unknown[0]!r}; known are path, source, sha256")
    path, source = row.get("path"), row.get("source")
    if not isinstance(path, str) or (problem := _path_problem(path)):
        raise LockError(f"{name}.path", problem if isinstance(path, str) else "say in a string where the assets are")
    if not isinstance(source, str) or not source.strip():
        raise LockError(f"{name}.source", "say in a string where the digests come from")
    digests: dict[str, Mapping[str, str]] = {}
    said: dict[str, dict[str, str]] = {"source": {}, "verified": {}}
    for version, cells in _table(f"[{name}.sha256]", row.get("sha256", {})).items():
        digests[version], own = _digests(name, version, cells)
        for key, text in own.items():
            said[key][version] = text
    ordered = {version: digests[version] for version in newest_first(digests)}
    return _Component(path, source, ordered, said["source"], said["verified"])


def _path_problem(path: str) -> str:
    """What is wrong with the path of an asset, or nothing."""
    plain = path
    for placeholder in ("{version}", "{arch}"):
        if placeholder not in path:
            return f"{path!r} does not hold {placeholder}"
        plain = plain.replace(placeholder, "0")
    if is_asset_path(plain):
        return ""
    return (
        f"{path!r} must start with / and hold no braces but {{version}} and {{arch}}, no space and no query. "
        "No directory in it may be . or .."
    )


def _digests(component: str, version: str, cells: object) -> tuple[Mapping[str, str], dict[str, str]]:
    """The digests of one version by architecture, and what the table says of them: `source`, `verified`."""
    row = f'{component}.sha256."{version}"'
    if not VERSION.fullmatch(version):
        raise LockError(row, f"{version!r} is not a version such as 2.3.4 (no v in front)")
    digests = dict(_table(f"[{row}]", cells))
    said: dict[str, str] = {}
    for key, meaning in (("source", "where the digests come from"), ("verified", "how the digests were verified")):
        text = digests.pop(key, "")
        if not isinstance(text, str):
            raise LockError(f"{row}.{key}", f"say in a string {meaning}")
        said[key] = text
    if not digests:
        raise LockError(f"[{row}]", "there is no digest in this table")
    for arch, sha256 in digests.items():
        if arch not in ARCHITECTURES.values():
            known = ", ".join(ARCHITECTURES.values())
            raise LockError(f"{row}.{arch}", f"unknown architecture; known are {known}")
        if not isinstance(sha256, str) or not is_sha256(sha256):
            raise LockError(f"{row}.{arch}", f"{sha256!r} is not a SHA-256: 64 lower-case hexadecimal digits")
    return digests, {key: text for key, text in said.items() if text}


def _table(row: str, value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise LockError(row, f"this must be a table, not {type(value).__name__}")
    return value
