"""`fleet.py apply`: waves, each proven before the next; what stops it, and how it goes on."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from fleet.apply import apply as roll_out
from fleet.events import Event, HostEvent, InventoryEvent, RecordEvent, Request
from fleet.history import History
from fleet.options import Options
from fleet.records import Record, Status
from tests import nodes
from tests.deploy.fleet import CHANGE, PROVE, READ, Fleet, Run
from tests.fleet.runs import apply, begun, fleet_py, hanging, interrupted, played, seen, statuses

BROKEN = {"answers": {CHANGE: {"success": False, "stderr": "error: containerd did not answer"}}}


def waves(run: Run) -> list[list[str]]:
    return [[name.removeprefix("@fake/") for name in wave["nodes"]] for wave in run.json["waves"]]


def of(run: Run, status: str) -> list[str]:
    return [name.removeprefix("@fake/") for name, each in statuses(run).items() if each == status]


# --- the way it goes ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def rolled_out(tmp_path_factory: pytest.TempPathFactory) -> Run:
    fleet = Fleet(tmp_path_factory.mktemp("apply"))
    for number in range(1, 5):
        fleet.add(f"a{number}", group="a")
    for number in range(1, 4):
        fleet.add(f"b{number}", group="b")
    fleet.add("done", nodes.converged(), group="b")
    fleet.data = {"a": {"max_unavailable": 2}, "b": {"max_unavailable": "50%"}}
    return apply(fleet, "--canary", "b")


def test_a_canary_goes_first_and_then_a_share_of_each_group(rolled_out: Run) -> None:
    assert rolled_out.code == 0, rolled_out.text
    assert waves(rolled_out) == [["b1"], ["a1", "a2", "b2", "b3"], ["a3", "a4"]]
    assert [wave["canary"] for wave in rolled_out.json["waves"]] == [True, False, False]


def test_every_node_is_proven_and_one_with_nothing_to_do_is_left_alone(rolled_out: Run) -> None:
    assert rolled_out.json["outcome"] == "done"
    assert of(rolled_out, "ready") == ["done"]
    changed = [node for node in rolled_out.json["nodes"].values() if node["status"] == "changed"]
    assert len(changed) == 7
    assert all("proven: root is host uid 65536" in node["proof"][0] for node in changed)
    assert {node["versions"]["runc"]["installed"] == node["versions"]["runc"]["wanted"] for node in changed} == {True}


def test_in_a_pipe_there_is_a_line_for_each_wave_and_no_bar(rolled_out: Run) -> None:
    said = [line for line in rolled_out.stderr.splitlines() if line]
    assert said[:2] == ["fleet: wave 1 (canary): @fake/b1", "fleet: wave 1 (canary): 1 changed"]
    assert len(said) == 6
    assert not {"\r", "\x1b", "%"} & set(rolled_out.stderr)


# --- what stops it ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "broken", [BROKEN, {"answers": {PROVE: "nothing that means anything"}}], ids=["change", "proof"]
)
def test_a_canary_that_fails_stops_it(tmp_path: Path, broken: dict[str, Any]) -> None:
    run = apply(played(tmp_path, n1=broken), "--max-unavailable", "100%", "--max-failures", "9")
    assert run.code == 1
    assert run.json["outcome"] == "stopped: the canary failed: @fake/n1"
    assert (of(run, "failed"), of(run, "waiting")) == (["n1"], ["n2", "n3", "n4"])
    assert run.json["nodes"]["@fake/n1"]["reasons"]


def test_why_a_node_failed_is_what_it_said(tmp_path: Path) -> None:
    """And nothing of what was planned, which goes on in lines of its own: what a kubelet's configuration needs."""
    run = apply(played(tmp_path, 1, n1=BROKEN | {"kubernetes_version": "1.32"}), "--verbose")
    assert "featureGates:" in run.stderr
    assert run.json["nodes"]["@fake/n1"]["reasons"] == ["error: containerd did not answer"]


