"""What the tests of `add` share."""

from __future__ import annotations

import tomllib
from pathlib import Path

from tests.artifacts.conftest import LOCK, Run
from tests.artifacts.keys import Keys
from tests.artifacts.loopback import LoopbackSite, checksum_lines


def entry(lock: Path, component: str, version: str) -> dict[str, str]:
    found: dict[str, str] = tomllib.loads(lock.read_text())[component]["sha256"][version]
    return found


def clear_signed_runc(site: LoopbackSite, keys: Keys, version: str, text: bytes | None = None) -> str:
    """A release of runc; the path of its list."""
    published = site.publish("runc", version)
    path = published.list_of(published.assets()["amd64"])
    site.put(path, keys.clear_sign(text or checksum_lines("runc", version)))
    return path


def trusting(keys: Keys) -> tuple[str, ...]:
    return ("--keyring", str(keys.ring("good@example.org")), "--signer", keys.good)


def refused(add: Run, lock: Path, *arguments: object) -> str:
    """The reason, of a refusal that left the lock file alone."""
    ran = add(*arguments)
    assert ran.code == 1, ran
    assert lock.read_text() == LOCK
    assert ran.out == ""
    assert "Traceback" not in ran.err
    return ran.err
