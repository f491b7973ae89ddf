"""A node that we have cordoned is never forgotten, and somebody else's cordon is never lifted."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path

import pytest

from fleet import cli
from fleet.child import CannotRun
from fleet.drain import Guard, Hooks
from fleet.history import History
from fleet.records import Record, Status
from tests.fleet.rollouts import Killed, Nodes, Played, killed


@pytest.fixture
def played(tmp_path: Path) -> Played:
    return Played(tmp_path)


# --- never forgotten ----------------------------------------------------------------------------------------------


def test_a_node_changed_in_a_wave_that_broke_off_is_told_of_and_given_back(
    played: Played, capsys: pytest.CaptureFixture[str]
) -> None:
    played.becomes = {"n3": KeyboardInterrupt()}
    assert played() == 130
    assert played.cordoned == {"n2", "n3"}
    shown = capsys.readouterr().out
    assert "changed:\n  its pods were moved away, and it may be cordoned still: kubectl uncordon n2" in shown
    played.becomes = {}
    assert played(resume=True) == 0
    assert played.cordoned == set()
    assert not any(each.drained or each.reasons for each in played.records().values())


def test_a_killed_controller_forgets_none(played: Played, monkeypatch: pytest.MonkeyPatch) -> None:
    played.becomes = {"n3": Killed()}
    killed(played, monkeypatch)
    assert played.cordoned == {"n2", "n3"}
    played.becomes = {}
    assert played(resume=True) == 0
    assert played.cordoned == set()


def test_ctrl_c_in_an_uncordon_that_hangs_names_the_node(played: Played) -> None:
    def hang(verb: str, node: str) -> None:
        if (verb, node) == ("uncordon", "n2"):
            raise KeyboardInterrupt

    played.hook = hang
    assert played() == 130
    assert played.records()["n2"].drained
    assert "kubectl uncordon n2" in played.records()["n2"].reasons[-1]


def test_what_a_resumed_run_leaves_out_is_ours_for_the_next_one(played: Played) -> None:
    played.becomes = {"n2": Status.FAILED}
    assert played() == 1
    played.becomes = {}
    assert played(resume=True, exclude=("n2",)) == 0
    assert played.cordoned == {"n2"}
    assert played() == 0
    assert played.cordoned == set()


def test_a_run_that_leaves_a_drained_node_out_names_it(played: Played, capsys: pytest.CaptureFixture[str]) -> None:
    played.becomes = {"n2": Status.FAILED}
    assert played() == 1
    for exclude in ((), ("n2",), ("n3", "n2")):
        capsys.readouterr()
        assert played(exclude=exclude, drain=False) == (1 if "n2" not in exclude else 0)
        told = [line for line in capsys.readouterr().err.splitlines() if "run leaves it out" in line]
        assert len(told) == len(exclude[:1])
        # The latest run that had it knows best what became of it.
        assert all("n2: run 2 was to let" in line and "fleet.py show 2 n2" in line for line in told)
    played.becomes = {}
    assert played() == 0  # given back
    capsys.readouterr()
    assert played(exclude=("n2",)) == 0
    assert "leaves it out" not in capsys.readouterr().err


def test_a_plan_names_the_nodes_that_are_cordoned_still_and_ends_with_1(
    played: Played, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is the run that is reported from then on."""
    played.becomes = {"n2": Status.FAILED}
    assert played() == 1
    for played.done, kept in ((set[str](), Status.CHANGES), ({"n1", "n2", "n3"}, Status.READY)):
        capsys.readouterr()
        assert played.plan() == 1
        told = capsys.readouterr()
        assert "fleet: n2: run 1 was to let its pods back, and did not: look whether it" in told.err
        assert "apply with --drain" in told.out.partition("What needs attention")[2]
        assert [name for name, each in played.records().items() if each.drained] == ["n2"]
        assert played.records()["n2"].status is kept
    assert played.plan(exclude=("n2",)) == 0
    assert "n2: run 1 was to let its pods back, and did not, and this run leaves it out" in capsys.readouterr().err
    assert played(drain=False) == 1  # well, and cordoned
    assert played() == 0
    assert played.cordoned == set()
    assert played.plan() == 0


def test_a_drained_node_that_is_gone_from_the_inventory_is_named_once(
    played: Played, capsys: pytest.CaptureFixture[str]
) -> None:
    played.becomes = {"n2": Status.FAILED}
    assert played() == 1
    played.names = ("n1", "n3")
    for times in (1, 0):
        capsys.readouterr()
        assert played() == 0
        assert capsys.readouterr().err.count("n2: run 1 was to let its pods back") == times
    assert played(exclude=("n3",)) == 0
    assert "n2" not in capsys.readouterr().err
    played.names = ("n1", "n2", "n3")  # it is remembered all the same
    played.becomes = {}
    assert played() == 0
    assert played.cordoned == set()