def test_the_failure_budget_and_how_it_goes_on(tmp_path: Path) -> None:
    broken = played(tmp_path / "fleet", 6, n2=BROKEN)
    run = apply(broken, "--max-unavailable", "2")
    assert run.code == 1
    assert waves(run) == [["n1"], ["n2", "n3"]]
    assert run.json["outcome"] == "stopped: 1 node failed (@fake/n2); --max-failures allows 0"
    assert of(run, "waiting") == ["n4", "n5", "n6"]

    # The operator repairs it. The nodes that are done with are not even read: they could not be.
    unreadable = {"answers": {READ: {"success": False}}}
    repaired = played(tmp_path / "fleet", 6, n1=unreadable, n3=unreadable)
    other = apply(repaired, "--limit", "n2", "--resume")
    assert (other.code, other.stdout) == (1, "")
    assert "run 1 was begun with the whole inventory, and this command has --limit n2: give the same" in other.stderr
    again = apply(repaired, "--max-unavailable", "2", "--resume")
    assert again.code == 0, again.text
    assert waves(again) == [["n2", "n4"], ["n5", "n6"]]
    assert of(again, "changed") == ["n1", "n2", "n3", "n4", "n5", "n6"]

    third = apply(repaired, "--resume")
    assert third.code == 1
    assert "nothing to resume: run 2, the last apply over" in third.stderr


def test_what_a_run_left_out_is_left_out_when_it_is_resumed(tmp_path: Path) -> None:
    chosen = ("--exclude", "@fake/n4", "--data", "max_pods=50")
    run = apply(played(tmp_path, n2=BROKEN), *chosen, "--max-unavailable", "2", "--max-failures", "0")
    assert of(run, "waiting") == []
    assert of(run, "failed") == ["n2"]
    for options in ((), ("--exclude", "@fake/n4"), ("--data", "max_pods=50")):
        other = apply(played(tmp_path), *options, "--resume")
        assert (other.code, other.stdout) == (1, "")
        assert "begun with --exclude @fake/n4 --data max_pods, and this command has" in other.stderr
    other = apply(played(tmp_path), "--exclude", "@fake/n4", "--data", "max_pods=60", "--resume")
    assert "run 1 was begun with other values of --data" in other.stderr
    assert "seal" not in fleet_py("history", "--json", home=tmp_path).stdout
    again = apply(played(tmp_path), *chosen, "--exclude", "@fake/n3", "--resume")
    assert (again.code, waves(again)) == (0, [["n2"]])
    assert "run 1 had --max-unavailable 2, and this one has the default" in again.stderr


def test_the_order_of_limits_is_no_difference(tmp_path: Path) -> None:
    limits = ("--limit", "@fake/n1", "--limit", "@fake/n2")
    assert apply(played(tmp_path, n1=BROKEN), *limits).code == 1
    assert apply(played(tmp_path), "--resume", *limits[2:], *limits[:2]).code == 0


def test_a_canary_that_failed_goes_alone_again(tmp_path: Path) -> None:
    fleet = played(tmp_path, n1=BROKEN)
    fleet.add("done", nodes.converged())
    assert apply(fleet, "--max-unavailable", "100%").json["outcome"] == "stopped: the canary failed: @fake/n1"
    repaired = played(tmp_path)
    repaired.add("done", nodes.converged())
    again = apply(repaired, "--max-unavailable", "100%", "--resume")
    assert waves(again) == [["n1"], ["n2", "n3", "n4"]]


def test_after_a_change_of_the_settings_a_resumed_run_reads_every_node_again(tmp_path: Path) -> None:
    fleet = played(tmp_path, 2, n1=BROKEN)
    assert apply(fleet).code == 1
    data = tmp_path / "group_data"
    data.mkdir()
    (data / "all.py").write_text("max_pods = 50\n")
    run = apply(fleet, "--resume")
    assert "another inventory or other code: every node is read again" in run.stderr
    assert waves(run) == [["n1"]]


def test_a_budget_lets_it_go_on_past_failures(tmp_path: Path) -> None:
    run = apply(played(tmp_path, n2=BROKEN), "--max-unavailable", "3", "--max-failures", "1")
    assert run.code == 1
    assert run.json["outcome"] == "done"
    assert (of(run, "failed"), of(run, "changed")) == (["n2"], ["n1", "n3", "n4"])


