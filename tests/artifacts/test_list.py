"""`python -m artifacts list`: what is pinned, and what is known of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from artifacts.lockfile import PROJECT_LOCK
from tests.artifacts.conftest import LOCK, Run
from userns.releases import Lock


def test_a_version_has_its_architectures_its_verification_its_end_and_its_advisories(run: Run, lock: Path) -> None:
    lock.write_text(LOCK.replace('amd64 = "3', 'verified = "signature by A"\namd64 = "3'))
    ran = run("list", "--lock", lock, "--today", "2026-11-24")
    assert (ran.code, ran.err) == (0, "")
    lines = ran.out.splitlines()
    assert lines[0] == "containerd 2.2.7    amd64, arm64  not verified here [1]  no fixes since 2026-11-06"
    assert lines[1].startswith("    open or unconfirmed: ")
    assert "CVE-2026-53495 (medium)" in lines[1]
    assert lines[2] == "containerd 1.7.34   amd64  signature by A  no fixes since 2026-09-30"
    assert any(line.startswith("runc 1.3.6 ") for line in lines)
    assert lines[-1] == "[1] somewhere"


def test_what_refuses_a_version_is_told_apart(run: Run) -> None:
    ran = run("list", "runc", "--today", "2026-11-24")
    lines = ran.out.splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith("runc 1.1.12"))
    assert lines[at + 1].startswith("    refused: CVE-2025-31133 (high), ")


def test_the_day_decides_on_the_end_of_life(run: Run, lock: Path) -> None:
    assert "fixes until 2026-09-30" in run("list", "--lock", lock, "--today", "2026-09-30").out
    assert "no fixes since 2026-09-30" in run("list", "--lock", lock, "--today", "2026-10-01").out


def test_json_has_all_of_it(run: Run) -> None:
    found = json.loads(run("list", "--json").out)
    project = Lock.parse(PROJECT_LOCK.read_text())
    assert [(row["component"], row["version"]) for row in found] == [
        (component, version) for component in ("containerd", "runc", "crun") for version in project.versions(component)
    ]
    assert set(found[0]) == {
        "component",
        "version",
        "architectures",
        "verified",
        "source",
        "fixes_until",
        "ended",
        "blocked",
        "open",
    }


def test_only_one_component(run: Run) -> None:
    assert {line.split()[0] for line in run("list", "crun").out.splitlines() if line.startswith("c")} == {"crun"}


@pytest.mark.parametrize("word", ["nerdctl", "2.3.4"])
def test_an_unknown_component(run: Run, word: str) -> None:
    ran = run("list", word)
    assert (ran.code, ran.out) == (2, "")
    assert f"'{word}' is no component" in ran.err
