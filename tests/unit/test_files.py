"""Managed files: what each should hold on a node, and when one is written, removed, or left alone."""

from __future__ import annotations

import tomllib
from hashlib import sha256
from typing import Any

import pytest

from tasks.files import templates
from tests import nodes
from userns import files, paths, readiness
from userns.changes import RemoveFile, WriteFile
from userns.node import ConfLine, FileState, Node, Overlay

RANGE = (65536, 65536 * 110)
EVERYWHERE = {paths.CONFIG, paths.UNIT_DROP_IN, paths.PRE_START, paths.CHECK, paths.CHECK_UNIT}


def wanted(node: Node | None = None, **settings: Any) -> files.Wanted:
    node, policy = node or nodes.bare(), nodes.policy(**settings)
    return files.wanted(node, policy, readiness.of_node(node, policy), templates())


def changed(node: Node | None = None, **settings: Any) -> dict[str, WriteFile | RemoveFile]:
    node, policy = node or nodes.bare(), nodes.policy(**settings)
    found = files.wanted(node, policy, readiness.of_node(node, policy), templates())
    return {each.path: each for each in files.changes(node, policy, found)}


def having(path: str, state: FileState, **settings: Any) -> dict[str, WriteFile | RemoveFile]:
    """What changes on a converged node whose file `path` is like this."""
    node = nodes.converged(**settings)
    return changed(node.model_copy(update={"files": {**node.files, path: state}}), **settings)


# --- which files ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "also"),
    [
        ({}, {paths.UNIT, paths.MODPROBE}),
        ({"install_from": "package", "containerd_version": "2.1.9", "runc_version": "1.3.6"}, {paths.MODPROBE}),
        ({"overlay_metacopy": "auto"}, {paths.UNIT}),
        ({"kubelet_id_range": RANGE}, {paths.UNIT, paths.MODPROBE, paths.SUBUID, paths.SUBGID}),
    ],
)
def test_which_files_a_node_has(settings: dict[str, Any], also: set[str]) -> None:
    assert set(changed(**settings)) == EVERYWHERE | also


def test_only_managed_paths_are_ever_written() -> None:
    """Their digests are what the fact reads, and the slots of the operations."""
    node = nodes.bare(sysctls={"user.max_user_namespaces": 1})
    assert set(wanted(node, kubelet_id_range=RANGE).texts) == set(paths.MANAGED)


def test_every_file_says_what_it_is_for() -> None:
    node = nodes.bare(sysctls={"user.max_user_namespaces": 1})
    for metacopy in (True, False):
        found = wanted(node, kubelet_id_range=RANGE, overlay_metacopy=metacopy)
        assert all(found.whys[path] for path in found.texts)


def test_a_text_depends_on_no_order() -> None:
    one = {"debug": {"level": "info", "address": "/x"}, "metrics": {"address": "y", "grpc_histogram": True}}
    other = {"metrics": {"grpc_histogram": True, "address": "y"}, "debug": {"address": "/x", "level": "info"}}
    assert wanted(containerd_config=one).texts == wanted(containerd_config=other).texts


def test_config_toml_says_what_the_mapping_says() -> None:
    found = wanted(crun_version="1.17", sandbox_image="r.example/pause:3.10")
    assert tomllib.loads(found.texts[paths.CONFIG] or "") == found.config


# --- whether one differs -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "why"),
    [
        (FileState(kind="absent"), "new"),
        (FileState(kind="link", mode="777", owner="0:0"), "it is a link, not a file"),
        (FileState(kind="directory", mode="755", owner="0:0"), "it is a directory, not a file"),
        (FileState(kind="other", mode="666", owner="0:0"), "it is no plain file"),
        (nodes.file_state("edited"), "its text differs"),
        (FileState(kind="file", mode="644", owner="0:0"), "its text differs"),
    ],
)
def test_a_file_with_another_text_is_written(state: FileState, why: str) -> None:
    (change,) = having(paths.CONFIG, state).values()
    assert isinstance(change, WriteFile)
    assert change.why.startswith(f"{why} (")
    assert change.restarts


