"""The history: what is written down of runs, what is told of it, and what differs between two of them."""

from __future__ import annotations

import os
import re
import socket
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NoReturn

import pytest

from fleet import checkout
from fleet.cli import main
from fleet.history import CannotEnd, History
from fleet.history_commands import prune
from fleet.records import Record, Status, Versions
from lab.paths import REPO
from tests import nodes
from tests.deploy.fleet import Fleet
from tests.fleet.runs import FLEET, apply, begun, environment, fleet_py, hanging, played, seen, statuses


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
    assert "  did write /etc/containerd/config.toml: new" in text
    planned = fleet_py("show", "2", "@fake/n3", home=past.directory).stdout
    assert "  would write /etc/containerd/config.toml: new" in planned
    assert "runc: proven: root is host uid 65536" in text


@pytest.mark.parametrize("arguments", [["show", "99"], ["show", "1", "n9"], ["drift", "1"]], ids=" ".join)
def test_what_is_not_in_the_history_is_1(past: Fleet, arguments: list[str]) -> None:
    run = fleet_py(*arguments, home=past.directory)
    assert run.code == 1
    assert run.stderr.startswith("fleet: ")
    assert "Traceback" not in run.stderr


@pytest.mark.parametrize(
    "words",
    [
        "show 99999999999999999999",
        f"show {'9' * 5000}",
        "drift 1 99999999999999999999",
        "report --run 99999999999999999999 --html -",
        "history --end 99999999999999999999",
        "history --prune 99999999999999",
        "history --prune 999999",
        "history -n 99999999999999999999",
        "history -n 0",
        "apply x.py --drain-timeout 99999999999",
        "plan x.py --shard 0",
        "plan x.py --lease inf",
        "plan x.py --lease abc",
    ],
    ids=lambda words: words[:40],
)
def test_a_number_that_nothing_can_count_is_one_line(capsys: pytest.CaptureFixture[str], words: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words.split())
    assert ended.value.code == 1
    assert re.search(
        r"'\w+' is (not a number from [01] to \d+|not a number of seconds, up to 604800)$", capsys.readouterr().err
    )


def test_numbers_that_are_as_large_as_may_be_are_counted(past: Fleet) -> None:
    assert fleet_py("history", "-n", "999999999", home=past.directory).code == 0
    assert fleet_py("history", "--prune", "036500", home=past.directory).code == 0
    assert "there is no run 999999999 in " in fleet_py("show", "999999999", home=past.directory).stderr


def test_a_history_that_cannot_be_opened_is_1_and_says_so(tmp_path: Path) -> None:
    (tmp_path / "no.db").write_text("this is no database, and long enough for that to show\n" * 99)
    run = fleet_py("history", "--history", tmp_path / "no.db", home=tmp_path)
    assert run.code == 1
    assert "cannot be opened" in run.stderr


@pytest.mark.parametrize("spoils", ["a directory", "a link that leads nowhere"])
def test_a_lock_file_that_cannot_be_opened_leaves_the_numbers(tmp_path: Path, spoils: str) -> None:
    fleet, history, lock = played(tmp_path, 1), tmp_path / "h.db", tmp_path / "h.db.lock"
    if spoils == "a directory":
        lock.mkdir()
    else:
        lock.symlink_to("no/such/directory")
    planned = fleet_py("plan", fleet.inventory, "--history", history, home=tmp_path)
    assert (planned.code, planned.stderr) == (2, "")
    past = History(history)
    with closing(past):
        number = past.begin("plan", "here", {})
        assert past.run(number).goes_on
        past.finish(number, "done", 0)
    assert fleet_py("history", "--history", history, home=tmp_path).code == 0


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
    # Another host that has this history would see it go on.
    assert fleet_py("history", "--end", str(run["id"]), home=tmp_path).stdout.endswith(", it was broken off\n")
    told = seen(fleet, "show", str(run["id"]))
    assert told["nodes"]["@fake/n1"] | {"status": "unknown", "wave": 1} == told["nodes"]["@fake/n1"]
    deadline = time.monotonic() + 30
    while _runners_of(fleet) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert _runners_of(fleet) == []


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fleet:
    """A run over a node that went on when it was last heard of, on a host that is gone; and one that goes on here."""
    fleet = played(tmp_path, 1)
    past = History(tmp_path / "userns-node/history.db")
    past.begin("apply", "another", {})
    monkeypatch.setattr(socket, "gethostname", lambda: "gone.example")
    run = past.begin("apply", str(fleet.inventory), {"data": []})
    past.put(run, [Record(name="@fake/n1", status=Status.WAITING)])
    past.in_flight(run, ["@fake/n1"], 1)
    monkeypatch.undo()
    past.close()
    return fleet


