"""The plan: a new node gets everything in order, a converged one nothing, and each drift just what undoes it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import date
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tasks.files import templates
from tests import nodes
from tests.strategies import any_node, any_settings
from userns import changes, paths, tables
from userns.changes import Change
from userns.containerd import config
from userns.findings import Severity
from userns.node import Binary, FileState, Node, Overlay, Package, Probe, Unit
from userns.planning import plan
from userns.policy import PolicyError, load
from userns.reading import read

SETTINGS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "crun": {"crun_version": "1.17", "default_runtime": "crun"},
    "containerd 1.7": {"kubernetes_version": "1.26", "containerd_version": "1.7.34", "runc_version": "1.2.9"},
    "packages": {"install_from": "package", "containerd_version": "2.3.4", "runc_version": "1.4.3"},
    "the kubelet's range": {"kubelet_id_range": (65536, 65536 * 110)},
    "own tables": {"containerd_config": {"debug": {"level": "info"}}, "sandbox_image": "r.example/pause:3.10"},
    "metacopy auto": {"overlay_metacopy": "auto"},
    "no metacopy": {"overlay_metacopy": False},
    "cgroupfs": {"cgroup_driver": "cgroupfs", "slow_chown": True, "max_pods": 1000},
}
BASES: dict[str, Node] = {
    "bare": nodes.bare(),
    "5.15": nodes.bare(
        kernel="5.15.0-160-generic",
        probes={
            name: Probe(result="cannot", step="mount_setattr", errno="EINVAL")
            if name in ("overlay", "tmpfs", "containerd-check")
            else Probe(result="ok")
            for name in ("containerd-root", "kubelet-root", "tmpfs", "overlay", "containerd-check")
        },
    ),
    "container": nodes.bare(container="lxc", sysctls={"user.max_user_namespaces": 1}),
    "small": nodes.bare(sysctls={"user.max_user_namespaces": 7000}),
    "built in": nodes.bare(overlay=Overlay(state="builtin", metacopy="N")),
    "Docker's": nodes.bare(
        packages={"containerd.io": Package(version="2.1.5-1")},
        binaries={"/usr/bin/containerd": Binary(sha256="1" * 64, version="2.1.5", component="containerd")},
        units={"containerd": Unit(load="loaded", active="active", enabled="enabled", exec_start="/usr/bin/containerd")},
    ),
}


def kinds(found: Sequence[Change]) -> list[str]:
    """Each change by its kind, files by their path."""
    return [getattr(each, "path", getattr(each, "component", type(each).__name__)) for each in found]


def drift(**changed: Any) -> list[str]:
    """What a converged node gets that then changed like this."""
    return kinds(nodes.plan(nodes.converged().model_copy(update=changed)).changes)


def edited(path: str, text: str = "edited", **fields: str) -> dict[str, Any]:
    """A converged node's files, one of which somebody edited."""
    files = nodes.converged().files
    state = files[path].model_copy(update=fields) if fields else nodes.file_state(text, files[path].mode)
    return {"files": {**files, path: state}}


# --- from nothing to everything ------------------------------------------------------------------------------------


def test_a_bare_node_gets_programs_then_files_then_the_kernel_then_the_service() -> None:
    assert kinds(nodes.plan(nodes.bare(), crun_version="1.17", kubelet_id_range=(65536, 65536 * 110)).changes) == [
        "containerd",
        "runc",
        "crun",
        "AddKubeletUser",
        paths.CONFIG,
        paths.UNIT_DROP_IN,
        paths.PRE_START,
        paths.UNIT,
        paths.MODPROBE,
        paths.SUBUID,
        paths.SUBGID,
        paths.CHECK,
        paths.CHECK_UNIT,
        "SetMetacopy",
        "EnableService",
        "EnableService",
        "RestartService",
    ]


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("name", SETTINGS)
def test_a_second_run_has_nothing_to_do(name: str, base: str) -> None:
    node = nodes.converged(BASES[base], **SETTINGS[name])
    assert [each.summary for each in nodes.plan(node, **SETTINGS[name]).changes] == []


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("name", SETTINGS)
def test_these_nodes_are_nodes_that_the_fact_can_read(name: str, base: str) -> None:
    for node in (BASES[base], nodes.converged(BASES[base], **SETTINGS[name])):
        assert read(nodes.answer(node).splitlines()) == node