def test_a_resumed_run_that_is_killed_while_it_reads_forgets_nothing(
    played: Played, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    played.becomes = {"n2": Status.FAILED}
    assert played() == 1
    played.reading = Killed()
    killed(played, monkeypatch, resume=True)
    assert played.records()["n2"].drained
    played.reading, played.becomes = None, {}
    assert played(resume=True) == 0
    assert "resuming run 1: 2 nodes are done with" in capsys.readouterr().err
    assert played.cordoned == set()


def test_a_node_whose_turn_did_not_come_is_told_of_and_remembered(
    played: Played, capsys: pytest.CaptureFixture[str]
) -> None:
    played.becomes = {"n2": Status.FAILED, "n3": Status.FAILED}
    assert played() == 1
    capsys.readouterr()
    played.becomes = {"n2": Status.FAILED}
    assert played(resume=True, max_unavailable="1", max_failures=0) == 1
    assert (played.records()["n3"].status, played.records()["n3"].drained) == (Status.WAITING, True)
    assert "kubectl uncordon n3" in capsys.readouterr().out.rpartition("What needs attention")[2]
    played.becomes = {}
    assert played(resume=True) == 0
    assert played.cordoned == set()


@pytest.mark.parametrize("verb", ["get", "drain"])
def test_a_drain_that_failed_leaves_ours_ours(played: Played, verb: str) -> None:
    played.becomes = {"n2": Status.FAILED}
    assert played() == 1
    played.becomes, played.broken = {}, {(verb, "n2")}
    assert played(resume=True) == 1
    assert played.records()["n2"].drained
    assert played.cordoned == {"n2"}
    played.broken = set()
    assert played(resume=True) == 0
    assert played.cordoned == set()


def test_a_drain_that_failed_and_could_not_be_undone_is_ours(played: Played) -> None:
    played.broken = {("drain", "n2"), ("uncordon", "n2")}
    assert played() == 1
    assert played.records()["n2"].drained
    played.broken = set()
    assert played(resume=True) == 0
    assert played.cordoned == set()


def test_a_full_disk_lets_the_wave_end_and_begins_no_other(
    played: Played, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settle = History.settle

    def full(self: History, run: int, record: Record, wave: int) -> None:
        if record.status is Status.CHANGED:
            raise sqlite3.OperationalError("database or disk is full")
        settle(self, run, record, wave)

    monkeypatch.setattr(History, "settle", full)
    assert played(max_unavailable="1") == 1
    captured = capsys.readouterr()
    assert captured.err.count("no other wave is begun") == 1
    assert "cannot be written (database or disk is full)\n3 nodes: 1 changed, 2 waiting" in captured.out
    assert played.cordoned == set()


def test_runs_that_came_to_nothing_push_out_none_that_is_asked_for(
    played: Played, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert played.plan() == 2
    played.becomes = {"n1": Status.FAILED}
    assert played() == 1
    played.reading = CannotRun("no such inventory")
    for run in (played.plan, played) * 2:
        with pytest.raises(CannotRun, match="no such"):
            run()
    played.reading = None
    for _ in range(2):
        with pytest.raises(CannotRun, match="nobody is there to agree"):
            played(yes=False)

    def kill(*_: object, **__: object) -> None:
        raise Killed

    for _ in range(2):  # they have read all nodes, and were to go on with it
        with monkeypatch.context() as asked:
            asked.setattr("fleet.consent.agreed", kill)
            killed(played, asked, resume=True)
    assert {1, 2} <= {*played.prune()}
    played.becomes = {}
    assert played(resume=True) == 0
    assert played.cordoned == set()


# --- never lifted -------------------------------------------------------------------------------------------------


def test_somebody_elses_cordon_is_never_taken_for_ours(played: Played) -> None:
    played.cordoned = {"n2"}
    played.becomes = {"n2": Status.FAILED}
    assert played() == 1
    assert not played.records()["n2"].drained
    assert not any("uncordon" in each for each in played.records()["n2"].reasons)
    played.becomes = {}
    assert played(resume=True) == 0
    assert played.cordoned == {"n2"}


def test_a_run_killed_before_it_asked_kubectl_claims_nothing(played: Played, monkeypatch: pytest.MonkeyPatch) -> None:
    def kill(verb: str, node: str) -> None:
        if (verb, node) == ("get", "n2"):
            raise Killed

    played.cordoned, played.hook = {"n2"}, kill
    killed(played, monkeypatch)
    played.hook = lambda *_: None
    assert played(resume=True) == 0
    assert played.cordoned == {"n2"}


def test_a_cordon_that_was_given_back_is_not_ours_again_once_old_runs_are_forgotten(played: Played) -> None:
    """The run that gave it back is followed by others over the same nodes, in which its turn did not come."""
    played.becomes = {"n2": Status.FAILED}
    assert played() == 1
    played.becomes = {}
    assert played(exclude=("n1",)) == 0
    assert played.cordoned == set()
    played.becomes, played.done = {"n3": Status.FAILED}, set()
    for _ in range(2):
        assert played(exclude=("n1",), canary="n3") == 1
    assert played.prune() == [1, 2, 3, 4]
    played.cordoned.add("n2")  # by somebody else, now
    played.becomes = {}
    assert played() == 0
    assert played.cordoned == {"n2"}


# --- the budget ---------------------------------------------------------------------------------------------------


def test_nodes_that_are_cordoned_still_count_and_may_have_their_turn(
    played: Played, capsys: pytest.CaptureFixture[str]
) -> None:
    played.becomes = {"n3": Status.FAILED}
    assert played() == 1
    played.becomes, played.done = {}, set()
    (played.directory / "hosts.py").write_text("")  # every node is read again, and n3 would come last
    capsys.readouterr()
    assert played(max_unavailable="1", canary="n3") == 0
    said = [line for line in capsys.readouterr().err.splitlines() if ": n" in line and "wave" in line]
    assert said == ["fleet: wave 1 (canary): n3", "fleet: wave 2: n1", "fleet: wave 3: n2"]


# --- around it ----------------------------------------------------------------------------------------------------


def test_inputs_that_change_during_a_drain_give_the_wave_back(
    played: Played, capsys: pytest.CaptureFixture[str]
) -> None:
    def change(verb: str, node: str) -> None:
        if verb == "drain" and node == "n2":
            (played.directory / "hosts.py").write_text("otherwise = 1\n")

    played.hook = change
    assert played() == 1
    assert "stopped: the inventory, its data or this checkout changed since the plan" in capsys.readouterr().out
    assert played.cordoned == set()
    assert played.done == {"n1"}
    assert played.records()["n2"].status is Status.WAITING


def test_a_hook_that_takes_too_long_ends_with_all_that_it_began(tmp_path: Path) -> None:
    hooks = Hooks(f"(sleep 1; touch {tmp_path}/late) & wait", seconds=0.2)
    assert "no end within" in hooks.before({"h": "n"}, lambda _: None)["h"]
    time.sleep(1.5)
    assert not (tmp_path / "late").exists()


def test_a_hook_that_failed_may_have_left_something(played: Played) -> None:
    assert played(guard=Hooks('test "$NODE" != n2', "true")) == 1
    assert "the --before command was run for n2, and --after was not" in played.records()["n2"].reasons[-1]


def test_where_after_stands_alone_nothing_moved_the_pods(played: Played) -> None:
    """But for those of an earlier run."""
    played.becomes = {"n2": Status.FAILED}
    assert played(guard=Hooks("", "true")) == 1
    assert played.records()["n2"].reasons == ("the --after command was not run for n2",)
    assert Hooks("", "true", ours={"n2"}).left("n2") == ""


@pytest.mark.parametrize(
    "guard",
    [
        Hooks('test "$NODE" != n2 || exit 1; : token-1234', "true"),
        Hooks("true", 'test "$NODE" != n2 || exit 1; : token-1234'),
        Hooks(": token-1234 |", "true"),
        Nodes(command="kubectl --token=token-1234"),
        Nodes(command="kubectl --token=token-1234", broken={("uncordon", "n2")}),
    ],
    ids=["before", "after", "no command", "kubectl", "uncordon"],
)
def test_no_secret_in_a_command_of_the_operator_is_told_or_kept(
    played: Played, capsys: pytest.CaptureFixture[str], guard: Guard
) -> None:
    played.becomes = {"n3": Status.FAILED}
    assert played(guard=guard) == 1
    told = capsys.readouterr()
    kept = b"".join(each.read_bytes() for each in played.directory.glob("history.db*"))
    assert "token-1234" not in told.out + told.err
    assert b"token-1234" not in kept
    assert ("--kubectl" if isinstance(guard, Nodes) else "--before") in told.out.rpartition("What needs attention")[2]


def test_kubectls_no_limit_is_no_timeout(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["apply", "hosts.py", "--drain", "--drain-timeout", "0"])
    assert "'0' is not a number from 1 to 604800" in capsys.readouterr().err


def test_nobody_has_pods_back_before_somebody_agreed(played: Played) -> None:
    played.becomes = {"n2": Status.FAILED}
    assert played() == 1
    played.done = {"n1", "n2", "n3"}
    with pytest.raises(Exception, match="nobody is there to agree"):
        played(resume=True, yes=False)
    assert played.cordoned == {"n2"}
    assert played(resume=True) == 0
    assert played.cordoned == set()


def test_ctrl_c_in_the_report_does_not_claim_that_nothing_was_changed(
    played: Played, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def leave(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("fleet.text.summary", leave)
    monkeypatch.setattr("fleet.text.plan", lambda *_, **__: "")
    monkeypatch.setattr(cli, "_apply", lambda _: played())
    assert cli.main(["apply", "hosts.py"]) == 130
    assert "no node was changed" not in capsys.readouterr().err


def test_who_changed_hooks_for_none_is_told_how_pods_get_back_and_that_way_works(
    played: Played, capsys: pytest.CaptureFixture[str]
) -> None:
    assert played(guard=Hooks('test "$NODE" != n2', "true")) == 1
    played.done, way = {"n1", "n2", "n3"}, "apply with --drain (or --after COMMAND) lets its pods back once it is well"
    played(drain=False)
    assert played.records()["n2"].reasons[-1].endswith(way)
    assert f"n2: run 1 was to let its pods back, and did not: look whether it is cordoned; {way}" in (
        capsys.readouterr().err
    )
    assert played(guard=Hooks("", "true")) == 0
    assert not played.records()["n2"].drained
