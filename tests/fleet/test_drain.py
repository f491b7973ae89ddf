"""Around a change that disturbs pods: the operator's own kubectl, or hooks; and around any other change, nothing."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fleet.drain import Hooks, Kubectl, blocked_pods, matches
from tests import nodes
from tests.deploy.fleet import CHANGE, READ, Fleet
from tests.fleet.kubernetes import Cluster, with_pods
from tests.fleet.rollouts import Nodes
from tests.fleet.runs import fleet_py, interrupted

# To an older branch of containerd: that disturbs pods. From it to a newer one: that does not.
AGREED = ("--no-drain",)
OLDER: dict[str, Any] = {"containerd_version": "2.2.7"}


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with with_pods(tmp_path) as made:
        yield made


def kubectl(cluster: Cluster, seconds: int = 20) -> Kubectl:
    return Kubectl(cluster.kubectl, seconds=seconds)


def test_a_node_is_drained_and_given_back(cluster: Cluster) -> None:
    said: list[str] = []
    guard = kubectl(cluster)
    assert guard.before({"host1": "n1"}, said.append) == {}
    assert (cluster.log, cluster.cordoned(), list(cluster.pods)) == (["cordon n1", "evict web-n1"], ["n1"], ["web-n2"])
    assert guard.after({"host1": "n1"}, said.append) == {}
    assert cluster.cordoned() == []
    assert said == ["draining n1", "uncordoning n1"]


def test_a_budget_that_keeps_a_pod_is_named_and_the_node_is_uncordoned(cluster: Cluster) -> None:
    cluster.kept.add("web-n1")
    cluster.add_budget("web-must-run", app="web")
    cluster.add_budget("another", app="database")
    failed = kubectl(cluster, seconds=10).before({"host1": "n1", "host2": "n2"}, lambda _: None)
    assert list(failed) == ["host1"]
    assert "PodDisruptionBudget shop/web-must-run keeps pod shop/web-n1" in failed["host1"]
    assert "another" not in failed["host1"]
    assert failed["host1"].endswith("It was uncordoned again")
    assert cluster.cordoned() == ["n2"]


def test_a_node_that_somebody_had_cordoned_stays_so(cluster: Cluster) -> None:
    cluster.nodes["n1"]["spec"] = {"unschedulable": True}
    cluster.kept.add("web-n1")
    failed = kubectl(cluster, seconds=10).before({"host1": "n1"}, lambda _: None)
    assert "It was cordoned before, and is still" in failed["host1"]
    assert cluster.cordoned() == ["n1"]


def test_a_node_that_kubernetes_does_not_know_is_told_of(cluster: Cluster) -> None:
    failed = kubectl(cluster).before({"host1": "n9"}, lambda _: None)
    assert "kubectl get node n9 failed" in failed["host1"]


def test_a_drain_that_fails_at_once_is_not_told_as_one_that_took_too_long(cluster: Cluster) -> None:
    guard = Kubectl(cluster.kubectl, ("--no-such-option",))
    why = guard.before({"host1": "n1"}, lambda _: None)["host1"]
    assert why.startswith("n1 could not be drained: error: unknown flag: --no-such-option")


def test_no_kubectl_is_told_of() -> None:
    failed = Kubectl("no-such-kubectl").before({"host1": "n1"}, lambda _: None)
    assert "there is no program no-such-kubectl" in failed["host1"]


def test_hooks_get_the_names_and_their_failure_is_told(tmp_path: Path) -> None:
    hooks = Hooks(f'echo "$NODE $HOST" >> {tmp_path}/log', "echo no >&2; exit 3")
    assert hooks.before({"host1": "n1", "host2": "n2"}, lambda _: None) == {}
    assert (tmp_path / "log").read_text() == "n1 host1\nn2 host2\n"
    assert hooks.after({"host1": "n1"}, lambda _: None) == {"host1": "the --after command failed: no"}
    assert Hooks("sleep 60", seconds=0.2).before({"h": "n"}, lambda _: None) == {
        "h": "the --before command failed: no end within 0 s"
    }


# kubectl 1.20 to 1.36 say it so.
SAID = (
    'error when evicting pods/"web-1" -n "shop" (will retry after 5s): Cannot evict pod as it would violate the pod\'s'
)


def test_the_pods_that_a_budget_keeps_are_read_from_kubectl() -> None:
    assert blocked_pods(f"evicting pod shop/web-1\n{SAID} pod's\n{SAID} pod's") == [("shop", "web-1")]


BUDGET = '{"items": [{"metadata": {"name": "b"}, "spec": {"selector": {"matchLabels": {"app": "web"}}}}]}'


@pytest.mark.parametrize(
    ("budgets", "pod", "told"),
    [
        (BUDGET, '{"metadata": {"labels": {"app": "web"}}}', "PodDisruptionBudget shop/b keeps pod shop/web-1"),
        (BUDGET, "[]", "a budget keeps pod shop/web-1"),
        (BUDGET, '{"metadata": null}', "a budget keeps pod shop/web-1"),
        (BUDGET, '{"metadata": {"labels": null}}', "a budget keeps pod shop/web-1"),
        ('{"items": null}', "{}", "a budget keeps pod shop/web-1"),
        ("null", "{}", "a budget keeps pod shop/web-1"),
        ('{"items": ["b"]}', "{}", SAID),
        ('{"items": 5}', "{}", SAID),
    ],
)
def test_whatever_kubectl_prints_of_a_budget_the_node_is_uncordoned(
    monkeypatch: pytest.MonkeyPatch, budgets: str, pod: str, told: str
) -> None:
    asked = list[str]()

    def kubectl(_: Kubectl, *arguments: str, seconds: float = 0) -> tuple[str, str]:
        verb = " ".join(arguments[: 2 if arguments[0] == "get" else 1])
        asked.append(verb)
        printed = {"get node": '{"spec": {}}', "get poddisruptionbudgets": budgets, "get pod": pod}
        return printed.get(verb, ""), SAID if verb == "drain" else ""

    monkeypatch.setattr(Kubectl, "_kubectl", kubectl)
    failed = Kubectl().before({"host1": "n1"}, lambda _: None)
    assert told in failed["host1"]
    assert failed["host1"].endswith("It was uncordoned again")
    assert asked[-1] == "uncordon"


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        ({"matchLabels": {"app": "web"}}, True),
        ({"matchLabels": {"app": "db"}}, False),
        ({"matchExpressions": [{"key": "app", "operator": "In", "values": ["web", "db"]}]}, True),
        ({"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["web"]}]}, False),
        ({"matchExpressions": [{"key": "tier", "operator": "Exists"}]}, False),
        ({"matchExpressions": [{"key": "tier", "operator": "DoesNotExist"}]}, True),
        ({}, True),
        (None, False),
    ],
)
def test_a_label_selector(selector: dict[str, object] | None, expected: bool) -> None:
    assert matches(selector, {"app": "web"}) is expected


# --- in a rollout -------------------------------------------------------------------------------------------------


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    """Three nodes: one that goes back and is disturbed, one that is brought forward, one that is new."""
    made = Fleet(tmp_path)
    made.add("back", nodes.converged(), kubernetes_node="n1", **OLDER)
    made.add("forth", nodes.converged(**OLDER), kubernetes_node="n2")
    made.add("new", kubernetes_node="n3")
    return made


def test_only_what_is_disturbed_is_drained(fleet: Fleet, cluster: Cluster) -> None:
    run = fleet_py(
        *("apply", fleet.inventory, "-y", "--json", "--max-unavailable", "3", "--drain"),
        *("--kubectl", kubectl(cluster).command),
        home=fleet.directory,
    )
    assert run.code == 0, run.text
    assert cluster.log == ["cordon n1", "evict web-n1", "uncordon n1"]


def test_a_node_that_cannot_be_drained_is_not_changed(fleet: Fleet, cluster: Cluster) -> None:
    cluster.kept.add("web-n1")
    cluster.add_budget("web-must-run", app="web")
    run = fleet_py(
        *("apply", fleet.inventory, "-y", "--json", "--canary", "@fake/new", "--max-unavailable", "3", "--drain"),
        *("--drain-timeout", "2", "--kubectl", kubectl(cluster).command),
        home=fleet.directory,
    )
    assert run.code == 1
    back = run.json["nodes"]["@fake/back"]
    assert back["status"] == "failed"
    assert (
        "nothing was changed: n1 could not be drained within 2 s: PodDisruptionBudget shop/web-must-run"
        in (back["reasons"][0])
    )
    assert run.json["nodes"]["@fake/forth"]["status"] == "changed"
    assert cluster.cordoned() == []


def test_a_node_whose_change_failed_stays_cordoned(fleet: Fleet, cluster: Cluster) -> None:
    fleet.hosts["nodes"][0][1]["fake_responses"][CHANGE] = {"success": False}
    run = fleet_py(
        *("apply", fleet.inventory, "-y", "--json", "--drain", "--kubectl", kubectl(cluster).command),
        home=fleet.directory,
    )
    back = run.json["nodes"]["@fake/back"]
    assert (back["status"], back["drained"]) == ("failed", True)
    assert "its pods were moved away, and it may be cordoned still: kubectl" in back["reasons"][-1]
    assert back["reasons"][-1].endswith("kubectl uncordon n1 (as --kubectl had it)")
    assert cluster.cordoned() == ["n1"]

    # The next run goes on from there: it is cordoned by us, and has its pods back when it is well.
    del fleet.hosts["nodes"][0][1]["fake_responses"][CHANGE]
    fleet.add("back2", nodes.converged())
    again = fleet_py(
        *("apply", fleet.inventory, "-y", "--json", "--drain", "--resume", "--kubectl", kubectl(cluster).command),
        home=fleet.directory,
    )
    assert again.code == 0, again.text
    assert again.json["nodes"]["@fake/back"]["drained"] is False
    assert cluster.cordoned() == []


def test_a_node_that_somebody_had_cordoned_is_not_uncordoned_after_its_change(fleet: Fleet, cluster: Cluster) -> None:
    cluster.nodes["n1"]["spec"] = {"unschedulable": True}
    run = fleet_py(
        *("apply", fleet.inventory, "-y", "--json", "--drain", "--kubectl", kubectl(cluster).command),
        home=fleet.directory,
    )
    assert run.code == 0, run.text
    assert "n1 was cordoned before, and stays so" in run.stderr
    assert cluster.cordoned() == ["n1"]


def test_a_node_that_needs_no_change_any_more_gets_its_pods_back(fleet: Fleet, cluster: Cluster) -> None:
    """The unit on the node finishes a change that its run has left."""
    fleet.hosts["nodes"][0][1]["fake_responses"][CHANGE] = {"success": False}
    command = ("apply", fleet.inventory, "-y", "--json")
    drain = ("--drain", "--kubectl", kubectl(cluster).command)
    assert fleet_py(*command, *drain, home=fleet.directory).code == 1
    finished = Fleet(fleet.directory)
    finished.add("back", nodes.converged(**OLDER), kubernetes_node="n1", **OLDER)
    assert finished.inventory == command[1]  # it is written anew
    left = fleet_py(*command, "--no-drain", "--resume", home=fleet.directory)
    assert left.code == 1, left.text  # it is ready, and cordoned
    assert left.json["nodes"]["@fake/back"]["status"] == "ready"
    assert "@fake/back: run 1 was to let its pods back, and did not: look whether it is cordoned" in left.stderr
    assert cluster.cordoned() == ["n1"]
    again = fleet_py(*command, *drain, home=fleet.directory)
    assert again.code == 0, again.text
    assert cluster.cordoned() == []


def test_whoever_leaves_does_not_wait_for_kubectl(fleet: Fleet, cluster: Cluster) -> None:
    """The drain is ended with all that it began, and the node that it has cordoned is told of."""
    patient = fleet.directory / "kubectl"
    real = kubectl(cluster).command
    waiting = f'[ "$1" != drain ] || {{ sleep 600 & echo $! >{patient}.pid; wait; }}'
    patient.write_text(f'#!/bin/sh\n{real} "$@" && {waiting}\n')
    patient.chmod(0o755)
    began = time.monotonic()
    run = interrupted(
        *("apply", fleet.inventory, "-y", "--json", "--drain", "--kubectl", patient),
        home=fleet.directory,
        after="draining n1",
        signals=(signal.SIGINT, signal.SIGINT),
    )
    assert time.monotonic() - began < 60
    assert (run.code, run.json["outcome"]) == (130, "interrupted: nodes were left in flight")
    back = run.json["nodes"]["@fake/back"]
    assert (back["status"], back["drained"]) == ("unknown", True)
    assert back["reasons"][-1].endswith("kubectl uncordon n1 (as --kubectl had it)")
    assert "uncordoning" not in run.stderr
    sleeping = Path("/proc", Path(f"{patient}.pid").read_text().strip(), "cmdline")
    assert not sleeping.exists() or not sleeping.read_text()  # a process that nobody has waited for yet has none


def test_a_signal_that_does_not_wake_who_waits_for_a_drain_is_heard_all_the_same() -> None:
    """One that comes right before the wait, or to another thread."""
    arrived, heard = threading.Event(), list[bool]()

    def draining(verb: str, _node: str) -> None:
        if verb == "drain":
            time.sleep(0.5)  # until the main thread waits
            signal.pthread_kill(threading.get_ident(), signal.SIGINT)
            heard.append(arrived.wait(10))

    before = signal.signal(signal.SIGINT, lambda *_: arrived.set())
    try:
        Nodes(hook=draining).before({"host": "n1"}, lambda _: None)
    finally:
        signal.signal(signal.SIGINT, before)
    assert heard == [True]


def test_where_pods_would_be_disturbed_somebody_has_to_decide(fleet: Fleet) -> None:
    run = fleet_py("apply", fleet.inventory, "-y", home=fleet.directory)
    assert run.code == 1
    assert "the pods of @fake/back would be disturbed (containerd goes back from 2.3.4 to 2.2.7" in run.stderr
    assert "wave" not in run.stderr
    assert "What disturbs a node's pods" in run.stdout
    assert fleet_py("apply", fleet.inventory, "-y", "--no-drain", home=fleet.directory).code == 0


@pytest.mark.parametrize("drain", [(), ("--before", "false"), AGREED, (*AGREED, "--scheduler", "local")], ids=" ".join)
def test_a_change_that_disturbs_by_now_is_not_made_where_nobody_was_asked(
    tmp_path: Path, drain: tuple[str, ...]
) -> None:
    """Between the plan and the wave somebody has installed a newer containerd, and started it."""
    made = Fleet(tmp_path)
    made.add("n1", nodes.bare(), **OLDER)
    by_now, planned = nodes.answer(nodes.converged()), tmp_path / "planned"
    # Loaded by each process: the plan's first.
    (tmp_path / "hosts.py").write_text(
        f"{made.inventory.read_text().replace('__file__', repr(str(made.inventory)))}\n"
        f"if Path({str(planned)!r}).exists():\n    nodes[0][0][1]['fake_responses'][{READ!r}] = {by_now!r}\n"
        f"Path({str(planned)!r}).touch()\n"
    )
    run = fleet_py("apply", tmp_path / "hosts.py", "-y", "--json", *drain, home=tmp_path)
    n1 = run.json["nodes"]["@fake/n1"]
    assert "containerd goes back from 2.3.4 to 2.2.7" in n1["disrupts"][0]
    if drain[:1] == AGREED:
        assert (run.code, n1["status"]) == (0, "changed")
        return
    assert (run.code, n1["status"], n1["drained"]) == (1, "failed", False)
    assert n1["reasons"][-1].startswith("nothing was changed: it would now disturb pods (containerd goes back")
    assert "--drain" in n1["reasons"][-1]
    assert "runc: proven" not in run.text


def test_hooks_take_the_place_of_kubectl(fleet: Fleet) -> None:
    log = fleet.directory / "log"
    run = fleet_py(
        *("apply", fleet.inventory, "-y", "--before", f"echo before $NODE >> {log}", "--after"),
        f"echo after $NODE >> {log}",
        home=fleet.directory,
    )
    assert run.code == 0, run.text
    assert log.read_text() == "before n1\nafter n1\n"