def test_a_node_that_is_gone_counts_as_unavailable(tmp_path: Path) -> None:
    fleet = played(tmp_path, 2)
    fleet.add_unreachable("gone")
    run = apply(fleet, "--max-unavailable", "1")
    assert run.code == 1
    assert "nodes has 1 unavailable (gone) and may have 1" in run.json["outcome"]
    assert run.json["waves"] == []
    assert apply(fleet, "--max-unavailable", "1", "--exclude", "gone").code == 0


def test_a_node_that_cannot_be_read_counts_as_unavailable(tmp_path: Path) -> None:
    run = apply(played(tmp_path, n2={"answers": {READ: "nothing that means anything"}}), "--max-unavailable", "1")
    assert (of(run, "failed"), run.json["waves"]) == (["n2"], [])
    assert "nodes has 1 unavailable (@fake/n2) and may have 1" in run.json["outcome"]


def test_refused_nodes_are_told_of_and_stop_nobody(tmp_path: Path) -> None:
    run = apply(played(tmp_path, 2, n2={"max_pods": "many"}))
    assert (run.code, run.json["outcome"]) == (1, "done")
    assert (of(run, "refused"), of(run, "changed")) == (["n2"], ["n1"])


def test_nobody_there_to_agree_changes_nothing(tmp_path: Path) -> None:
    fleet = played(tmp_path, 1)
    run = fleet_py("apply", fleet.inventory, home=tmp_path)
    assert run.code == 1
    assert "pass -y" in run.stderr
    assert "wave" not in run.stderr


def test_a_canary_that_is_ready_already_has_passed(tmp_path: Path) -> None:
    fleet = played(tmp_path, 2)
    fleet.add("done", nodes.converged())
    run = apply(fleet, "--canary", "@fake/done", "--max-unavailable", "2")
    assert (run.code, run.json["outcome"]) == (0, "done")
    assert "the canary @fake/done is ready already" in run.stderr
    assert [(wave["canary"], len(wave["nodes"])) for wave in run.json["waves"]] == [(False, 2)]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--max-unavailable", "none"], "max_unavailable of nodes: 'none' is no number of nodes"),
        (["--canary", "n9"], "--canary n9: no node of this run has this name"),
        (["--limit", "n9"], "--limit n9: no group or host of this name"),
        (["--max-failures", "-1"], "'-1' is not a number"),
        (["--drain", "--before", "true"], "--before and --after take the place of --drain"),
        (["--drain", "--kubectl", "kubectl --context 'a"], "is not a command (No closing quotation)"),
        (["--drain", "--kubectl", " "], "' ' names no program"),
        (["--drain", "--kubectl", "'' get"], "names no program"),
        (["--drain-argument=--force"], "--kubectl and --drain-argument say how to drain: give --drain too"),
        (["--before", "true", "--drain-argument=--force"], "say how to drain: --before and --after take its place"),
        (["--after", "true", "--kubectl", "kubectl --context a"], "say how to drain: --before and --after take its"),
        (["--no-drain", "--kubectl", "kubectl --context a"], "say how to drain: --no-drain does not"),
    ],
    ids=str,
)
def test_mistakes_are_1_and_change_nothing(tmp_path: Path, options: list[str], said: str) -> None:
    run = apply(played(tmp_path, 1), *options)
    assert (run.code, run.stdout) == (1, "")
    assert said in run.stderr


# --- ends in the middle -------------------------------------------------------------------------------------------


def slow(directory: Path, seconds: float) -> Fleet:
    """A canary, and then nodes that take long."""
    fleet = played(directory, 4)
    for _, data in fleet.hosts["nodes"][1:]:
        data["fake_delay"] = seconds
    return fleet


def test_ctrl_c_finishes_the_nodes_in_flight_and_reports(tmp_path: Path) -> None:
    fleet = slow(tmp_path, 0.5)
    run = interrupted(
        "apply", fleet.inventory, "-y", "--json", "--max-unavailable", "2", home=tmp_path, after="wave 2: @fake"
    )
    assert run.code == 130
    assert run.json["outcome"] == "interrupted: the nodes in flight were finished"
    assert (of(run, "changed"), of(run, "waiting")) == (["n1", "n2", "n3"], ["n4"])
    assert apply(slow(tmp_path, 0), "--resume").code == 0


