"""The check on a node and the plan of a controller go by the same values: what the one finds, the other would mend."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests import nodes
from tests.conftest import unavailable
from tests.unit.check_place import Place
from userns import changes, paths
from userns.node import ConfLine, Node, Overlay, Unit
from userns.planning import Plan

LIMIT = "user.max_user_namespaces"
RANGE = (65536, 65536 * 200)
SYSCTL_FILE = nodes.file_state("an earlier one")
PRINTED = (f"0: kubelet {RANGE[0]} {RANGE[1]}",)
# Where both look at the same thing, by the same name.
SHARED = {
    "overlay-missing",
    "containerd-masked",
    "kernel-lacks-user-namespaces",
    "getsubids-missing",
    "kernel-shared",
}
ALLOW: list[list[str]] = [[], [], *([id] for id in sorted(SHARED - {"kernel-shared"})), sorted(SHARED)]

running = Unit(load="loaded", active="active", enabled="enabled")
units = st.sampled_from(
    [
        running,
        running,
        running.model_copy(update={"enabled": "disabled"}),
        running.model_copy(update={"active": "failed"}),
        Unit(load="masked", active="active", enabled="masked"),
        Unit(load="masked", active="inactive", enabled="masked"),
        running.model_copy(update={"enabled": "masked-runtime", "load": "masked"}),
    ]
)
overlays = st.builds(
    Overlay, state=st.sampled_from(["loaded", "builtin"]), metacopy=st.sampled_from(["Y", "N", ""])
) | st.builds(Overlay, state=st.sampled_from(["module", "absent", "unknown"]))
figures = st.sampled_from([0, 50, 109, 110, 5000, 16383, 16384, 20000, 60000, 63999, 64000])


@st.composite
def live_nodes(draw: st.DrawFn) -> Node:
    """A node that one deploy after another has been to, and what its kernel and systemd say now."""
    earlier = draw(st.none() | figures)
    file = draw(st.sampled_from([paths.SYSCTL, "/etc/sysctl.d/99-theirs.conf"]))
    lines = () if earlier is None else (ConfLine(file=file, line=f"{LIMIT} = {earlier}"),)
    files = nodes.bare().files | ({paths.SYSCTL: SYSCTL_FILE} if lines and file == paths.SYSCTL else {})
    container = draw(st.sampled_from(["none", "none", "lxc"]))
    overlay = draw(overlays)
    if container != "none" and overlay.state == "absent":  # never read: a container need not see its host's modules
        overlay = Overlay(state="unknown")
    kubelet = {"subuid": draw(st.sampled_from([PRINTED, PRINTED, (*PRINTED, "1: kubelet 100000 65536"), ()]))}
    return nodes.bare(
        container=container,
        overlay=overlay,
        sysctls=draw(st.just({}) | figures.map(lambda figure: {LIMIT: figure})),
        sysctl_lines=lines,
        files=files,
        units={"containerd": draw(units)},
        tools=tuple(each for each in nodes.TOOLS.split() if each != "getsubids" or draw(st.booleans())),
        kubelet_user=nodes.KUBELET_UID,
        getsubids=kubelet | {"subgid": draw(st.sampled_from([kubelet["subuid"], PRINTED]))},
    )


some_settings = st.fixed_dictionaries(
    {
        "overlay_metacopy": st.sampled_from(["auto", True, False]),
        "snapshotter": st.sampled_from(["overlayfs", "native"]),
        "max_pods": st.sampled_from([110, 1000]),
        "kubelet_id_range": st.sampled_from([None, (65536, 65536 * 1000), (65536, 65536 * 1000)]),
        "allow": st.sampled_from(ALLOW),
    }
)


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Place:
    if os.geteuid() != 0:
        unavailable("only root is told what the kernel says")
    return Place(tmp_path_factory.mktemp("check"))


def text_of(made: Plan) -> str:
    """The check that a plan installs."""
    (text,) = [
        each.content for each in made.changes if isinstance(each, changes.WriteFile) and each.path == paths.CHECK
    ]
    return text


def checked(here: Place, node: Node, made: Plan) -> dict[str, str]:
    """What the check of this plan finds on this node: ids with severities."""
    text = text_of(made)
    here.be(node)
    with here.live(node):
        told = json.loads(here.run(text).stdout)
    return {each["id"]: each["severity"] for each in told["findings"]}


def would_set(made: Plan, kind: type) -> bool:
    """Whether a deploy would set such a value of the running kernel."""
    return any(isinstance(each, kind) for each in made.changes)


# Not made smaller where it fails: each try is a run of the check.
@settings(
    max_examples=60, phases=[Phase.explicit, Phase.reuse, Phase.generate], suppress_health_check=list(HealthCheck)
)
@given(live_nodes(), some_settings)
def test_the_check_finds_what_a_deploy_would_mend_or_refuse(here: Place, node: Node, wanted: dict[str, Any]) -> None:
    made = nodes.plan(node, **wanted)
    found = checked(here, node, made)
    planned = {each.id: each.severity for each in made.findings}
    # In a container a deploy raises nothing, and refuses what its host has to raise.
    low = would_set(made, changes.SetSysctl) or "max-user-namespaces-too-low" in planned
    assert any(id.startswith("max-user-namespaces-") for id in found) is low
    assert (
        found.get("max-user-namespaces-too-low") == planned.get("max-user-namespaces-too-low")
        or node.container == "none"
    )
    assert ("metacopy-not-set" in found) is would_set(made, changes.SetMetacopy)
    # A range that is not ours is not looked after.
    shared = SHARED if wanted["kubelet_id_range"] else SHARED - {"getsubids-missing"}
    assert {id: found[id] for id in found.keys() & shared} == {id: planned[id] for id in planned.keys() & shared}
    restarts = [each for each in made.changes if isinstance(each, changes.RestartService)]
    assert ("containerd-not-running" in found) is any(each.why.startswith("it is ") for each in restarts)
    enables = [each for each in made.changes if isinstance(each, changes.EnableService)]
    enabling = any(each.unit == "containerd.service" for each in enables)
    assert bool({"containerd-not-enabled", "containerd-masked"} & found.keys()) is enabling


# --- one by one ----------------------------------------------------------------------------------------------------

READY: dict[str, Any] = {
    "overlay": Overlay(state="loaded", metacopy="Y"),
    "units": {"containerd": running},
    "kubelet_user": nodes.KUBELET_UID,
    "getsubids": {"subuid": PRINTED, "subgid": PRINTED},
}


def finds(here: Place, changed: dict[str, Any], **wanted: Any) -> dict[str, str]:
    """What a check that was rendered on a good node finds on a changed one."""
    good = nodes.bare(**READY)
    made = nodes.plan(good, **wanted)
    text = text_of(made)
    node = good.model_copy(update=changed)
    here.be(node)
    with here.live(node):
        told = json.loads(here.run(text).stdout)
    return {each["id"]: each["severity"] for each in told["findings"] if each["id"] != "record-missing"}


def test_a_good_node_is_told_nothing_of(here: Place) -> None:
    assert finds(here, {}, kubelet_id_range=RANGE) == {}


def test_what_the_settings_allow_is_no_blocker_here_either(here: Place) -> None:
    absent = {"overlay": Overlay(state="absent")}
    assert finds(here, absent)["overlay-missing"] == "blocker"
    assert finds(here, absent, allow=["overlay-missing"])["overlay-missing"] == "warning"


def test_another_snapshotter_needs_no_overlay(here: Place) -> None:
    assert "overlay-missing" not in finds(here, {"overlay": Overlay(state="absent")}, snapshotter="native")


def test_the_figure_of_an_earlier_deploy_is_what_counts(here: Place) -> None:
    lines = (ConfLine(file=paths.SYSCTL, line=f"{LIMIT} = 60000"),)
    node = nodes.bare(**READY, sysctl_lines=lines, files=nodes.bare().files | {paths.SYSCTL: SYSCTL_FILE})
    live = node.model_copy(update={"sysctls": {LIMIT: 20000}})
    assert checked(here, live, nodes.plan(node)) == {
        "max-user-namespaces-low": "warning",
        "record-missing": "warning",
    }


def test_a_figure_that_is_raised_is_what_the_next_deploy_will_want(here: Place) -> None:
    node = nodes.bare(**READY, sysctl_lines=(ConfLine(file="/etc/sysctl.d/99-theirs.conf", line=f"{LIMIT} = 60000"),))
    low = node.model_copy(update={"sysctls": {LIMIT: 5000}})
    first = nodes.plan(low)
    after = nodes.done(low, first)
    assert nodes.plan(after).changes == ()
    assert checked(here, after.model_copy(update={"sysctls": {LIMIT: 20000}}), first)["max-user-namespaces-low"]


def test_metacopy_that_came_back_on_is_told(here: Place) -> None:
    off = nodes.bare(**READY | {"overlay": Overlay(state="loaded", metacopy="N")})
    on = off.model_copy(update={"overlay": Overlay(state="loaded", metacopy="Y")})
    assert "metacopy-not-set" not in checked(here, off, nodes.plan(off, overlay_metacopy=False))
    assert checked(here, on, nodes.plan(off, overlay_metacopy=False))["metacopy-not-set"] == "warning"


TWICE = (*PRINTED, "1: kubelet 100000 65536")


@pytest.mark.parametrize(
    ("subuid", "subgid"),
    [(TWICE, TWICE), (TWICE, PRINTED), (PRINTED, TWICE), ((), ()), (PRINTED, ("0: kubelet 131072 65536",))],
)
def test_a_range_that_stops_the_kubelet_is_told(here: Place, subuid: tuple[str, ...], subgid: tuple[str, ...]) -> None:
    changed = {"getsubids": {"subuid": subuid, "subgid": subgid}}
    assert finds(here, changed, kubelet_id_range=RANGE) == {"kubelet-id-range-invalid": "blocker"}
    assert finds(here, changed) == {}, "whoever wrote another range than ours may look after it"


@pytest.mark.parametrize(
    ("uid", "gid", "lost"),
    [
        ("0 0 4294967295", "0 0 4294967295", False),
        ("0 100000 65536", "0 0 4294967295", True),
        ("0 0 4294967295", "0 100000 131072", True),
        (f"65536 9000000 {RANGE[1]}\n0 100000 65536", f"0 100000 {sum(RANGE)}", False),
        (f"100000 9000000 {RANGE[1]}\n0 100000 100000", f"0 100000 {sum(RANGE) - 1}", True),
    ],
)
def test_a_container_that_lost_ids_of_the_range_is_told_as_a_deploy_would(
    here: Place, uid: str, gid: str, lost: bool
) -> None:
    own = {"uid": uid, "gid": gid}
    for name, text in own.items():
        (here.root / f"{name}_map").write_text(f"{text}\n")
    parts = {
        name: tuple((int(a), int(c)) for a, _, c in map(str.split, text.split("\n"))) for name, text in own.items()
    }
    good = nodes.bare(**READY)
    refuses = {
        each.id for each in nodes.plan(good.model_copy(update={"own_ids": parts}), kubelet_id_range=RANGE).blockers
    }
    text = text_of(nodes.plan(good, kubelet_id_range=RANGE))
    assert text.count('"/proc/self/${name}_map"') == 1
    here.be(good)
    with here.live(good):
        said = here.run(text.replace('"/proc/self/${name}_map"', f'"{here.root}/${{name}}_map"'))
    found = {each["id"] for each in json.loads(said.stdout)["findings"] if each["severity"] == "blocker"}
    assert found == refuses == ({"kubelet-id-range-not-mapped"} if lost else set())


def test_a_kubelet_that_asks_for_no_range_is_not_stopped_by_one(here: Place) -> None:
    changed = {"getsubids": {"subuid": TWICE, "subgid": TWICE}}
    assert finds(here, changed, kubelet_id_range=RANGE, kubernetes_version="1.29") == {}


def test_an_accepted_warning_is_no_news(here: Place) -> None:
    node = nodes.bare(**READY | {"tools": tuple(each for each in nodes.TOOLS.split() if each != "getsubids")})
    made = nodes.plan(node, kubelet_id_range=RANGE, allow=["getsubids-missing"])
    text = text_of(made)
    here.be(node)
    with here.live(node):
        told = json.loads(here.run(text).stdout)
    known = {each["id"]: each["known"] for each in told["findings"]}
    assert known == {"getsubids-missing": True, "record-missing": False}