def test_a_run_that_is_gone_with_its_host_is_ended_by_hand_and_resumed(elsewhere: Fleet) -> None:
    for options in ((), ("--resume",)):
        run = apply(elsewhere, *options)
        assert run.code == 1
        assert "wait for it, or stop it; if that host is no longer there: fleet.py history --end 2" in run.stderr
    assert fleet_py("history", "--end", "2", home=elsewhere.directory).code == 0
    ended = seen(elsewhere, "show", "2")
    assert ended["outcome"].startswith("ended by hand by ")
    assert ended["outcome"].endswith(", it was going on, as far as could be seen")
    assert (bool(ended["ended"]), ended["exit_code"], ended["totals"]) == (True, 1, {"unknown": 1})
    run = apply(elsewhere, "--resume")
    assert (run.code, statuses(run)) == (0, {"@fake/n1": "changed"})


def test_a_run_that_lives_here_or_has_ended_is_not_ended_by_hand(elsewhere: Fleet) -> None:
    past = History(elsewhere.directory / "userns-node/history.db")
    with pytest.raises(CannotEnd, match="run 1 goes on, and its process lives on this host"):
        past.end(1)
    past.finish(2, "done", 0)
    past.close()
    for number, why in ((2, "run 2 has ended: done"), (3, "there is no run 3 in ")):
        run = fleet_py("history", "--end", str(number), home=elsewhere.directory)
        assert (run.code, run.stdout) == (1, "")
        assert why in run.stderr
    assert [each["outcome"] for each in seen(elsewhere, "history")] == ["done", ""]


def test_a_run_in_another_pid_namespace_of_the_same_host_name_lives(tmp_path: Path) -> None:
    """As in a container with its host's network: its number is nobody's here, or somebody else's."""
    path = tmp_path / "userns-node/history.db"
    fleet = played(tmp_path, 1)
    theirs, ours = History(path), History(path)
    run = theirs.begin("apply", str(fleet.inventory), {"data": []})
    theirs.put(run, [Record(name="@fake/n1", status=Status.WAITING)])
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("update runs set process = '1 2'")
    assert ours.run(run).goes_on
    second = apply(fleet)
    assert (second.code, f"run {run} of " in second.stderr, "goes on over @fake/n1" in second.stderr) == (1, True, True)
    theirs.close()
    assert ours.run(run).outcome == "broken off"
    ours.close()


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


def test_what_only_looks_makes_no_history(tmp_path: Path) -> None:
    run = fleet_py("history", "--history", tmp_path / "typo/history.db", home=tmp_path)
    assert (run.code, run.stderr) == (1, f"fleet: there is no history {tmp_path}/typo/history.db\n")
    assert not (tmp_path / "typo").exists()


@pytest.mark.parametrize(
    ("spoils", "says"),
    [
        ("pragma user_version = 99", "it was written by a newer userns-node"),
        ("drop table runs; create table runs (other)", "no such column"),
    ],
)
def test_a_history_that_cannot_be_read_is_one_line(tmp_path: Path, spoils: str, says: str) -> None:
    path = tmp_path / "history.db"
    History(path).close()
    with closing(sqlite3.connect(path)) as db:
        db.executescript(spoils)
    run = fleet_py("history", "--history", path, home=tmp_path)
    assert run.code == 1
    assert run.stderr.startswith(f"fleet: the history {path}")
    assert says in run.stderr
    assert run.stderr.count("\n") == 1


def test_what_a_newer_version_knows_of_a_node_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "history.db"
    history = History(path)
    run = history.begin("plan", "prod", {})
    node = Record(name="n1", status=Status.READY, versions={"runc": Versions(installed="1.4.3")})
    history.put(run, [node])
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("update bodies set body = json_set(body, '$.later', 1, '$.versions.runc.later', 1)")
    assert history.records(run) == [node]
    history.close()


def test_old_runs_are_forgotten_but_for_what_a_later_run_asks_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "history.db"
    history = History(path)
    ready = Record(name="n1", status=Status.READY, tier="idmapped")

    def ran(kind: str, inventory: str, *records: Record, ends: bool = True, **options: object) -> int:
        run = history.begin(kind, inventory, options)
        history.put(run, [each.model_copy(update={"summary": f"of run {run}"}) for each in records])
        if ends:
            history.finish(run, "done", 0)
        return run

    plans = [ran("plan", "prod", ready) for _ in range(4)]
    part = ran("plan", "prod", ready, limit=["web"])
    other = ran("plan", "lab", ready)
    drained = ran("apply", "prod", Record(name="n2", status=Status.FAILED, drained=True))
    ran("apply", "prod", ready)
    lasts = [ran("apply", "prod", ready), ran("apply", "prod", ready)]
    goes_on = ran("plan", "prod", ready, ends=False)
    young = [ran("plan", "prod", ready), ran("plan", "prod", ready), ran("plan", "prod", ready)]
    with closing(sqlite3.connect(path)) as db, db:
        old = f"id < {young[0]}"
        db.execute(f"update runs set started = '2026-01-01T00:00:00+00:00' where {old}")
        db.execute(f"update runs set ended = started where {old} and ended is not null")
    size = path.stat().st_size

    assert main(["history", "--prune", "30", "--history", str(path)]) == 0
    assert capsys.readouterr().out == "5 runs forgotten, 9 kept\n"
    assert [run.id for run in history.runs()] == sorted([part, other, drained, *lasts, goes_on, *young], reverse=True)
    assert history.drained("prod") == {"n2": drained}
    assert [record.summary for record in history.records(part)] == [f"of run {part}"]
    assert history.records(plans[0]) == []
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("select count(*) from bodies").fetchone() == (9,)
    assert path.stat().st_size <= size
    history.close()