@pytest.mark.parametrize(
    ("changed_fields", "why"),
    [
        ({"mode": "664"}, "its mode is 664, expected 644"),
        ({"owner": "0:1000"}, "its owner is 0:1000, expected 0:0"),
    ],
)
def test_a_file_with_another_mode_or_owner_is_written_without_a_restart(
    changed_fields: dict[str, str], why: str
) -> None:
    state = nodes.converged().files[paths.CONFIG].model_copy(update=changed_fields)
    (change,) = having(paths.CONFIG, state).values()
    assert isinstance(change, WriteFile)
    assert change.why.startswith(why)
    assert not change.restarts


@pytest.mark.parametrize(
    ("path", "settings", "mode"),
    [
        (paths.CONFIG, {}, "644"),
        (paths.CONFIG, {"containerd_config": {"debug": {"level": "info"}}}, "600"),
        (paths.PRE_START, {}, "755"),
        (paths.CHECK, {}, "755"),
        (paths.CHECK_UNIT, {}, "644"),
        (paths.UNIT, {}, "644"),
        (paths.UNIT, {"containerd_config": {"debug": {"level": "info"}}}, "644"),
    ],
)
def test_only_root_reads_a_config_that_may_hold_a_password(path: str, settings: dict[str, Any], mode: str) -> None:
    change = changed(**settings)[path]
    assert isinstance(change, WriteFile)
    assert change.mode == mode


def test_only_what_containerd_and_systemd_read_at_a_start_asks_for_a_restart() -> None:
    node = nodes.bare(sysctls={"user.max_user_namespaces": 1})
    restarting = {path for path, change in changed(node, kubelet_id_range=RANGE).items() if change.restarts}
    assert restarting == {paths.CONFIG, paths.UNIT}


# --- metacopy ------------------------------------------------------------------------------------------------------


def test_the_modprobe_option_is_removed_only_where_metacopy_is_to_be_off() -> None:
    state = nodes.file_state("options overlay metacopy=Y\n")
    assert isinstance(having(paths.MODPROBE, state, overlay_metacopy=False)[paths.MODPROBE], RemoveFile)
    kept = having(paths.MODPROBE, state, overlay_metacopy="auto")[paths.MODPROBE]
    assert isinstance(kept, WriteFile)
    assert "metacopy=Y" in kept.content
    assert changed(overlay_metacopy=False).keys() == EVERYWHERE | {paths.UNIT}


@pytest.mark.parametrize(("metacopy", "turns_on"), [(True, True), ("auto", False), (False, False)])
def test_the_hook_turns_metacopy_on_only_where_it_is_wanted(metacopy: Any, turns_on: bool) -> None:
    text = wanted(overlay_metacopy=metacopy).texts[paths.PRE_START] or ""
    assert ("echo Y >" in text) is turns_on
    assert ("echo N >" in text) is (metacopy is False)


@pytest.mark.parametrize("metacopy", [True, False, "auto"])
@pytest.mark.parametrize(
    "overlay",
    [
        *(Overlay(state="loaded", metacopy="Y"), Overlay(state="builtin", metacopy="Y")),
        *(Overlay(state="module", default="Y"), Overlay(state="module", default="N"), Overlay(state="module")),
    ],
)
def test_what_is_made_later_changes_nothing(overlay: Overlay, metacopy: Any) -> None:
    """Neither the first image, nor the next boot: the module has its default again, and the hook has run."""
    node = nodes.converged(nodes.bare(overlay=overlay), overlay_metacopy=metacopy)
    now = node.overlay.metacopy or overlay.default or "N"
    booted = Overlay.model_validate({"state": "loaded", "metacopy": "N" if metacopy is False else now})
    later = node.model_copy(update={"snapshots": True, "overlay": booted})
    found = nodes.plan(later, overlay_metacopy=metacopy)
    assert (found.changes, found.refused) == ((), False)


OFF, ON = Overlay(state="builtin", metacopy="N"), Overlay(state="builtin", metacopy="Y")
OPTION = {paths.MODPROBE: nodes.file_state("options overlay metacopy=Y\n")}


