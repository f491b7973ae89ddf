"""From one containerd to another: what upstream supports, and what would leave containers without a containerd."""

from __future__ import annotations

from typing import Any

import pytest

from tests import nodes
from userns import paths, upgrades
from userns.findings import Severity
from userns.node import Binary, ConfigKey, DropIn, Image, ImageKernel, Node, ReservedKey, Unit
from userns.tables import UPGRADES
from userns.versions import parse

CONTAINERD = paths.INSTALLED["containerd"]
OLD: dict[str, Any] = {"kubernetes_version": "1.26", "containerd_version": "1.7.34", "runc_version": "1.4.3"}


def running(version: str, shims: dict[str, int] | None, **units: Unit) -> Node:
    """A node with this containerd, and these shims."""
    unit = Unit(load="loaded", active="active", enabled="enabled", exec_start=CONTAINERD, fragment=paths.UNIT)
    binaries = {CONTAINERD: Binary(version=version, component="containerd")} if version else {}
    return nodes.bare(binaries=binaries, units={"containerd": unit, **units}, shims=shims)


def ids(node: Node, **settings: Any) -> dict[str, Severity]:
    return {each.id: each.severity for each in upgrades.of_node(node, nodes.policy(**settings))}


@pytest.mark.parametrize("now", ["2.0.0", "2.1.9", "2.3.4", ""])
def test_back_to_1_7_is_refused_while_any_task_runs(now: str) -> None:
    node = running(now, {"k8s.io": 2, "default": 1})
    assert ids(node, **OLD)[upgrades.TASKS] == Severity.BLOCKER
    plan = nodes.plan(node, **OLD)
    message = next(each.message for each in plan.blockers if each.id == upgrades.TASKS)
    assert "3 tasks (shims in the namespaces default, k8s.io) run here" in message


def test_one_task_is_enough_in_any_namespace() -> None:
    finding, *_ = upgrades.of_node(running("2.1.9", {"moby": 1}), nodes.policy(**OLD))
    assert "1 task (shims in the namespace moby) runs here" in finding.message


def test_what_could_not_be_read_refuses_as_well() -> None:
    assert ids(running("2.1.9", None), **OLD)[upgrades.TASKS] == Severity.BLOCKER


@pytest.mark.parametrize("now", ["2.1.9", ""])
def test_back_to_1_7_goes_on_an_empty_node_where_it_is_looked_at_again(now: str) -> None:
    node = running(now, {})
    assert upgrades.TASKS not in ids(node, **OLD)
    assert nodes.plan(node, **OLD).needs_empty_node


@pytest.mark.parametrize(("now", "settings"), [("1.7.24", OLD), ("1.7.24", {}), ("2.3.4", {}), ("2.3.5", {})])
def test_tasks_are_no_hindrance_elsewhere(now: str, settings: dict[str, Any]) -> None:
    node = running(now, {"k8s.io": 2})
    assert upgrades.TASKS not in ids(node, **settings)
    assert not nodes.plan(node, **settings).needs_empty_node


def test_who_allows_it_gets_no_second_look() -> None:
    plan = nodes.plan(running("2.1.9", {"k8s.io": 2}), **OLD, allow=[upgrades.TASKS])
    (finding,) = [each for each in plan.findings if each.id == upgrades.TASKS]
    assert (finding.severity, finding.allowed) == (Severity.WARNING, True)
    assert not plan.needs_empty_node


@pytest.mark.parametrize(
    ("image", "kernel", "guarded"),
    [
        (False, {}, True),
        (False, {"target_kernel": "6.12", "allow": ["target-kernel-without-image"]}, True),
        (True, {}, False),
        (True, {"target_kernel": "6.12.48+deb13-amd64"}, False),
    ],
)
def test_only_an_image_has_no_tasks_whatever_kernel_is_named(
    image: bool, kernel: dict[str, Any], guarded: bool
) -> None:
    """A tree tells nothing of tasks; a node that runs does, also where target_kernel is set for its whole group."""
    baked = Image(kernels=(ImageKernel(release="6.12.48+deb13-amd64", overlay="module"),)) if image else None
    node = running("2.1.9", None if image else {"k8s.io": 3}).model_copy(update={"image": baked})
    plan = nodes.plan(node, **OLD, **kernel)
    assert (upgrades.TASKS in {each.id for each in plan.blockers}, plan.needs_empty_node) == (guarded, guarded)


