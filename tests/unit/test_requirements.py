"""What versions ask of each other: the claims of containerd's document, one by one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import userns
from userns import requirements, settings, tables
from userns.findings import Finding, Severity, apply_allow
from userns.tables.ranges import Range
from userns.versions import parse


def found(**versions: object) -> dict[str, Finding]:
    """Findings by id; the newest of everything where a version is not given."""
    newest: dict[str, object] = {"kubernetes": "1.36", "containerd": "2.3.5", "runc": "1.5.3"}
    return {each.id: each for each in requirements.check(**(newest | versions))}  # type: ignore[arg-type]


def blockers(**versions: object) -> set[str]:
    return {id for id, each in found(**versions).items() if each.severity is Severity.BLOCKER}


@pytest.mark.parametrize(("containerd", "told"), [("1.7.34", True), ("2.3.5", False)])
def test_what_crun_lacks_before_linux_5_12_hangs_on_containerd_1_7(containerd: str, told: bool) -> None:
    said = found(kubernetes="1.26", containerd=containerd, crun="1.21", default_runtime="crun", kernel="5.10.0-33")
    assert ("crun-cannot-mount-shm" in said) is told


def test_the_newest_of_everything_has_only_the_note_on_feature_gates() -> None:
    assert set(found()) == {"kubernetes-feature-gates"}


@pytest.mark.parametrize(
    ("versions", "refusal"),
    [
        ({"kubernetes": "1.24", "containerd": "1.7.34", "runc": "1.2.9"}, "kubernetes-too-old"),
        ({"containerd": "1.6.39"}, "containerd-ignores-user-namespaces"),
        ({"containerd": "1.5.18", "kubernetes": "1.25"}, "containerd-ignores-user-namespaces"),
        ({"containerd": "1.7.0", "kubernetes": "1.27"}, "containerd-too-old-for-kubernetes"),
        ({"containerd": "1.7.34", "kubernetes": "1.27"}, "containerd-too-old-for-kubernetes"),
        ({"containerd": "1.7.34", "kubernetes": "1.36"}, "containerd-too-old-for-kubernetes"),
        ({"containerd": "1.7.0-rc.1", "kubernetes": "1.36"}, "containerd-too-old-for-kubernetes"),
        ({"containerd": "1.6.0-rc.1"}, "containerd-ignores-user-namespaces"),
        ({"runc": "1.1.15"}, "runc-too-old"),
        ({"runc": "1.2.0-rc.3"}, "runc-too-old"),
        ({"runc": "1.1.15", "kubernetes": "1.26"}, "runc-too-old"),
        ({"runc": "1.0.3", "kubernetes": "1.26", "containerd": "1.7.34"}, "runc-too-old"),
        ({"crun": "1.8.7", "default_runtime": "crun"}, "crun-too-old"),
        ({"crun": "1.4.2", "default_runtime": "crun", "kubernetes": "1.25", "containerd": "1.7.34"}, "crun-too-old"),
        ({"runc": "1.2.0", "selinux": True}, "runc-selinux-mqueue"),
    ],
)
def test_is_refused(versions: dict[str, object], refusal: str) -> None:
    assert blockers(**versions) == {refusal}


@pytest.mark.parametrize(
    "versions",
    [
        {"kubernetes": "1.25", "containerd": "1.7.34", "runc": "1.1"},
        {"kubernetes": "1.26.15", "containerd": "1.7.34", "crun": "1.4.3", "default_runtime": "crun"},
        {"kubernetes": "1.26", "containerd": "2.0.11", "runc": "1.2.0"},
        {"kubernetes": "1.27", "containerd": "2.0.0", "runc": "1.2.0"},
        {"kubernetes": "1.36.0-rc.1", "containerd": "2.0.0-rc.1", "runc": "1.2.0"},
        {"kubernetes": "v1.33.4", "containerd": "2.1.9~ds1-1", "runc": "1.3.6+ds1", "crun": "1.9"},
        {"runc": "1.2.0", "selinux": False},
        {"runc": "1.2.1", "selinux": True},
    ],
)
def test_is_enough(versions: dict[str, object]) -> None:
    assert not blockers(**versions)


def test_a_runtime_that_is_not_the_default_one_refuses_no_node() -> None:
    crun = found(crun="1.8.6")["crun-too-old"]
    assert crun.severity is Severity.WARNING
    assert "RuntimeClass" in crun.message


def test_a_note_on_drop_ins_is_for_nodes_that_have_some() -> None:
    assert "containerd-drop-in-versions" in found(containerd="2.3.4", drop_ins=True)
    assert "containerd-drop-in-versions" not in found(containerd="2.3.4")
    assert "containerd-drop-in-versions" not in found(containerd="2.3.5", drop_ins=True)


def test_a_runtime_that_is_not_known_is_not_judged() -> None:
    assert "runc-too-old" not in found(runc=None)


@pytest.mark.parametrize("version", ["1.22", "1.27", "1.29"])
def test_crun_has_releases_that_broke_user_namespaces(version: str) -> None:
    assert "crun-regression" in found(crun=version)
    assert "crun-regression" not in found(crun="1.31")


def test_crun_before_181_mapped_volumes_the_other_way_round() -> None:
    assert "crun-idmap-direction" in found(crun="1.8")
    assert "crun-idmap-direction" not in found(crun="1.8", containerd="1.7.34", kubernetes="1.26")


@pytest.mark.parametrize(
    ("bad", "good"), [("2.0.6", "2.0.7"), ("2.1.4", "2.1.7"), ("2.1.6", "2.1.7"), ("2.2.1", "2.2.2")]
)
def test_the_practical_floor_of_containerd_is_above_its_first_release(bad: str, good: str) -> None:
    assert "containerd-user-namespace-bugs" in found(containerd=bad)
    assert "containerd-user-namespace-bugs" not in found(containerd=good)


@pytest.mark.parametrize(
    ("kubernetes", "containerd", "tested"),
    [
        ("1.33", "2.0.3", False),
        ("1.33", "2.0.4", True),
        ("1.33", "2.4.2", True),
        ("1.35", "2.1.4", False),
        ("1.35", "2.0.11", False),
        ("1.35", "2.2.0", True),
        ("1.36", "2.1.9", False),
        ("1.36", "2.2.0", True),
        ("1.30", "2.0.0", True),  # upstream's table says nothing of it any more
    ],
)
def test_upstream_recommends_releases_for_each_kubernetes(kubernetes: str, containerd: str, tested: bool) -> None:
    assert (
        "containerd-not-tested-with-kubernetes" not in found(kubernetes=kubernetes, containerd=containerd)
    ) is tested


@pytest.mark.parametrize(
    ("kubernetes", "said"),
    [
        ("1.25", "--feature-gates=UserNamespacesStatelessPodsSupport=true"),
        ("1.27", "--feature-gates=UserNamespacesStatelessPodsSupport=true"),
        ("1.28", "--feature-gates=UserNamespacesSupport=true"),
        ("1.32", "--feature-gates=UserNamespacesSupport=true"),
        ("1.33", "on by default"),
        ("1.36", "take UserNamespacesSupport out"),
        ("1.36.0-rc.1", "take UserNamespacesSupport out"),
        ("1.33.0-alpha.3", "on by default"),
    ],
)
def test_the_gates_are_told_in_the_lines_to_write(kubernetes: str, said: str) -> None:
    assert said in " ".join(each.message for each in requirements.gates(kubernetes))


def test_from_133_on_nobody_is_told_to_set_the_gate() -> None:
    for kubernetes in ("1.33.0-rc.0", "1.33", "1.34", "1.35", "1.36"):
        assert "=true" not in " ".join(each.message for each in requirements.gates(kubernetes))


def test_a_kubernetes_that_the_tables_do_not_know_is_judged_like_the_newest_one() -> None:
    assert "kubernetes-newer-than-known" in found(kubernetes="1.40")
    assert "runc-too-old" in blockers(kubernetes="1.40", runc="1.1.15")


def test_the_settings_and_the_tables_know_the_same_kubernetes() -> None:
    assert settings.NEWEST_KUBERNETES == tables.NEWEST_KUBERNETES
    assert all(requirements.gates(f"1.{minor}") for minor in range(25, int(tables.NEWEST_KUBERNETES[2:]) + 1))


@pytest.mark.parametrize(
    ("kubernetes", "containerd", "name"),
    [
        ("1.26", "1.7.34", "Kubernetes 1.25 or 1.26 with containerd 1.7"),
        ("1.26", "2.3.4", "Kubernetes 1.25 or 1.26 with containerd 2.x"),
        ("1.27", "2.0.0", "Kubernetes 1.27 or later"),
        ("1.27.0-rc.1", "2.0.0-rc.1", "Kubernetes 1.27 or later"),
        ("1.26", "2.0.0-rc.1", "Kubernetes 1.25 or 1.26 with containerd 2.x"),
        ("1.27", "1.7.34", None),
        ("1.26", "1.6.39", None),
        ("1.24", "2.3.4", None),
    ],
)
def test_the_requirement_set(kubernetes: str, containerd: str, name: str | None) -> None:
    row = requirements.stack(kubernetes, containerd)
    assert (row.name if row else None) == name


# --- the tables ----------------------------------------------------------------------------------------------------


def test_every_row_names_its_source() -> None:
    rows = [
        *tables.STACKS,
        *tables.RULES,
        *tables.TESTED,
        *tables.GATES,
        *tables.FILESYSTEMS.values(),
        *tables.ERRNOS.values(),
        *tables.BOUNDARIES.values(),
        *tables.DISTRIBUTIONS,
        *tables.SNAPSHOTTERS.values(),
        *tables.RELEASES,
        *tables.ADVISORIES,
    ]
    assert all(row.source.strip() for row in rows)


def test_an_id_of_a_finding_can_be_written_into_allow() -> None:
    for id in tables.KNOWN_IDS:
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", id), id


def test_every_finding_that_the_code_makes_is_a_known_one() -> None:
    """Whoever adds a finding adds a row to tables/findings.toml, or nobody could allow it."""
    made = set()
    for path in sorted(Path(userns.__file__).parent.glob("*.py")):
        made |= set(re.findall(r'\b(?:blocker|warning|note)\)?\(\s*"([a-z0-9-]+)"', path.read_text()))
    assert made
    assert {id for id in made if id not in tables.KNOWN_IDS} == set()
    assert "kernel-lacks-tmpfs-idmp" not in tables.KNOWN_IDS


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        (">=1.7,<2", ["1.7", "1.7.34", "1.7.0-rc.1"], ["1.6.39", "2.0.0", "2.0.0-rc.1", "2.0.0-beta.0"]),
        (">=2", ["2.0.0-rc.1", "2.0.0", "2.1.0-rc.0"], ["1.7.34", "1.7.0-rc.1"]),
        (">=2.3", ["2.3.0-rc.1", "2.3.0"], ["2.2.9", "2.2.0-rc.1"]),
        (">=2.1,<2.1.5", ["2.1.0-rc.1", "2.1.5-rc.1"], ["2.1.5", "2.0.9"]),
        (">=1.36", ["1.36.0-rc.1", "v1.36.0-alpha.1", "1.36.2"], ["1.35.9", "1.35.0-rc.1"]),
        ("<2.0.7", ["2.0.6", "2.0.7-rc.1"], ["2.0.7", "2.1.0"]),
        (">=2.3.0", ["2.3.0"], ["2.3.0-rc.1"]),
        ("==1.7.0", ["1.7", "1.7.0"], ["1.7.1", "1.7.0-rc.1"]),
        ("==22.04", ["22.04"], ["24.04"]),
    ],
)
def test_a_release_candidate_is_below_its_release_and_of_its_line(
    text: str, inside: list[str], outside: list[str]
) -> None:
    assert all(parse(each) in Range.of(text) for each in inside)
    assert not any(parse(each) in Range.of(text) for each in outside)


@pytest.mark.parametrize("text", ["", "1.7", "~=1.7", ">=", ">=x", ">=1.7,,<2"])
def test_a_range_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"clause|version"):
        Range.of(text)


# --- properties ----------------------------------------------------------------------------------------------------

numbers = st.integers(0, 40)
releases = st.builds("{}.{}.{}".format, st.integers(0, 3), numbers, numbers) | st.sampled_from(
    [
        "2.0.0-rc.1",
        "1.7.0-rc.1",
        "1.6.0-beta.2",
        "1.27.0-rc.1",
        "1.25.0-alpha.1",
        "1.2.0-rc.3",
        "2.1.9~ds1",
        "1.17",
        "v1.33",
        "2.4.0-beta.0",
    ]
)


@given(
    kubernetes=releases,
    containerd=releases,
    runc=st.none() | releases,
    crun=st.none() | releases,
    default=st.sampled_from(["runc", "crun"]),
    selinux=st.booleans(),
)
def test_any_versions_are_judged_and_every_sentence_is_whole(
    kubernetes: str, containerd: str, runc: str | None, crun: str | None, default: str, selinux: bool
) -> None:
    findings = requirements.check(
        kubernetes=kubernetes,
        containerd=containerd,
        runc=runc,
        crun=crun,
        default_runtime=default,
        selinux=selinux,
    )
    assert all(each.id in tables.KNOWN_IDS and each.message and "{k" not in each.message for each in findings)
    if requirements.stack(kubernetes, containerd) is None:
        assert any(each.severity is Severity.BLOCKER for each in findings)
    allowed = apply_allow(findings, [each.id for each in findings])
    assert len(allowed) == len(findings)
    assert not any(each.severity is Severity.BLOCKER for each in allowed)