@pytest.mark.parametrize(
    ("overlay", "there", "snapshots", "stays"),
    [
        (OFF, {}, True, False),
        (ON, {}, True, True),
        (ON, {}, None, True),
        (ON, {}, False, True),
        (Overlay(state="module", default="Y"), {}, False, True),
        (Overlay(state="module", default="N"), {}, False, False),
        (Overlay(state="module"), OPTION, False, True),
        (Overlay(state="module"), {}, True, False),
        (OFF, OPTION, True, True),
    ],
)
def test_auto_leaves_metacopy_on_for_the_next_boot_too(
    overlay: Overlay, there: dict[str, FileState], snapshots: bool | None, stays: bool
) -> None:
    """As after True, or after a kernel that chowned: layers made then give EPERM once it is off."""
    node = nodes.bare(overlay=overlay, snapshots=snapshots, files={**nodes.bare().files, **there})
    found = wanted(node, overlay_metacopy="auto").texts
    assert ("echo Y >" in (found[paths.PRE_START] or "")) is stays
    assert ("metacopy=Y" in (found.get(paths.MODPROBE) or "")) is stays
    assert ("metacopy_wanted=Y" in (found[paths.CHECK] or "")) is stays


def test_a_node_whose_hook_keeps_metacopy_off_is_not_refused_before_the_module_is_loaded() -> None:
    """A rerun after a boot, where containerd has not started: its layers are of boots in which it was off."""
    there = nodes.bare().model_copy(update={"overlay": Overlay(state="module", default="Y"), "snapshots": True})
    assert nodes.plan(there, overlay_metacopy=False).refused
    hook = wanted(there, overlay_metacopy=False).texts[paths.PRE_START]
    assert hook
    state = FileState(kind="file", sha256=sha256(hook.encode()).hexdigest(), mode="755", owner="0:0")
    after = there.model_copy(update={"files": {**there.files, paths.PRE_START: state}})
    assert not nodes.plan(after, overlay_metacopy=False).refused


@pytest.mark.parametrize("snapshots", [True, None, False])
def test_no_snapshot_is_said_to_need_metacopy_only_where_that_is_known(snapshots: bool | None) -> None:
    why = wanted(nodes.bare(snapshots=snapshots), overlay_metacopy=False).whys[paths.MODPROBE]
    assert ("no snapshot needs it" in why) is (snapshots is False)


# --- the sysctl ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("live", "pods", "figure"),
    [
        (63_000, 110, None),
        (7_000, 110, 16384),
        (63_000, 1000, 64000),
        (None, 110, None),
    ],
)
def test_the_sysctl_file_is_there_only_where_the_kernels_own_figure_is_too_low(
    live: int | None, pods: int, figure: int | None
) -> None:
    node = nodes.bare(sysctls={} if live is None else {"user.max_user_namespaces": live})
    text = wanted(node, max_pods=pods).texts.get(paths.SYSCTL)
    assert (text is None) is (figure is None)
    assert figure is None or (text or "").endswith(f"user.max_user_namespaces = {figure}\n")


@pytest.mark.parametrize(
    ("line", "figure"),
    [
        ("user.max_user_namespaces = 99999", 99999),
        ("user.max_user_namespaces=99999", 99999),
        ("user.max_user_namespaces = 5", 16384),
        ("user.max_user_namespaces = many", 16384),
    ],
)
def test_a_larger_figure_of_an_earlier_run_stays(line: str, figure: int) -> None:
    there = {paths.SYSCTL: nodes.file_state("x")}
    node = nodes.bare(sysctl_lines=(ConfLine(file=paths.SYSCTL, line=line),), files=there)
    assert f"= {figure}\n" in (wanted(node).texts[paths.SYSCTL] or "")


@pytest.mark.parametrize("file", ["/etc/sysctl.d/50-k8s.conf", "/etc/sysctl.d/99-theirs.conf"])
@pytest.mark.parametrize(("theirs", "figure"), [("120000", 120000), ("5", 16384), ("9" * 18, 2**31 - 1), ("x", 16384)])
def test_what_another_file_gives_is_not_lowered_by_ours(file: str, theirs: str, figure: int) -> None:
    line = ConfLine(file=file, line=f"user.max_user_namespaces = {theirs}")
    high, low = ({"sysctl_lines": (line,), "sysctls": {"user.max_user_namespaces": live}} for live in (120_000, 100))
    assert paths.SYSCTL not in wanted(nodes.bare(**high)).texts
    assert f"= {figure}\n" in (wanted(nodes.bare(**low)).texts[paths.SYSCTL] or "")
    after = nodes.converged(nodes.bare(**low))
    assert after.sysctls == {"user.max_user_namespaces": figure}
    assert nodes.plan(after).changes == ()


