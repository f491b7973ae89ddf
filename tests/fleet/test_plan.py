"""`fleet.py plan`: every node is read, none is changed, and the exit code says what there is to do."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO
from pathlib import Path

import pytest

from fleet import child
from fleet.events import Event, HostEvent, InventoryEvent, RecordEvent, Request
from fleet.history import History
from fleet.plan import gather, run
from fleet.progress import Progress
from fleet.records import Record, Status
from lab.paths import REPO
from tests import nodes
from tests.deploy.fleet import CHANGE, READ, TEXT, Fleet, Run
from tests.fleet.runs import FLEET, environment, fleet_py, played, statuses
from userns import paths


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Fleet, Path]:
    """A node of each kind."""
    home = tmp_path_factory.mktemp("mixed")
    made = Fleet(home)
    made.add("fresh", group="workers")
    made.add("fresh2", group="workers")
    made.add("done", nodes.converged(), group="gpu")
    made.add("docker", nodes.bare(root=False), group="old")
    made.add("typo", group="old", max_pods="many")
    made.add("garbage", "hello", group="old")
    made.add("silent", group="old", answers={READ: {"success": False, "stderr": "sh: not found"}})
    made.add_unreachable("gone", group="workers")
    return made, home


def plan(mixed: tuple[Fleet, Path], *options: str) -> Run:
    fleet, home = mixed
    return fleet_py("plan", fleet.inventory, *options, home=home)


@pytest.fixture(scope="module")
def told(mixed: tuple[Fleet, Path]) -> Run:
    return plan(mixed, "--json")


@pytest.fixture(scope="module")
def text(mixed: tuple[Fleet, Path]) -> Run:
    return plan(mixed, "--diff")


def test_a_group_that_may_have_no_number_of_nodes_away_is_told_of_by_the_plan_too(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path)
    fleet.add("n1", nodes.converged(), group="a")
    fleet.data = {"a": {"max_unavailable": "lots"}}
    run = fleet_py("plan", fleet.inventory, home=tmp_path)
    assert run.code == 1
    assert "max_unavailable of a: 'lots' is no number of nodes" in run.stderr


def test_every_node_is_told_of_with_what_is_to_be_done(told: Run) -> None:
    assert statuses(told) == {
        "@fake/fresh": "changes",
        "@fake/fresh2": "changes",
        "gone": "unreachable",
        "@fake/done": "ready",
        "@fake/docker": "refused",
        "@fake/typo": "refused",
        "@fake/garbage": "failed",
        "@fake/silent": "failed",
    }
    assert told.json["totals"] == {"changes": 2, "unreachable": 1, "ready": 1, "refused": 2, "failed": 2}


def test_a_node_that_needs_attention_makes_it_1_before_what_there_is_to_change(told: Run, text: Run) -> None:
    assert (told.code, told.json["exit_code"], text.code) == (1, 1, 1)


@pytest.mark.parametrize(("limit", "code"), [("gpu", 0), ("@fake/fresh*", 2), ("old", 1)])
def test_the_exit_code(mixed: tuple[Fleet, Path], limit: str, code: int) -> None:
    assert plan(mixed, "--limit", limit).code == code


def test_why_a_node_needs_attention_is_said(told: Run) -> None:
    reasons = {name: " ".join(record["reasons"]) for name, record in told.json["nodes"].items()}
    assert "blocker not-root: " in reasons["@fake/docker"]
    assert "max_pods = 'many'" in reasons["@fake/typo"]
    assert "lacks its first line" in reasons["@fake/garbage"]
    assert "sh: not found" in reasons["@fake/silent"]
    assert "Could not connect" in reasons["gone"]
    assert reasons["@fake/fresh"] == reasons["@fake/done"] == ""


def test_a_node_that_su_keeps_from_being_changed_is_refused_in_the_plan(tmp_path: Path) -> None:
    """And not by a rollout, which may have drained it by then."""
    fleet = Fleet(tmp_path)
    fleet.add("su", _su_user="root", _su_password="secret")
    run = fleet_py("plan", fleet.inventory, "--json", home=tmp_path)
    record = run.json["nodes"]["@fake/su"]
    assert record["status"] == "refused"
    assert record["reasons"][0].endswith("Use _sudo, or _su_user without _su_password")


def test_a_record_has_tier_versions_groups_and_changes(told: Run) -> None:
    fresh, done = told.json["nodes"]["@fake/fresh"], told.json["nodes"]["@fake/done"]
    assert (fresh["tier"], fresh["groups"], len(fresh["changes"])) == ("idmapped", ["workers"], 13)
    assert fresh["versions"]["containerd"]["installed"] == ""
    assert done["versions"]["containerd"]["installed"] == done["versions"]["containerd"]["wanted"] != ""
    assert (done["changes"], done["kernel"]) == ([], "6.12.48+deb13-amd64")


def test_it_is_a_table_by_group(text: Run) -> None:
    tables = text.stdout.split("\n\n")
    assert [table.splitlines()[0] for table in tables[:3]] == ["gpu: 1 node", "old: 4 nodes", "workers: 3 nodes"]
    assert "idmapped" in tables[0]
    assert tables[0].split()[-1] == "ready"


def test_a_change_is_told_once_with_its_reason_and_its_nodes(text: Run) -> None:
    changes = text.stdout.partition("What would change\n")[2]
    assert changes.count("write /etc/containerd/config.toml: new") == 1
    line = next(number for number, line in enumerate(changes.splitlines()) if "config.toml" in line)
    assert changes.splitlines()[line + 1].strip() == "@fake/fresh, @fake/fresh2"


def test_diffs_are_shown_where_they_are_asked_for(mixed: tuple[Fleet, Path], text: Run) -> None:
    assert "+++ /etc/containerd/config.toml" in text.stdout
    assert "+++ /etc/containerd/config.toml" not in plan(mixed, "--limit", "workers").stdout


def test_a_diff_shows_no_secret(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path)
    old = nodes.converged()
    files = {**old.files, paths.CONFIG: nodes.file_state("token = 'hunter2hunter2'\n")}
    fleet.add("n", old.model_copy(update={"files": files}), answers={TEXT: "=dG9rZW4gPSAnaHVudGVyMmh1bnRlcjInCg=="})
    for options in (["--diff"], ["--diff", "--json"], ["--diff", "-v"]):
        run = fleet_py("plan", fleet.inventory, *options, home=tmp_path)
        assert run.code == 2, run.text
        assert "-token = " in run.stdout
        assert "hunter2" not in run.text


def test_a_plan_runs_nothing_on_a_node_but_its_reading(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path)
    fleet.add("n", answers={CHANGE: {"success": False}})
    run = fleet_py("plan", fleet.inventory, "-v", home=tmp_path)
    assert run.code == 2
    assert "Starting operation" not in run.stderr


def test_it_runs_from_anywhere(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path)
    fleet.add("n", nodes.converged())
    assert fleet.inventory.name == "fleet.py"
    run = fleet_py("plan", "fleet.py", home=tmp_path, cwd=tmp_path)
    assert (run.code, run.stdout.splitlines()[-1]) == (0, "1 node: 1 ready (nothing to do)")


# --- nobody to work on --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["plan", "no/such.py"], "no such inventory: no/such.py"),
        (["plan"], "required: INVENTORY"),
        (["paln", "x.py"], "invalid choice: 'paln'"),
        (["plan", "x.py", "--limti", "n"], "unrecognized arguments: --limti"),
        (["plan", "x.py", "--data", "n"], "'n' is not NAME=VALUE"),
        (["plan", "n\udcff,m"], r"'n\udcff,m' is not UTF-8"),
        (["plan", "n,m", "--limit", "n\udcff"], r"argument --limit: 'n\udcff' is not UTF-8"),
        (["plan", "n,m", "--data", "n=\udcff"], r"argument --data: 'n=\udcff' is not UTF-8"),
        (["apply", "n,m", "--canary", "\udcff"], r"argument --canary: '\udcff' is not UTF-8"),
        (["history", "n\udcff,m"], r"'n\udcff,m' is not UTF-8"),
    ],
)
def test_a_mistake_in_the_command_line_is_1_and_never_0_or_2(tmp_path: Path, arguments: list[str], said: str) -> None:
    run = fleet_py(*arguments, home=tmp_path)
    assert run.code == 1
    assert said in run.stderr
    assert "Traceback" not in run.stderr


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ("127.0.0.1,", ["127.0.0.1"]),
        ("2001:db8::1,", ["2001:db8::1"]),
        ("a, 2001:db8::1", ["a", "2001:db8::1"]),
        (",@fake/n , ,a", ["@fake/n", "a"]),
        ("a,", ["a"]),
    ],
)
def test_hosts_with_commas_may_have_spaces_between_them_and_a_comma_at_their_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str, names: list[str]
) -> None:
    (tmp_path / "a").write_text("nodes = ['of-a-file']\n")
    monkeypatch.chdir(tmp_path)
    with child.events(Request(action="inventory", inventory=given)) as events:
        assert [each.name for each in child.inventory_of(events).hosts] == names


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--limit", "wrokers"], "--limit wrokers: no group or host of this name. Hosts: @fake/fresh,"),
        (["--limit", "workers", "--limit", "wrokers"], "--limit wrokers: no group or host of this name"),
        (["--exclude", "wrokers"], "--exclude wrokers: no group or host"),
        (["--exclude", "*"], "--limit and --exclude leave none"),
    ],
    ids=str,
)
def test_limits_that_nobody_matches_are_1(mixed: tuple[Fleet, Path], options: list[str], said: str) -> None:
    run = plan(mixed, *options)
    assert (run.code, run.stdout) == (1, "")
    assert said in run.stderr


def test_an_inventory_that_cannot_be_loaded_is_1_and_says_why(tmp_path: Path) -> None:
    inventory = tmp_path / "broken.py"
    inventory.write_text("nodes = [\n")
    run = fleet_py("plan", inventory, home=tmp_path)
    assert run.code == 1
    assert f"{inventory}, line 1: SyntaxError: " in run.stderr
    inventory.write_text("nodes = []\n")
    assert fleet_py("plan", inventory, home=tmp_path).code == 1


@pytest.mark.parametrize("command", ["plan", "apply"])
def test_an_inventory_that_cannot_be_read_is_1_and_named(tmp_path: Path, command: str) -> None:
    inventory = tmp_path / "secret.py"
    inventory.symlink_to("/proc/self/mem")  # root may read any other file
    run = fleet_py(command, inventory, home=tmp_path)
    assert (run.code, run.stdout) == (1, "")
    assert run.stderr == f"fleet: {inventory} cannot be read: Input/output error\n"


def test_a_name_that_is_twice_in_one_group_is_1_and_in_two_groups_is_one_node(tmp_path: Path) -> None:
    made = Fleet(tmp_path)
    for group in ("workers", "gpu"):
        made.add("n1", nodes.converged(), group=group)
    assert fleet_py("plan", made.inventory, home=tmp_path).code == 0
    made.add("n1", nodes.bare(), group="gpu")
    run = fleet_py("plan", made.inventory, home=tmp_path)
    assert (run.code, run.stdout) == (1, "")
    assert "@fake/n1 is in the group gpu twice" in run.stderr


SLIPS = {
    "workers = [nodename]\n": ", line 1: NameError: name 'nodename' is not defined",
    "\nworkers = [\n": ", line 2: SyntaxError: '[' was never closed",
    "import nowhere_at_all\n": ", line 1: ModuleNotFoundError: No module named 'nowhere_at_all'",
    'workers = [("a", 5)]\n': ": TypeError: 'int' object is not iterable",
    'workers = [("a",)]\n': ": IndexError: tuple index out of range",
    'workers = ["@nonsense/x"]\n': ": NoConnectorError: Invalid connector: nonsense",
}


@pytest.mark.parametrize("text", SLIPS)
def test_a_slip_in_an_inventory_is_one_line_that_says_where(tmp_path: Path, text: str) -> None:
    inventory = tmp_path / "inventory.py"
    inventory.write_text(text)
    run = fleet_py("plan", inventory, home=tmp_path)
    assert (run.code, run.stdout, run.stderr) == (1, "", f"fleet: {inventory}{SLIPS[text]}\n")


def test_a_key_that_is_not_there_fails_its_host_alone_and_is_named(tmp_path: Path) -> None:
    inventory = tmp_path / "inventory.py"
    inventory.write_text('workers = ["127.0.0.1", ("127.0.0.2", {"ssh_key": "/none/id_typo"})], {"ssh_port": 1}\n')
    run = fleet_py("plan", inventory, "--json", home=tmp_path)
    assert statuses(run) == {"127.0.0.1": "unreachable", "127.0.0.2": "unreachable"}
    assert run.json["nodes"]["127.0.0.2"]["reasons"] == ["No such private key file: /none/id_typo"]


def test_a_sudo_that_asks_for_a_password_fails_its_host_alone_and_nobody_waits(tmp_path: Path) -> None:
    sudo = tmp_path / "sudo"
    sudo.write_text("#!/bin/sh\necho 'sudo: a password is required' >&2\nexit 1\n")
    sudo.chmod(0o755)
    inventory = tmp_path / "inventory.py"
    inventory.write_text('nodes = [("@local", {"_sudo": True}), ("127.0.0.1", {"ssh_port": 1})]\n')
    run = fleet_py("plan", inventory, "--json", home=tmp_path, PATH=f"{tmp_path}:{os.environ['PATH']}")
    assert statuses(run) == {"@local": "refused", "127.0.0.1": "unreachable"}
    assert "let it ask this user for none (NOPASSWD)" in run.json["nodes"]["@local"]["reasons"][0]


def test_a_node_that_was_given_up_is_told_of_in_its_groups() -> None:
    """A cluster's shard that nobody could read has names alone."""
    hosts = (HostEvent(name="n1", groups=("gpu",)), HostEvent(name="n2", groups=("gpu",)))
    given_up = RecordEvent(record=Record(name="n1", status=Status.UNKNOWN, reasons=("given up",)))

    @contextmanager
    def events(_: Request, _verbose: bool) -> Iterator[Iterator[Event]]:
        yield iter([InventoryEvent(hosts=hosts, sizes={"gpu": 2}), given_up])

    _, records = gather(Request(action="plan", inventory="prod"), Progress("reading"), events_of=events)
    assert [(each.groups, each.reasons) for each in records] == [
        (("gpu",), ("given up",)),
        (("gpu",), ("nothing was told of it",)),
    ]


