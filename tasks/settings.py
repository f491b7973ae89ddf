"""From pyinfra's data to a validated policy; the lock file and the bundle are found and read here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache, lru_cache
from pathlib import Path

from artifacts.bundlefile import BundleFile
from artifacts.errors import ArtifactsError
from artifacts.lockfile import find
from tasks import hiding
from userns import advisories, policy
from userns.bundles import Bundle
from userns.secret import texts
from userns.settings import SETTINGS
from userns.tables import KNOWN_IDS


def load(data: Mapping[str, object]) -> policy.Policy:
    """The policy that `data` asks for.

    Raises policy.PolicyError with every problem at once; a lock file or a bundle that cannot be read comes alone,
    because the versions hang on it.
    """
    hiding.remember(data)
    name = policy.artifact_lock_path(data)
    try:
        lock = _read(find(name))
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        message = f"it cannot be read: {why}. Allowed: {SETTINGS['artifact_lock'].allowed}"
        raise policy.PolicyError([policy.Problem("artifact_lock", name, message)]) from error
    path = policy.artifact_bundle_path(data)
    try:
        held = _open(find(path)).bundle if path else None
    except ArtifactsError as error:
        raise policy.PolicyError([policy.Problem("artifact_bundle", path, f"{error}")]) from error
    ours = {name: value for name, value in data.items() if name in SETTINGS}
    return _load(_Asked(repr(ours), ours, tuple(data), tuple(texts(data)), lock, held, data))


@dataclass(frozen=True, slots=True)
class _Asked:
    """The key by which a policy is kept, since most nodes of a fleet have the same settings.

    `said` is the repr of our settings, which tells True from 1, and all other names: one may be a slip of ours.
    The secrets are a part of it for themselves, since all of them have the same repr.
    """

    said: str
    ours: Mapping[str, object] = field(hash=False)
    names: tuple[str, ...]
    secrets: tuple[str, ...]
    lock: str
    bundle: Bundle | None
    data: Mapping[str, object] = field(compare=False)


@lru_cache(maxsize=64)
def _load(asked: _Asked) -> policy.Policy:
    return policy.load(
        asked.data,
        asked.lock,
        bundle=asked.bundle,
        blocking_advisories=advisories.blocking,
        known_findings=KNOWN_IDS,
    )


def bundle(wanted: policy.Policy) -> BundleFile:
    """The bundle that a policy names, which `load` has read."""
    assert wanted.artifact_bundle
    return _open(find(wanted.artifact_bundle))


@cache
def _read(path: Path) -> str:
    """Once for all hosts."""
    return path.read_text("utf-8")


@cache
def _open(path: Path) -> BundleFile:
    """Once for all hosts, which read from one open file."""
    return BundleFile(path)