# --- each drift ----------------------------------------------------------------------------------------------------

UNITS = nodes.converged().units
RUNNING = UNITS["containerd"]
RUNC = nodes.converged().binaries[paths.INSTALLED["runc"]]
DRIFTS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "config.toml was edited": (edited(paths.CONFIG), [paths.CONFIG, "RestartService"]),
    "the unit was edited": (edited(paths.UNIT), [paths.UNIT, "RestartService"]),
    "the drop-in was edited": (edited(paths.UNIT_DROP_IN), [paths.UNIT_DROP_IN]),
    "the hook was edited": (edited(paths.PRE_START), [paths.PRE_START]),
    "the modprobe option was edited": (edited(paths.MODPROBE), [paths.MODPROBE]),
    "config.toml has another mode": (edited(paths.CONFIG, mode="600"), [paths.CONFIG]),
    "config.toml has another owner": (edited(paths.CONFIG, owner="1000:1000"), [paths.CONFIG]),
    "config.toml is a link": (edited(paths.CONFIG, kind="link", sha256=""), [paths.CONFIG, "RestartService"]),
    "config.toml is gone": (edited(paths.CONFIG, kind="absent", sha256=""), [paths.CONFIG, "RestartService"]),
    "runc was replaced": (
        {"binaries": {**nodes.converged().binaries, paths.INSTALLED["runc"]: Binary(sha256="2" * 64, version="1.0.0")}},
        ["runc", "RestartService"],
    ),
    "ctr is gone": (
        {"binaries": {k: v for k, v in nodes.converged().binaries.items() if not k.endswith("/ctr")}},
        ["containerd", "RestartService"],
    ),
    "metacopy is off": ({"overlay": Overlay(state="loaded", metacopy="N")}, ["SetMetacopy"]),
    "too few user namespaces": ({"sysctls": {"user.max_user_namespaces": 10}}, [paths.SYSCTL, "SetSysctl"]),
    "containerd is disabled": (
        {"units": UNITS | {"containerd": RUNNING.model_copy(update={"enabled": "disabled"})}},
        ["EnableService"],
    ),
    "containerd is stopped": (
        {"units": UNITS | {"containerd": RUNNING.model_copy(update={"active": "inactive"})}},
        ["RestartService"],
    ),
    "containerd fails": (
        {"units": UNITS | {"containerd": RUNNING.model_copy(update={"active": "failed"})}},
        ["RestartService"],
    ),
    "the check was edited": (edited(paths.CHECK), [paths.CHECK]),
    "the check does not run after a boot": ({"units": {"containerd": RUNNING}}, ["EnableService"]),
    "metrics are left that nobody writes": ({"stale_metrics": "/srv/userns_node.prom"}, ["/srv/userns_node.prom"]),
    "a change was cut off": ({"unfinished": "swapping"}, ["RestartService"]),
}


@pytest.mark.parametrize("name", DRIFTS)
def test_each_drift_gives_just_what_undoes_it(name: str) -> None:
    changed, expected = DRIFTS[name]
    assert drift(**changed) == expected
    node = nodes.converged().model_copy(update=changed)
    assert nodes.plan(nodes.done(node, nodes.plan(node))).changes == ()


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"unfinished": "swapping"}, "an earlier change was cut off"),
        (edited(paths.CONFIG), f"new {paths.CONFIG}"),
        ({"binaries": {}}, "new containerd, runc"),
        ({"units": {}}, "it is inactive"),
    ],
)
def test_a_restart_says_why(changed: dict[str, Any], why: str) -> None:
    restart = nodes.plan(nodes.converged().model_copy(update=changed)).changes[-1]
    assert restart == changes.RestartService(why)


def test_a_new_version_is_installed_and_containerd_restarted() -> None:
    before = nodes.converged(runc_version="1.4.2")
    found = nodes.plan(before, runc_version="1.4.3").changes
    assert [each.summary.partition(" (")[0] for each in found] == [
        "install runc 1.4.3",
        "restart containerd.service: new runc",
    ]
    assert found[0].why == f"{paths.INSTALLED['runc']} is 1.4.2"