def test_a_plan_that_is_interrupted_has_ended(tmp_path: Path) -> None:
    @contextmanager
    def interrupted(_: Request, _verbose: bool) -> Iterator[Iterator[Event]]:
        yield iter([InventoryEvent(hosts=(), sizes={})])
        raise KeyboardInterrupt

    history = History(tmp_path / "history.db")
    request = Request(action="plan", inventory="prod")
    with pytest.raises(KeyboardInterrupt):
        run(request, history, as_json_=False, verbose=False, events_of=interrupted)
    (ended,) = history.runs()
    history.close()
    assert (ended.outcome, ended.exit_code) == ("interrupted before anything was changed", 130)
    assert ended.ended


def test_with_standard_error_closed_the_plan_is_told(tmp_path: Path) -> None:
    made = played(tmp_path, 1)
    for option in ("--json", "--verbose"):
        words = ["sh", "-c", 'exec "$@" 2>&-', "sh", sys.executable, str(FLEET), "plan", str(made.inventory), option]
        done = subprocess.run(words, cwd=REPO, env=environment(tmp_path), capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (2, "")
        assert "fleet: " not in done.stdout
        assert "@fake/n1" in done.stdout


def test_a_request_of_many_nodes_is_read_at_once_and_what_follows_is_left(tmp_path: Path) -> None:
    """By CPU: what else this machine does is not the reader's."""
    request = tmp_path / "request"
    request.write_text(f"{','.join(f'node-{number:05}.example.internal' for number in range(20_000))}\n1.5\n")
    code = (
        "import os, time\nfrom fleet.runner import _first_line\n"
        "began = time.process_time(); line = _first_line(); took = time.process_time() - began\n"
        "print(took, len(line), os.read(0, 9))"
    )
    with request.open() as stdin:
        words = [sys.executable, "-c", code]
        done = subprocess.run(words, cwd=REPO, stdin=stdin, capture_output=True, text=True, check=True)
    seconds, length, rest = done.stdout.split()
    assert (int(length), rest) == (request.stat().st_size - 5, "b'1.5\\n'")
    assert float(seconds) < 5


class Screen(StringIO):
    """A terminal, as far as a progress bar asks."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("error", [KeyboardInterrupt, child.BrokenOff, child.CannotRun])
def test_whatever_ends_the_reading_the_terminal_has_its_cursor_again(
    monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    @contextmanager
    def events(_: Request, _verbose: bool) -> Iterator[Iterator[Event]]:
        def broken() -> Iterator[Event]:
            yield InventoryEvent(hosts=(HostEvent(name="n1", groups=("all",)),), sizes={})
            raise error

        yield broken()

    screen = Screen()
    monkeypatch.setattr(sys, "stderr", screen)
    with pytest.raises(error):
        gather(Request(action="plan", inventory="prod"), Progress("reading"), events_of=events)
    shown = screen.getvalue()
    assert shown.count("\x1b[?25l") == shown.count("\x1b[?25h") == 1
