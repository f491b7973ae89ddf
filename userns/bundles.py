"""Bundles: what one file for an air gap holds, as its manifest says. The lock decides what of it may be installed."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass

from userns.releases import ARCHITECTURES, COMPONENTS, VERSION, Asset, is_asset_path, is_sha256, newest_first

__all__ = ["FORMAT", "Bundle", "BundleError", "Bundled"]

# The first had the digests of lock files as well.
FORMAT, _FIRST = "userns-node bundle 2", "userns-node bundle 1"

_KEYS = ("component", "version", "architecture", "path", "size", "sha256", "verified", "source")


class BundleError(ValueError):
    """The manifest of a bundle cannot be used."""


@dataclass(frozen=True, slots=True)
class Bundled:
    """One asset in a bundle: its `size` in bytes, and what the lock file said of its digest when it was collected."""

    component: str
    version: str
    architecture: str
    path: str
    size: int
    sha256: str
    verified: str
    source: str

    def __str__(self) -> str:
        return f"{self.component} {self.version} for {self.architecture}"

    @property
    def member(self) -> str:
        """Its name in the file: upstream's path, so that an unpacked bundle is a mirror."""
        return self.path.lstrip("/")


@dataclass(frozen=True, slots=True)
class Bundle:
    """What a bundle holds; `name` is for messages."""

    assets: tuple[Bundled, ...]
    name: str = "the bundle"

    @staticmethod
    def parse(text: str, name: str = "the bundle") -> Bundle:
        """The bundle that a manifest describes. Raises BundleError with what is wrong with it."""
        try:
            table = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise BundleError(f"its manifest is not JSON: {error}") from error
        if not isinstance(table, dict) or table.get("format") not in (FORMAT, _FIRST):
            raise BundleError(f'its manifest does not say "{FORMAT}": another version of userns-node made it')
        rows = table.get("assets")
        if not isinstance(rows, list):
            raise BundleError("its manifest has no list of assets")
        assets = tuple(_bundled(row) for row in rows)
        if len({asset.path for asset in assets}) != len(assets):
            raise BundleError("its manifest names one asset twice")
        return Bundle(assets, name)

    @property
    def text(self) -> str:
        """The manifest: the same assets, of which the lock files said the same, give the same text."""
        rows = [asdict(asset) for asset in self.assets]
        return json.dumps({"format": FORMAT, "assets": rows}, indent=2) + "\n"

    def find(self, asset: Asset) -> Bundled | None:
        """The very asset that the lock pins, or None."""
        wanted = (asset.component, asset.version, asset.arch, asset.sha256)
        found = ((each.component, each.version, each.architecture, each.sha256) for each in self.assets)
        return next((each for each, key in zip(self.assets, found, strict=True) if key == wanted), None)

    def missing(self, asset: Asset, wanted: Iterable[tuple[str, str]]) -> str:
        """The message for an asset that it does not have; `wanted` are the components and versions of the policy."""
        own = [each for each in self.assets if each.component == asset.component]
        same = [each for each in own if each.version == asset.version]
        if any(each.architecture == asset.arch for each in same):
            has = "it has one with another SHA-256 than the lock file pins"
        elif same:
            has = f"it has it for {', '.join(each.architecture for each in same)}"
        else:
            has = f"it has {', '.join(map(str, own))}" if own else f"it has no {asset.component} at all"
        # Another version than the lock's newest may well be meant, but only the settings can say so, not the bundle.
        others = newest_first([each.version for each in own if each.architecture == asset.arch and each not in same])
        or_else = f'. Or set {asset.component}_version = "{others[0]}", if that is meant' if others else ""
        words = " ".join(f"{component}={version}" for component, version in wanted)
        return (
            f"{self.name} has no {asset.component} {asset.version} for {asset.arch} ({has}). Make one that does, on a "
            f"connected machine: python -m artifacts bundle OUT.tar {words} --arch {asset.arch}{or_else}"
        )


def _bundled(row: object) -> Bundled:
    if not isinstance(row, dict) or sorted(row) != sorted(_KEYS):
        raise BundleError(f"an asset in its manifest does not have the keys {', '.join(_KEYS)} and no others")
    size, texts = row["size"], [row[key] for key in _KEYS if key != "size"]
    if not all(isinstance(text, str) and (not text or text.isprintable()) for text in texts):
        raise BundleError("a value in its manifest is no printable text")
    asset = Bundled(**row)
    known = (asset.component in COMPONENTS, asset.architecture in ARCHITECTURES.values())
    shaped = (VERSION.fullmatch(asset.version), is_sha256(asset.sha256))
    if isinstance(size, bool) or not isinstance(size, int) or size < 0 or not all(known) or not all(shaped):
        raise BundleError(f"its manifest has an asset that cannot be: {asset}")
    if not is_asset_path(asset.path):
        raise BundleError(f"its manifest has a path that is none, or that leads elsewhere: {asset.path!r}")
    return asset