def test_a_run_is_kept_that_says_otherwise_than_an_older_one_that_is_kept(tmp_path: Path) -> None:
    """Each takes back what the one before it says of a node, and no other run does."""
    history = History(tmp_path / "history.db")

    def ran(limit: str, **drained: bool) -> int:
        run = history.begin("apply", "prod", {"limit": [limit]})
        nodes = (Record(name=name, status=Status.READY, tier="chown", drained=each) for name, each in drained.items())
        history.put(run, nodes)
        history.finish(run, "done", 0)
        return run

    first, second, third = ran("a", n1=True), ran("b", n1=False, n2=True), ran("c", n2=False)
    later = [ran(limit, n3=False) for limit in ("b", "b", "c", "c")]
    assert history.drained("prod") == {}
    assert history.last_words("prod", {first}) == {second}
    assert history.last_words("prod", {first, second}) == {second, third}
    prune(history, None, 1, datetime.now(UTC) + timedelta(days=2))
    assert sorted(run.id for run in history.runs()) == [first, second, third, *later]
    history.close()


def test_a_reader_that_has_enough_ends_it_quietly(tmp_path: Path) -> None:
    (tmp_path / "inventory.py").write_text('workers = ["127.0.0.1"], {"ssh_port": 1}\n')
    fleet_py("plan", tmp_path / "inventory.py", home=tmp_path)
    command = f"'{sys.executable}' '{FLEET}' show 1; echo $? >&2"
    pipe = subprocess.run(
        ["sh", "-c", f"{{ {command}; }} | true"],
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        check=True,
    )
    assert pipe.stderr == "141\n"


# --- one line, and no traceback ----------------------------------------------------------------------------------


def test_a_user_without_a_name_or_a_home_is_told_what_to_give(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As in a container with a user id of its own."""

    def nobody(*_: object) -> NoReturn:
        raise KeyError("getpwuid(): uid not found: 54321")

    def homeless(*_: object) -> NoReturn:
        raise RuntimeError("Could not determine home directory.")

    for name in ("SUDO_USER", "USERNS_NODE_HISTORY", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("getpass.getuser", nobody)
    monkeypatch.setattr(Path, "home", homeless)
    history = History(tmp_path / "history.db")
    assert history.run(history.begin("plan", "prod", {})).user == str(os.getuid())
    history.close()
    assert main(["history", "--history", str(tmp_path / "history.db")]) == 0
    assert main(["history"]) == 1
    said = capsys.readouterr().err
    assert said == "fleet: the history has no place (Could not determine home directory.): name one with --history\n"


def test_hosts_with_commas_that_are_longer_than_a_file_name_are_one_line(tmp_path: Path) -> None:
    hosts = ",".join(f"node-{number:03}.example.internal" for number in range(40))
    run = fleet_py("plan", hosts, home=tmp_path)
    assert run.code == 1
    assert run.stderr == "fleet: these hosts with commas cannot be taken (File name too long): put them into a file\n"
    assert len(fleet_py("history", hosts, home=tmp_path).stdout.splitlines()) == 2
    assert checkout.portable(hosts) == hosts


@pytest.mark.parametrize("file", ["", "/", "/dev/null/report.html"])
def test_a_report_that_cannot_be_written_is_one_line(past: Fleet, file: str) -> None:
    run = fleet_py("report", past.inventory, "--html", file, home=past.directory)
    assert (run.code, run.stderr.count("\n")) == (1, 1), run.text
    assert "cannot be written: " in run.stderr


def test_reports_that_would_overwrite_each_other_are_refused(past: Fleet, tmp_path: Path) -> None:
    files = (tmp_path / "o.html", f"{tmp_path}/x/../o.html")
    run = fleet_py("report", past.inventory, "--html", files[0], "--prometheus", files[1], home=past.directory)
    assert (run.code, run.stdout) == (1, "")
    assert run.stderr.startswith("fleet: --html and --prometheus are one file, ")
    assert not files[0].exists()