@contextmanager
def second_wave(directory: Path) -> Iterator[tuple[Fleet, subprocess.Popen[str]]]:
    """A rollout of four nodes whose second wave, of the second and the third, is in flight."""
    fleet = slow(directory, 0.5)
    # Whoever runs the tests may have made them deaf to a hang-up, as nohup does.
    hears = ("env", "--default-signal=HUP")
    rollout = ("apply", fleet.inventory, "-y", "--max-unavailable", "2")
    with begun(*rollout, home=directory, after="wave 2: @fake", before=hears) as (process, _):
        yield fleet, process


def stopped_after_it(fleet: Fleet, outcome: str) -> None:
    told = seen(fleet, "show", "1")
    assert told["outcome"] == outcome
    assert [each["status"] for each in told["nodes"].values()] == ["changed", "changed", "changed", "waiting"]


@pytest.mark.parametrize("times", [1, 3])
def test_where_the_terminal_hangs_up_the_nodes_in_flight_are_finished(tmp_path: Path, times: int) -> None:
    with second_wave(tmp_path) as (fleet, process):
        assert process.stderr
        process.stderr.close()  # whatever it says now, nobody hears
        for _ in range(times):
            process.send_signal(signal.SIGHUP)
            time.sleep(0.2)
        assert process.wait(timeout=60) == 130
    stopped_after_it(fleet, "interrupted: the nodes in flight were finished")


def test_a_change_of_the_settings_in_the_middle_stops_it(tmp_path: Path) -> None:
    """The canary has not proven these, and nobody was shown them."""
    with second_wave(tmp_path) as (fleet, process):
        (tmp_path / "group_data").mkdir()
        (tmp_path / "group_data/all.py").write_text("max_pods = 50\n")
        assert process.wait(timeout=60) == 1
    stopped_after_it(
        fleet, "stopped: the inventory, its data or this checkout changed since the plan: --resume plans anew"
    )


def test_what_breaks_in_the_middle_is_no_run_that_did_not_begin(tmp_path: Path) -> None:
    with second_wave(tmp_path) as (fleet, process):
        kept = fleet.inventory.read_text()
        fleet.inventory.unlink()
        assert process.wait(timeout=60) == 1
    fleet.inventory.write_text(kept)
    (run,) = seen(fleet, "history")
    assert run["outcome"].startswith("stopped: ")
    assert apply(slow(tmp_path, 0), "--resume").code == 0


def test_an_error_that_nobody_foresaw_is_told_with_where_and_no_secret(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The canary is told of; then of a node that nobody knows."""
    names = ("n1", "https://ops:hunter2@n3")

    @contextmanager
    def events_of(request: Request, verbose: bool) -> Iterator[Iterator[Event]]:
        status = Status.CHANGES if request.action == "plan" else Status.CHANGED
        told = names[:1] if request.action == "plan" else names
        inventory = InventoryEvent(hosts=(HostEvent(name="n1", groups=("all",)),), sizes={"all": 1}, data={"all": {}})
        yield iter([inventory, *(RecordEvent(record=Record(name=each, status=status)) for each in told)])

    history = History(tmp_path / "history.db")
    request = Request(action="plan", inventory=str(tmp_path / "hosts.py"))
    assert roll_out(request, Options(yes=True), history, events_of=events_of) == 1
    (run,) = history.runs()
    history.close()
    assert run.outcome == "stopped: KeyError: 'https://<secret 1>@n3'"
    captured = capsys.readouterr()
    assert "Traceback" in captured.err
    assert "in _change" in captured.err
    assert "hunter2" not in captured.out + captured.err


def test_a_second_ctrl_c_leaves(tmp_path: Path) -> None:
    hang = tmp_path / "hang"
    hang.mkdir()
    run = interrupted(
        *("apply", hanging(hang).inventory, "-y", "--json"),
        home=tmp_path,
        after="wave 1 (canary): @fake/n1",
        signals=(signal.SIGINT, signal.SIGINT),
    )
    assert run.code == 130
    assert run.json["outcome"] == "interrupted: nodes were left in flight"
    assert of(run, "unknown") == ["n1"]
    assert "finishes or undoes itself" in run.json["nodes"]["@fake/n1"]["reasons"][0]