def test_a_kernel_update_changes_nothing_where_nothing_has_to() -> None:
    """The comments in config.toml do not name the kernel's release: else each update would restart containerd."""
    node = nodes.converged()
    assert nodes.plan(node.model_copy(update={"kernel": "6.12.57+deb13-amd64"})).changes == ()


# --- the kernel's live values --------------------------------------------------------------------------------------


def test_a_container_gets_files_but_no_live_values() -> None:
    node = nodes.bare(container="systemd-nspawn", sysctls={"user.max_user_namespaces": 10})
    found = kinds(nodes.plan(node).changes)
    assert paths.SYSCTL in found
    assert paths.MODPROBE in found
    assert not {"SetSysctl", "SetMetacopy"} & set(found)


@pytest.mark.parametrize(("live", "raised"), [(0, 16384), (16383, 16384), (16384, None), (2**31 - 1, None)])
def test_the_sysctl_is_only_ever_raised(live: int, raised: int | None) -> None:
    found = nodes.plan(nodes.bare(sysctls={"user.max_user_namespaces": live})).changes
    assert [each.value for each in found if isinstance(each, changes.SetSysctl)] == ([] if raised is None else [raised])
    assert (paths.SYSCTL in kinds(found)) is (raised is not None)


def test_a_sysctl_that_cannot_be_read_is_not_set() -> None:
    found = nodes.plan(nodes.bare(sysctls={})).changes
    assert not [each for each in found if isinstance(each, changes.SetSysctl)]


def test_fewer_pods_lower_no_figure_that_an_earlier_run_has_set() -> None:
    many = nodes.converged(nodes.bare(sysctls={"user.max_user_namespaces": 10}), max_pods=1000)
    assert many.sysctls == {"user.max_user_namespaces": 64000}
    assert kinds(nodes.plan(many, max_pods=10).changes) == [paths.CHECK]  # the figures that it compares with


@pytest.mark.parametrize(
    ("wanted", "kernel", "overlay", "live"),
    [
        (True, "6.12", Overlay(state="loaded", metacopy="N"), "Y"),
        (True, "6.12", Overlay(state="builtin", metacopy="N"), "Y"),
        (True, "6.12", Overlay(state="loaded", metacopy="Y"), None),
        (True, "6.12", Overlay(state="module"), "Y"),
        (True, "6.12", Overlay(state="absent"), None),
        ("auto", "6.12", Overlay(state="loaded", metacopy="N"), None),
        ("auto", "6.12", Overlay(state="loaded", metacopy="Y"), None),
        ("auto", "5.15", Overlay(state="loaded", metacopy="N"), "Y"),
        (False, "6.12", Overlay(state="loaded", metacopy="Y"), "N"),
        (False, "6.12", Overlay(state="loaded", metacopy="N"), None),
        (False, "6.12", Overlay(state="module"), None),
        (False, "6.12", Overlay(state="module", default="Y"), "N"),
        ("auto", "6.12", Overlay(state="module", default="Y"), "Y"),
    ],
)
def test_metacopy_is_set_as_wanted_and_auto_never_turns_it_off(
    wanted: Any, kernel: str, overlay: Overlay, live: str | None
) -> None:
    node = BASES["5.15" if kernel == "5.15" else "bare"].model_copy(update={"overlay": overlay})
    found = nodes.plan(node, overlay_metacopy=wanted).changes
    assert [each.value for each in found if isinstance(each, changes.SetMetacopy)] == ([live] if live else [])


@pytest.mark.parametrize(("snapshots", "refused"), [(True, True), (None, True), (False, False)])
def test_metacopy_is_not_turned_off_while_snapshots_need_it(snapshots: bool | None, refused: bool) -> None:
    node = nodes.converged().model_copy(update={"snapshots": snapshots})
    found = nodes.plan(node, overlay_metacopy=False)
    assert found.refused is refused
    assert ("metacopy-off-with-snapshots" in {each.id for each in found.blockers}) is refused
    # The comment in the hook, the option file, what the check expects, the live value.
    assert kinds(found.changes) == [paths.PRE_START, paths.MODPROBE, paths.CHECK, "SetMetacopy"]


