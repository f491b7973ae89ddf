"""The history: what is written down of runs, what is told of it, and what differs between two of them."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

from lab.paths import REPO
from tests import nodes
from tests.deploy.fleet import Fleet
from tests.fleet.runs import apply, begun, fleet_py, hanging, seen


@pytest.fixture(scope="module")
def past(tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    """Two plans and an apply over a node that drifts between them."""
    directory = tmp_path_factory.mktemp("past")
    fleet = Fleet(directory)
    fleet.add("n1", nodes.converged())
    fleet.add("n2", nodes.converged())
    assert fleet_py("plan", fleet.inventory, "--data", "ssh_password=hunter2hunter2", home=directory).code == 0
    fleet.hosts.clear()
    fleet.add("n1", nodes.converged(nodes.bare(kernel="6.13.0")))
    fleet.add("n3", nodes.bare())
    assert fleet_py("plan", fleet.inventory, home=directory).code == 2
    assert apply(fleet).code == 0
    return fleet


def test_runs_are_listed_with_who_when_from_which_commit_and_outcome(past: Fleet) -> None:
    runs = seen(past, "history")
    assert [each["kind"] for each in runs] == ["apply", "plan", "plan"]
    assert [each["exit_code"] for each in runs] == [0, 2, 0]
    commit = subprocess.run(["git", "-C", REPO, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    for each in runs:
        assert each["commit"].rstrip("+") == commit.stdout.strip()
        assert each["user"]
        assert each["started"] <= each["ended"]
        assert each["outcome"] == "done"
    assert seen(past, "history", "no/such/inventory") == []
    assert len(fleet_py("history", home=past.directory).stdout.splitlines()) == 4


def test_no_value_of_the_command_line_is_written_down(past: Fleet) -> None:
    files = list((past.directory / "userns-node").iterdir())
    assert files
    assert not any(b"hunter2" in each.read_bytes() for each in files)
    assert seen(past, "history")[2]["options"]["data"] == ["ssh_password"]


def test_drift_is_told_node_by_node(past: Fleet) -> None:
    drift = {each["name"]: each["what"] for each in seen(past, "drift", "1", "2")["drift"]}
    assert drift["@fake/n1"][0] == "kernel 6.12.48+deb13-amd64 -> 6.13.0"
    assert drift["@fake/n3"] == ["new: changes"]
    assert drift["@fake/n2"] == ["gone: it was ready"]
    assert seen(past, "drift", "2")["from"]["id"] == 1
    assert "no node is otherwise" in fleet_py("drift", "1", "1", home=past.directory).stdout


def test_a_run_is_shown_whole_and_a_node_in_full(past: Fleet) -> None:
    assert list(seen(past, "show", "3")["nodes"]) == ["@fake/n1", "@fake/n3"]
    text = fleet_py("show", "3", "@fake/n3", home=past.directory).stdout
    assert "wave 1: @fake/n3" in text
    assert "runc: proven: root is host uid 65536" in text


@pytest.mark.parametrize("arguments", [["show", "99"], ["show", "1", "n9"], ["drift", "1"]], ids=" ".join)
def test_what_is_not_in_the_history_is_1(past: Fleet, arguments: list[str]) -> None:
    run = fleet_py(*arguments, home=past.directory)
    assert run.code == 1
    assert run.stderr.startswith("fleet: ")
    assert "Traceback" not in run.stderr


def test_a_history_that_cannot_be_opened_is_1_and_says_so(tmp_path: Path) -> None:
    (tmp_path / "no.db").write_text("this is no database, and long enough for that to show\n" * 99)
    run = fleet_py("history", "--history", tmp_path / "no.db", home=tmp_path)
    assert run.code == 1
    assert "cannot be opened" in run.stderr


# --- of one that did not end by itself ---------------------------------------------------------------------------


def test_a_run_that_is_killed_leaves_a_history_that_says_so(tmp_path: Path) -> None:
    fleet = hanging(tmp_path)
    with begun("apply", fleet.inventory, "-y", home=tmp_path, after="wave 1") as (process, _):
        (run,) = seen(fleet, "history")
        assert run["outcome"] == ""
        # Another one over the same nodes is refused while this one goes on.
        other = apply(fleet)
        assert other.code == 1
        assert f"run {run['id']} of " in other.stderr
        assert "goes on over @fake/n1, @fake/n2" in other.stderr
        process.kill()
        process.wait()
    runs = {each["id"]: each for each in seen(fleet, "history")}
    assert runs[run["id"]]["outcome"] == "broken off"
    assert runs[run["id"]]["totals"] == {"unknown": 1, "waiting": 1}
    told = seen(fleet, "show", str(run["id"]))
    assert told["nodes"]["@fake/n1"] | {"status": "unknown", "wave": 1} == told["nodes"]["@fake/n1"]
    deadline = time.monotonic() + 30
    while _runners_of(fleet) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert _runners_of(fleet) == []


def _runners_of(fleet: Fleet) -> list[str]:
    """The processes that run pyinfra with this history's home in their environment."""
    found = []
    for environ in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"XDG_STATE_HOME={fleet.directory}".encode() in environ.read_bytes():
                found.append(environ.parent.name)
        except OSError:
            continue
    return found