@pytest.mark.parametrize(
    ("now", "wanted", "ways"),
    [
        ("1.7.34", "2.1.9", "2.0 or 2.3"),
        ("1.6.39", "2.1.0", "1.7 or 2.0"),
        ("2.1.9", "2.3.4", "2.2"),
        ("2.0.11", "2.2.7", "2.1 or 2.3"),
    ],
)
def test_a_minor_that_may_not_be_skipped_is_warned_of(now: str, wanted: str, ways: str) -> None:
    (finding,) = upgrades.skipped(now, wanted)
    assert (finding.id, finding.severity) == ("containerd-skips-minor", Severity.WARNING)
    assert f"it goes to {ways}." in finding.message
    assert "RELEASES.md" in finding.source


@pytest.mark.parametrize(
    ("now", "wanted"),
    [
        ("", "2.3.4"),
        ("1.7.34", "2.3.4"),  # from one branch with long-term support to the next
        ("1.7.24", "2.0.11"),
        ("2.2.7", "2.3.4"),
        ("2.3.4", "2.3.5"),
        ("2.3.4", "2.1.9"),  # back is not up
        ("2.4.0", "2.6.0"),  # not judged: no row
    ],
)
def test_other_ways_are_not(now: str, wanted: str) -> None:
    assert list(upgrades.skipped(now, wanted)) == []


SANDBOX = ("plugins", "io.containerd.cri.v1.images", "pinned_images", "sandbox")


@pytest.mark.parametrize(
    ("now", "settings", "images"),
    [
        ("1.7.34", {"containerd_version": "2.0.11"}, ("3.8", "3.10")),
        ("2.1.9", OLD, ("3.10", "3.8")),
        ("2.2.7", {"containerd_version": "2.3.4"}, ("3.10.1", "3.10.2")),
        ("2.0.11", {"containerd_version": "2.1.9"}, None),
        ("2.3.3", {"containerd_version": "2.3.4"}, None),
        ("", {"containerd_version": "2.3.4"}, None),
        ("1.5.9", {"containerd_version": "2.3.4"}, None),  # not judged: no row
        ("1.7.34", {"containerd_version": "2.0.11", "sandbox_image": "r/pause:1"}, None),
    ],
)
def test_another_pause_image_is_told(now: str, settings: dict[str, Any], images: tuple[str, str] | None) -> None:
    found = [each for each in upgrades.of_node(running(now, {}), nodes.policy(**settings)) if "pause" in each.id]
    assert [(each.id, each.severity) for each in found] == [("pause-image-changes", Severity.WARNING)] * bool(images)
    for each in found:
        old, new = (f"registry.k8s.io/pause:{image}" for image in images or ())
        assert f"begins with {new} once containerd goes from {now}" in each.message
        assert f"and no longer with {old}." in each.message


def test_who_named_a_pause_image_is_told_of_no_default() -> None:
    node = running("1.7.34", {})
    key = ReservedKey(path=SANDBOX, value='"r/pause:1"')
    named = DropIn(path="/etc/containerd/conf.d/1.toml", version=3, keys=(key,))
    of_2_0 = {"containerd_version": "2.0.11"}
    assert "pause-image-changes" in ids(node, **of_2_0)
    assert "pause-image-changes" not in ids(node.model_copy(update={"drop_ins": (named,)}), **of_2_0)
    of_1_7, of_1_6 = "registry.k8s.io/pause:3.8", "registry.k8s.io/pause:3.6"
    for state, value, told in (
        ("set", "r/pause:1", False),
        ("set", of_1_7, True),
        ("set", of_1_6, False),
        ("unknown", of_1_6, True),
        ("unknown", "r/pause:1", False),
    ):
        fields = {"path": ("cri", "pinned_images", "sandbox"), "value": f'"{value}"', "state": state}
        own = ConfigKey.model_validate(fields)
        assert ("pause-image-changes" in ids(node.model_copy(update={"config_keys": (own,)}), **of_2_0)) == told


def test_every_row_of_the_table_goes_up() -> None:
    for of, row in UPGRADES.items():
        assert all(parse(each) > parse(of) for each in row.to)


def test_what_counts_is_what_the_unit_starts() -> None:
    packaged = paths.PACKAGED["containerd"]
    both = {
        CONTAINERD: Binary(version="2.1.9", component="containerd"),
        packaged: Binary(version="1.7.24", component="containerd"),
    }
    unit = Unit(load="loaded", exec_start=packaged)
    assert upgrades.running_containerd(nodes.bare(binaries=both, units={"containerd": unit})) == "1.7.24"
    assert upgrades.running_containerd(nodes.bare(binaries=both, units={})) == "2.1.9"
    assert upgrades.running_containerd(nodes.bare()) == ""