def test_a_change_is_proven_and_an_unproven_one_again_and_again() -> None:
    converged = nodes.converged()
    assert nodes.plan(nodes.bare()).proves
    assert not nodes.plan(converged).proves
    again = nodes.plan(converged.model_copy(update={"unproven": True}))
    assert (again.changes, again.proves) == ((), True)
    assert again.steps == ("prove the last change: it was not proven yet, or its proof failed",)
    assert nodes.plan(converged).steps == ()


# --- the kubelet's range -------------------------------------------------------------------------------------------

RANGE = {"kubelet_id_range": (65536, 65536 * 110)}


def sub_id_files(found: Iterable[changes.Change]) -> dict[str, str]:
    """What is written into /etc/subuid and /etc/subgid."""
    written = [each for each in found if isinstance(each, changes.WriteFile)]
    return {each.path: each.content for each in written if each.path in paths.SHARED}


def test_the_range_is_written_for_a_user_that_is_made_first() -> None:
    found = nodes.plan(nodes.converged(), **RANGE).changes
    assert kinds(found) == ["AddKubeletUser", paths.SUBUID, paths.SUBGID, paths.CHECK]
    assert sub_id_files(found) == {paths.SUBUID: "kubelet:65536:7208960\n", paths.SUBGID: "kubelet:65536:7208960\n"}


def test_lines_of_others_stay_as_they_are() -> None:
    lines = ("alice:1000000000:65536", "# a note", "", "kubelet:100000:65536", "bob:1000065536:65536")
    found = nodes.plan(nodes.converged(nodes.bare(**nodes.sub_ids(*lines))), **RANGE).changes
    expected = "alice:1000000000:65536\n# a note\n\nkubelet:65536:7208960\nbob:1000065536:65536\n"
    assert sub_id_files(found) == {paths.SUBUID: expected, paths.SUBGID: expected}


@pytest.mark.parametrize("allow", [[], ["sub-id-unreadable"]])
@pytest.mark.parametrize(
    ("lines", "state"),
    [
        (("alice:1000000000:65536",), nodes.file_state("bob:1000000000:65536\n")),
        (("alice:1000000000:65536",) * 500, nodes.file_state("alice:1000000000:65536\n" * 501)),
        (("alic\ufffd:1000000000:65536",), FileState(kind="file", sha256="3" * 64, mode="644", owner="0:0")),
        (("alice:1000000000:65536",), FileState(kind="link", mode="777", owner="0:0")),
        (("alice:1000000000:65536",), FileState(kind="file", mode="644", owner="0:0")),
    ],
    ids=["changed meanwhile", "more lines than were read", "no UTF-8", "a link", "no digest"],
)
def test_a_file_that_was_not_read_byte_for_byte_is_never_written(
    lines: tuple[str, ...], state: FileState, allow: list[str]
) -> None:
    node = nodes.converged().model_copy(update={"subuid": lines, "kubelet_user": "997"})
    node = node.model_copy(update={"files": {**node.files, paths.SUBUID: state}})
    found = nodes.plan(node, **RANGE, allow=allow)
    assert "sub-id-unreadable" in {each.id for each in found.findings}
    assert found.refused is not bool(allow)
    assert kinds(found.changes) == [paths.SUBGID, paths.CHECK]


def test_a_file_without_a_last_newline_is_read_whole() -> None:
    state = nodes.file_state("alice:1000000000:65536")
    node = nodes.converged(nodes.bare(subuid=("alice:1000000000:65536",)))
    node = node.model_copy(update={"files": {**node.files, paths.SUBUID: state}})
    assert not nodes.plan(node, **RANGE).refused


# --- findings and decisions ----------------------------------------------------------------------------------------


def test_blockers_refuse_and_come_first() -> None:
    found = nodes.plan(nodes.bare(root=False, systemd="", gpu_hooks=("nvidia-ctk",)))
    assert found.refused
    assert {each.id for each in found.blockers} == {"not-root", "no-systemd"}
    assert [each.severity for each in found.findings] == sorted(
        (each.severity for each in found.findings), key=list(Severity).index
    )


