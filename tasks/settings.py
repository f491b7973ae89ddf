"""From pyinfra's data to a validated policy; the lock file is found and read here."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path

from tasks.files import ROOT
from userns import advisories, policy
from userns.settings import SETTINGS
from userns.tables import KNOWN_IDS


def load(data: Mapping[str, object]) -> policy.Policy:
    """The policy that `data` asks for.

    Raises policy.PolicyError with every problem at once; a lock file that cannot be read comes alone, because the
    versions hang on it.
    """
    name = policy.artifact_lock_path(data)
    try:
        lock = _read(_find(name))
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        message = f"it cannot be read: {why}. Allowed: {SETTINGS['artifact_lock'].allowed}"
        raise policy.PolicyError([policy.Problem("artifact_lock", name, message)]) from error
    return policy.load(data, lock, blocking_advisories=advisories.blocking, known_findings=KNOWN_IDS)


@cache
def _read(path: Path) -> str:
    """Once for all hosts."""
    return path.read_text("utf-8")


def _find(name: str) -> Path:
    """A relative path is looked up where the operator stands, then beside deploy.py."""
    here = Path.cwd() / name
    return here if here.exists() else ROOT / name
