"""Advisories and ends of life: which version is open to what."""

from __future__ import annotations

from datetime import date
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from userns import advisories, tables
from userns.findings import Severity
from userns.policy import Policy
from userns.versions import parse

TODAY = date(2026, 11, 23)


def ids(component: str, version: str, **options: Any) -> set[str]:
    return {each.id for each in advisories.check(component, version, **options)}


def blocking(component: str, version: str) -> set[str]:
    return {each.id for each in advisories.blocking(component, version)}


@pytest.mark.parametrize(
    ("component", "version"),
    [
        ("containerd", "2.3.2"),
        ("containerd", "2.3.4"),
        ("containerd", "2.2.5"),
        ("containerd", "2.1.9"),
        ("containerd", "2.0.11"),
        ("containerd", "1.7.34"),
        ("containerd", "2.4.2"),
        ("runc", "1.4.3"),
        ("runc", "1.3.6"),
        ("runc", "1.2.8"),
        ("crun", "1.17"),
    ],
)
def test_nothing_blocks(component: str, version: str) -> None:
    assert not blocking(component, version)


@pytest.mark.parametrize(
    ("component", "version", "advisory"),
    [
        ("containerd", "2.3.1", "cve-2026-53488"),
        ("containerd", "2.1.8", "cve-2026-53488"),
        ("containerd", "1.7.32", "cve-2026-53488"),
        ("containerd", "1.6.39", "cve-2026-53488"),
        ("containerd", "2.1.0", "cve-2025-47290"),
        ("runc", "1.1.11", "cve-2024-21626"),
        ("runc", "1.2.7", "cve-2025-31133"),
        ("runc", "1.3.2", "cve-2025-52565"),
        ("runc", "1.4.0-rc.2", "cve-2025-52881"),
        ("runc", "1.1.15", "cve-2025-31133"),  # a branch without a fix
    ],
)
def test_what_lets_a_container_out_blocks(component: str, version: str, advisory: str) -> None:
    assert f"advisory-{advisory}" in blocking(component, version)


@pytest.mark.parametrize(
    ("component", "advisory", "open_", "closed"),
    [
        ("runc", "cve-2026-119101", ["1.2.9", "1.3.6", "1.4.3", "1.5.2"], ["1.3.7", "1.4.4", "1.5.3", "1.6.0"]),
        ("runc", "cve-2026-41579", ["1.2.9", "1.3.5", "1.5.0-rc.2"], ["1.3.6", "1.4.3", "1.5.0-rc.3", "1.6.0"]),
        ("runc", "cve-2024-45310", ["1.1.13", "1.2.0-rc.2"], ["1.1.14", "1.2.0-rc.3", "1.4.0"]),
        ("crun", "cve-2026-115520", ["1.17", "1.30.1"], ["1.31", "1.32"]),
        ("containerd", "cve-2026-46680", ["2.0.8", "2.1.7", "2.3.0"], ["2.0.9", "2.1.8", "2.3.1", "2.4.0"]),
        ("containerd", "cve-2025-47290", ["2.1.0"], ["2.0.5", "2.1.1", "1.7.20"]),
        ("containerd", "cve-2025-47291", ["2.0.1", "2.0.4"], ["2.0.0", "2.0.5", "2.1.0", "1.7.20"]),
        (
            "containerd",
            "cve-2026-53495",
            ["1.7.34", "2.0.11", "2.2.7", "2.3.4"],
            ["1.7.35", "2.0.12", "2.2.8", "2.4.0"],
        ),
        ("containerd", "cve-2026-53492", ["2.1.8", "2.2.4", "2.3.1"], ["1.7.20", "2.0.4", "2.1.9", "2.2.5", "2.4.0"]),
        ("containerd", "cve-2026-95839", ["2.2.9", "2.3.6", "2.4.1"], ["2.1.9", "2.2.10", "2.3.7", "2.4.2"]),
        ("crun", "cve-2026-30892", ["1.19", "1.26"], ["1.17", "1.18.2", "1.27"]),
        ("containerd", "cve-2024-40635", ["1.6.37", "2.0.3"], ["1.6.38", "2.0.4", "2.1.0"]),
    ],
)
def test_each_branch_has_its_own_fix(component: str, advisory: str, open_: list[str], closed: list[str]) -> None:
    assert [version for version in open_ if f"advisory-{advisory}" not in ids(component, version)] == []
    assert [version for version in closed if f"advisory-{advisory}" in ids(component, version)] == []