def test_a_version_that_is_not_locked_for_an_architecture_refuses_its_nodes() -> None:
    only = '[{0}]\npath = "/{{version}}{{arch}}"\nsource = "x"\n[{0}.sha256."{1}"]\namd64 = "{2}"\n'
    lock = only.format("containerd", "2.3.4", "0" * 64) + only.format("runc", "1.4.3", "0" * 64)
    found = [plan(nodes.bare(machine=each), load({}, lock), templates()) for each in ("x86_64", "aarch64")]
    assert [{each.id for each in one.blockers} for one in found] == [set(), {"artifact-not-locked"}]


def test_what_is_allowed_refuses_no_more() -> None:
    found = nodes.plan(nodes.bare(root=False, systemd=""), allow=["not-root", "no-systemd"])
    assert not found.refused
    assert [each.id for each in found.findings if each.allowed] == ["not-root", "no-systemd"]


def test_every_decision_has_a_reason() -> None:
    for name in SETTINGS:
        for decision in nodes.plan(nodes.bare(), **SETTINGS[name]).decisions:
            assert decision.reason or decision.source, decision
            assert str(decision)


def test_the_day_decides_nothing_but_which_ends_of_life_are_told() -> None:
    node, policy = nodes.bare(), nodes.policy(containerd_version="2.1.9")
    plans = [plan(node, policy, templates(), today) for today in (None, date(2020, 1, 1), date(2040, 1, 1))]
    assert all(each.changes == plans[0].changes for each in plans)
    assert [len([f for f in each.findings if f.id.startswith("end-of-life")]) for each in plans] == [0, 0, 1]


# --- whatever a node is --------------------------------------------------------------------------------------------


@given(any_node(), any_settings)
def test_any_node_has_one_plan_that_a_second_run_has_nothing_to_add_to(node: Node, wanted: dict[str, Any]) -> None:
    try:
        policy = nodes.policy(**wanted)
    except PolicyError:
        assume(False)
    found = plan(node, policy, templates())
    assert plan(node, policy, dict(reversed(templates().items()))) == found
    assert all(each.id in tables.KNOWN_IDS for each in found.findings)
    assert all(each.summary for each in found.changes)
    if node.container != "none":
        assert not any(isinstance(each, changes.SetSysctl | changes.SetMetacopy) for each in found.changes)

    after = nodes.done(node, found)
    again = plan(after, policy, templates())
    assert [each.summary for each in again.changes] == []


@settings(max_examples=30)
@given(any_node(), st.randoms())
def test_the_order_in_which_a_node_is_read_changes_nothing(node: Node, random: Any) -> None:
    shuffled: dict[str, Any] = {}
    for field in ("probes", "filesystems", "sysctls", "files", "binaries", "units", "packages"):
        items = list(getattr(node, field).items())
        random.shuffle(items)
        shuffled[field] = dict(items)
    other = node.model_copy(update=shuffled)
    assert plan(other, nodes.policy(), templates()).changes == plan(node, nodes.policy(), templates()).changes


def test_what_cannot_be_written_is_an_error_that_names_no_value() -> None:
    policy = nodes.policy().model_copy(update={"containerd_config": {"version": "hunter2"}})
    with pytest.raises(config.ConfigError) as error:
        plan(nodes.bare(), policy, templates())
    assert "hunter2" not in str(error.value)


@pytest.mark.parametrize(
    ("kernel", "default", "severity"),
    [("5.10.0-33-amd64", "crun", "blocker"), ("5.10.0-33-amd64", "runc", "warning"), ("5.15.0", "crun", None)],
)
def test_crun_gives_pods_no_shm_before_idmapped_mounts(kernel: str, default: str, severity: str | None) -> None:
    settings = {"containerd_version": "1.7.34", "kubernetes_version": "1.26", "crun_version": "1.17"}
    found = nodes.plan(nodes.bare(kernel=kernel), **settings, default_runtime=default)
    assert {each.severity.value for each in found.findings if each.id == "crun-cannot-mount-shm"} == {severity} - {None}
