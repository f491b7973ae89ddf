"""`bundle`: what policies need, fetched from upstream, a mirror or a folder, verified, and put into one file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from artifacts import bundlefile
from artifacts.checking import Source, locked
from artifacts.errors import Refused, Unusable
from artifacts.lockfile import ROOT, LockFile
from artifacts.site import Absent, Unreadable
from userns import advisories, policy
from userns.bundles import Bundle, Bundled
from userns.releases import ARCHITECTURES, Asset, Lock, NoDigest

__all__ = ["Wanted", "assets", "collect", "defaults", "lacking", "of_inventory"]


@dataclass(frozen=True, slots=True)
class Wanted:
    """The versions that one host or more ask for, by component, of this lock file."""

    lock: LockFile
    versions: tuple[tuple[str, str], ...]


def defaults(lock: LockFile) -> Wanted:
    """What a host without any settings gets."""
    try:
        made = policy.load({}, lock.lock, blocking_advisories=advisories.blocking)
    except policy.PolicyError as error:
        raise Unusable(str(error)) from error
    return Wanted(lock, tuple(made.versions.items()))


def lacking(bundle: Bundle, lock: LockFile) -> list[Asset]:
    """What a host without any settings gets and the bundle has not, for the architectures that it is for."""
    try:
        versions = defaults(lock).versions
    except Unusable:  # no host goes without settings then
        return []
    held = {(each.component, each.version, each.architecture) for each in bundle.assets}
    architectures = {each.architecture for each in bundle.assets}
    return [
        asset
        for asset in locked(lock.lock, dict(versions))
        if (asset.component, asset.version) in versions
        and asset.arch in architectures
        and (asset.component, asset.version, asset.arch) not in held
    ]


def of_inventory(inventory: str, lock: str | None) -> list[Wanted]:
    """What the hosts of an inventory ask for, each set once. `lock` comes before the lock files that they name.

    The inventory is read by a process of its own, because pyinfra changes the whole of Python's standard library.
    """
    command = [sys.executable, "-m", "artifacts.inventory", inventory]
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": path})
    if done.returncode:
        raise Unusable(f"the inventory {inventory} cannot be used:\n{done.stderr.strip()}")
    hosts: dict[str, dict[str, Any]] = json.loads(done.stdout)
    files: dict[str, LockFile] = {}
    found: dict[tuple[str, tuple[tuple[str, str], ...]], Wanted] = {}
    refused: dict[str, str] = {}
    for host, data in hosts.items():
        try:
            name = lock or policy.artifact_lock_path(data)
            if name not in files:
                files[name] = LockFile(name)
            made = policy.load(data, files[name].lock, blocking_advisories=advisories.blocking)
        except policy.PolicyError as error:
            refused.setdefault(str(error), host)
            continue
        if made.install_from != "package":
            versions = tuple(made.versions.items())
            found.setdefault((name, versions), Wanted(files[name], versions))
    if refused:
        raise Unusable("\n".join(f"{host}: {why}" for why, host in refused.items()))
    if not found:
        raise Unusable(f"the inventory {inventory} has no host that installs anything from a release or a bundle")
    return list(found.values())


def assets(wanted: Iterable[Wanted], architectures: Sequence[str]) -> list[tuple[Asset, Lock]]:
    """The assets for these architectures (none: all that are locked), each with its lock, in a stable order."""
    found: dict[tuple[str, str], tuple[Asset, Lock]] = {}
    for each in wanted:
        lock = each.lock.lock
        for component, version in each.versions:
            if not lock.architectures(component, version):
                raise Unusable(lock.missing(component, version))
            for arch in architectures or lock.architectures(component, version):
                try:
                    asset = lock.asset(component, version, arch)
                except NoDigest as error:
                    raise Unusable(str(error)) from error
                known, _ = found.setdefault((asset.path, asset.arch), (asset, lock))
                if known.sha256 != asset.sha256:
                    raise Refused(f"two lock files pin {component} {version} for {arch} with different digests")
    order = list(ARCHITECTURES.values())
    return sorted(found.values(), key=lambda pair: (pair[0].path, order.index(pair[0].arch)))


def collect(
    wanted: Sequence[tuple[Asset, Lock]],
    read: Source,
    target: Path,
    seen: Callable[[int], None],
    done: Callable[[], None],
) -> Bundle:
    """Fetch and verify every asset, then write the bundle: all of them or nothing."""
    refusals: list[str] = []
    bundled: list[Bundled] = []
    contents: list[Path] = []
    try:
        scratch = tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent)
    except OSError as error:
        raise Unusable(f"{target} could not be written: {target.parent}: {error.strerror}") from error
    with scratch as directory:
        for number, (asset, own) in enumerate(wanted):
            copy = Path(directory, str(number))
            try:
                with copy.open("w+b") as into:
                    digest = read(asset.path, seen, into)
            except (Absent, Unreadable) as error:
                refusals.append(f"{asset.component} {asset.version} {asset.arch}: {error}")
                continue
            done()
            if digest.sha256 != asset.sha256:
                refusals.append(
                    f"{asset.component} {asset.version} {asset.arch} is not what the lock file pins: "
                    f"{digest.size} bytes with SHA-256 {digest.sha256}, expected {asset.sha256}"
                )
                continue
            said = own.verified(asset.component, asset.version), own.source(asset.component, asset.version)
            names = (asset.component, asset.version, asset.arch, asset.path)
            bundled.append(Bundled(*names, digest.size, asset.sha256, *said))
            contents.append(copy)
        if refusals:
            raise Refused("\n".join([*refusals, f"{target} was not written"]))
        bundle = Bundle(tuple(bundled), str(target))
        bundlefile.write(target, bundle, contents)
    return bundle