def test_what_was_lowered_by_hand_comes_back_as_high_as_the_kernel_had_it() -> None:
    node = nodes.bare(sysctls={"user.max_user_namespaces": 0, "kernel.threads-max": 254_000})
    after = nodes.converged(node)
    assert after.sysctls["user.max_user_namespaces"] == 127_000
    more = after.model_copy(update={"sysctls": after.sysctls | {"kernel.threads-max": 999_000}})
    assert nodes.plan(more).changes == ()


# --- sub-IDs -------------------------------------------------------------------------------------------------------


def test_the_range_of_useradd_for_the_same_user_goes_by_name_and_by_number() -> None:
    node = nodes.bare(**nodes.sub_ids("kubelet:100000:65536", "997:200000:65536", "bob:1:2"), kubelet_user="997")
    assert wanted(node, kubelet_id_range=RANGE).texts[paths.SUBUID] == "kubelet:65536:7208960\nbob:1:2\n"


def test_without_the_setting_the_files_are_nobodys_business() -> None:
    node = nodes.bare(**nodes.sub_ids("kubelet:1:1"))
    assert not {paths.SUBUID, paths.SUBGID} & set(wanted(node).texts)


def test_lines_that_are_no_ascii_stay_as_they_are() -> None:
    node = nodes.bare(**nodes.sub_ids("jürgen:100000000:65536"))
    text = wanted(node, kubelet_id_range=RANGE).texts[paths.SUBGID]
    assert text == "jürgen:100000000:65536\nkubelet:65536:7208960\n"


def test_where_two_readers_of_toml_disagree_it_is_told() -> None:
    found = wanted(containerd_config={"x": {"mixed": [1, "a"]}})
    assert [each.id for each in found.findings] == ["config-toml-dialects"]


def test_an_overlay_that_is_not_there_takes_no_option_away() -> None:
    assert paths.MODPROBE in changed(nodes.bare(overlay=Overlay(state="absent")))


# --- what others wrote -----------------------------------------------------------------------------------------------

THEIRS = nodes.file_state("version = 2  # by hand\n")


def test_a_text_that_no_deploy_wrote_is_kept_and_the_plan_says_where() -> None:
    change = having(paths.CONFIG, THEIRS)[paths.CONFIG]
    assert isinstance(change, WriteFile)
    assert change.keeps == f"{paths.REPLACED}/config.toml.{THEIRS.sha256[:12]}"
    assert change.summary.endswith(f"what is there was not written by a deploy, and is kept as {change.keeps}")


@pytest.mark.parametrize(
    "state",
    [
        THEIRS.model_copy(update={"recorded": True}),  # of an earlier version of this project, or with other settings
        FileState(kind="absent"),
        FileState(kind="link", mode="777", owner="0:0"),  # what it leads to stays where it is
    ],
)
def test_what_a_deploy_wrote_and_what_is_no_file_is_not_kept(state: FileState) -> None:
    change = having(paths.CONFIG, state)[paths.CONFIG]
    assert isinstance(change, WriteFile)
    assert change.keeps == ""


def test_nothing_is_kept_where_only_the_mode_changes_or_the_lines_stay() -> None:
    text = wanted().texts[paths.CONFIG]
    assert text is not None
    for path, state in ((paths.CONFIG, nodes.file_state(text, "666")), (paths.SUBUID, THEIRS)):
        change = having(path, state, kubelet_id_range=RANGE if path == paths.SUBUID else None).get(path)
        assert change is None or getattr(change, "keeps", "") == ""


def test_two_files_of_ours_never_have_one_name_among_what_is_kept() -> None:
    names = [path.rpartition("/")[2] for path in paths.MANAGED]
    assert len(set(names)) == len(names)