def test_an_unconfirmed_fix_is_a_warning_that_says_so() -> None:
    (finding,) = (each for each in advisories.check("crun", "1.31") if each.id == "advisory-cve-2026-133553")
    assert finding.severity is Severity.WARNING
    assert finding.message.endswith("; fixed version unconfirmed")


def test_a_branch_of_which_nothing_is_known_is_a_warning_that_says_so() -> None:
    (finding,) = (each for each in advisories.check("containerd", "2.1.9") if each.id == "advisory-cve-2026-53495")
    assert finding.severity is Severity.WARNING
    assert "whether 2.1 is affected is unconfirmed" in finding.message


def test_a_release_candidate_is_written_as_upstream_writes_it() -> None:
    assert any("1.4.0-rc.3" in each.message for each in advisories.check("runc", "1.1.15"))


def test_a_package_may_carry_the_fix_under_its_old_number() -> None:
    findings = advisories.check("runc", "1.1.5+ds1-1+deb12u2", packaged=True)
    assert "advisory-cve-2024-21626" in {each.id for each in findings}
    assert not [each for each in findings if each.severity is Severity.BLOCKER]


@pytest.mark.parametrize(
    ("component", "version", "id"),
    [
        ("containerd", "1.6.39", "end-of-life-containerd-1-6"),
        ("containerd", "1.7.34", "end-of-life-containerd-1-7"),
        ("containerd", "2.1.9", "end-of-life-containerd-2-1"),
        ("containerd", "2.2.8", "end-of-life-containerd-2-2"),
        ("runc", "1.2.9", "end-of-life-runc-1-2"),
    ],
)
def test_a_branch_without_fixes_is_a_warning(component: str, version: str, id: str) -> None:
    assert [(each.id, each.severity) for each in advisories.end_of_life(component, version, TODAY)] == [
        (id, Severity.WARNING)
    ]


@pytest.mark.parametrize(
    ("component", "version"),
    [("containerd", "2.0.11"), ("containerd", "2.3.5"), ("containerd", "2.4.2"), ("runc", "1.4.4"), ("crun", "1.17")],
)
def test_a_branch_that_is_maintained_is_none(component: str, version: str) -> None:
    assert advisories.end_of_life(component, version, TODAY) == []


def test_the_last_day_is_not_yet_the_end() -> None:
    assert not advisories.end_of_life("containerd", "2.2.8", date(2026, 11, 6))
    assert advisories.end_of_life("containerd", "2.2.8", date(2026, 11, 7))


def test_without_a_day_nothing_ends() -> None:
    assert advisories.end_of_life("containerd", "1.6.0", None) == []


def test_what_refuses_nothing_takes_one_line_a_component() -> None:
    policy = SimpleNamespace(versions={"containerd": "2.3.4", "runc": "1.1.15"}, install_from="release")
    found = [each.id for each in advisories.of_policy(cast(Policy, policy), TODAY)]
    assert found == [
        "open-advisories-containerd",
        "advisory-cve-2025-31133",
        "advisory-cve-2025-52565",
        "advisory-cve-2025-52881",
        "open-advisories-runc",
        "end-of-life-runc-1-1",
    ]


def test_every_advisory_is_there_once_and_a_blocker_has_a_fix() -> None:
    names = [row.id for row in tables.ADVISORIES]
    assert len(names) == len(set(names))
    assert all(row.fixed for row in tables.ADVISORIES if row.escape or row.severity == "critical")
    for row in tables.ADVISORIES:
        branches = [tables.branch(parse(each)) for each in row.fixed]
        assert len(branches) == len(set(branches)), row.id


@given(
    component=st.sampled_from(["containerd", "runc", "crun"]),
    numbers=st.tuples(st.integers(0, 3), st.integers(0, 60), st.integers(0, 60)),
    packaged=st.booleans(),
)
def test_any_version_is_judged_and_a_later_patch_is_never_worse(
    component: str, numbers: tuple[int, int, int], packaged: bool
) -> None:
    major, minor, patch = numbers
    findings = advisories.check(component, f"{major}.{minor}.{patch}", TODAY, packaged=packaged)
    later = advisories.check(component, f"{major}.{minor}.{patch + 1}", TODAY, packaged=packaged)
    assert all(each.id in tables.KNOWN_IDS for each in findings)
    first = {row.finding for row in tables.ADVISORIES if row.since is not None}
    assert {each.id for each in later} - {each.id for each in findings} <= first
