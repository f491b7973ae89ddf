"""Exit code 0 means that all was done: where pyinfra alone would say so wrongly, config.py steps in.

That it is 0 where all goes well is seen in test_output.py.
"""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import threading
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

from lab.paths import PYINFRA, REPO
from tests import nodes
from tests.deploy.fleet import CHANGE, READ, Fleet, pyinfra
from tests.fleet.runs import fleet_py


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    """A host to change, and one that is as it should be."""
    made = Fleet(tmp_path)
    made.add("fresh", group="workers")
    made.add("done", nodes.converged(), group="gpu")
    return made


@pytest.mark.parametrize("options", [["--dry"], ["--dry", "--json"], ["-y"], ["-y", "--json"]], ids=" ".join)
def test_an_unreachable_host_makes_it_1_and_stops_nobody(fleet: Fleet, options: list[str]) -> None:
    gone = fleet.add_unreachable("gone")
    run = fleet.deploy(*options, closed=True)
    assert run.code == 1
    assert "Could not connect" in run.said(gone)[0]
    assert len(run.will("@fake/fresh")) == 13


# --- nobody to work on --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["no/such.py", "nosuch.py"])
@pytest.mark.parametrize("options", [["--dry"], ["-y", "--json"]], ids=" ".join)
def test_an_inventory_that_is_not_there(name: str, options: list[str]) -> None:
    run = pyinfra(name, "deploy.py", *options)
    assert run.code == 1
    assert f"no such inventory: {name}" in run.stderr


def test_an_inventory_without_hosts(tmp_path: Path) -> None:
    (tmp_path / "empty.py").write_text("nodes = []\n")
    run = pyinfra(tmp_path / "empty.py", "deploy.py", "--dry")
    assert run.code == 1
    assert "no host to work on" in run.stderr


@pytest.mark.parametrize("roots", ["", ":"])
def test_images_that_nobody_named(roots: str) -> None:
    run = pyinfra("inventories/golden.py", "deploy.py", "--dry", IMAGE_ROOTS=roots)
    assert run.code == 1
    assert "no image to work on: inventories/golden.py has the images that IMAGE_ROOTS names" in run.stderr
    assert "neither an inventory" not in run.stderr


@pytest.mark.parametrize("options", [["--exclude", "*"], ["--limit", "gpu", "--exclude", "@fake/done"]], ids=" ".join)
def test_limits_that_leave_nobody(fleet: Fleet, options: list[str]) -> None:
    run = fleet.deploy("-y", *options)
    assert run.code == 1
    assert "no host to work on: --limit and --exclude leave none of @fake/fresh, @fake/done" in run.stderr


@pytest.mark.parametrize(
    ("options", "left"),
    [(["--limit", "workers"], "fresh"), (["--limit", "*done"], "done"), (["--exclude", "workers"], "done")],
)
def test_limits_that_leave_somebody(fleet: Fleet, options: list[str], left: str) -> None:
    run = fleet.deploy("--dry", *options)
    assert run.code == 0
    assert [name for name in ("fresh", "done") if run.said(f"@fake/{name}")] == [left]


@pytest.mark.parametrize(
    "options",
    [["--limit", "wrokers"], ["--limit", "workers", "--limit", "wrokers"], ["--exclude", "wrokers"]],
    ids=" ".join,
)
@pytest.mark.parametrize("work", ["deploy.py", "tasks.rollback.previous_set"])
def test_a_name_that_nobody_has_among_the_limits_changes_nobody(fleet: Fleet, work: str, options: list[str]) -> None:
    """pyinfra alone goes on, and changes the node that was to be spared."""
    run = pyinfra(fleet.inventory, work, "-y", *options)
    assert run.code == 1
    why = f"{options[-2]} wrokers: no group or host of this name. Hosts: @fake/fresh, @fake/done"
    assert run.stderr.rstrip().endswith(why)
    assert run.said("@fake/fresh") == []


def test_a_group_that_is_empty_may_be_left_out(fleet: Fleet) -> None:
    inventory = fleet.inventory
    inventory.write_text(f"{inventory.read_text()}\nquarantined, drained = [], ([], {{}})\n")
    words = ["--exclude", "quarantined", "--exclude", "drained"]
    plain, planned = (
        pyinfra(inventory, "deploy.py", "--dry", *words),
        fleet_py("plan", inventory, *words, home=inventory.parent),
    )
    assert (plain.code, planned.code) == (0, 2), plain.text + planned.text
    plain = pyinfra(inventory, "deploy.py", "--dry", "--limit", "quarantined")
    planned = fleet_py("plan", inventory, "--limit", "quarantined", home=inventory.parent)
    for run in (plain, planned):
        assert run.code == 1
        assert "--limit quarantined: this group is empty. Hosts: @fake/fresh, @fake/done" in run.stderr


def test_a_name_that_is_a_pattern_too_is_itself(tmp_path: Path) -> None:
    made = Fleet(tmp_path)
    for name in ("a[1]", "a1"):
        made.add(name, nodes.converged())
    run = made.deploy("--dry", "--exclude", "@fake/a[1]", "--exclude", "@fake/a1")
    assert (run.code, "leave none of" in run.stderr) == (1, True)


@pytest.mark.parametrize("name", ["n1", "@fake/n1"])
def test_a_name_that_is_twice_in_one_group(tmp_path: Path, name: str) -> None:
    """The first of the two would never be read: pyinfra keeps the data of the last one."""
    inventory = tmp_path / "prod.py"
    inventory.write_text(f"nodes = [({name!r}, {{'ssh_hostname': '10.0.0.1'}}), ({name!r}, {{'ssh_hostname': '::1'}})]")
    run = pyinfra(inventory, "deploy.py", "--dry")
    assert run.code == 1
    assert f"--> {name} is in the group nodes twice" in run.stderr
    assert run.said(name) == []


GROUPS = {
    "others = [['@fake/a', {}]]": "others is no group of hosts as pyinfra takes it, which would go on without them: of",
    "others = ['@fake/a', None], {'max_pods': 60}": "of its hosts, number 2 is of the type NoneType",
    "others = (f'@fake/{n}' for n in 'ab')": "it is of the type generator",
    "others = {'@fake/a'}": "it is of the type set",
    "others = {'@fake/a': {}}.items()": "it is of the type dict_items",
    "others = zip(['@fake/a'], [{}]), {}": "its hosts are of the type zip",
    "others = '@fake/a', {}": "it is a tuple that begins with a string",
    "others = ()": "it is an empty tuple",
}


@pytest.mark.parametrize("text", GROUPS)
def test_a_group_that_pyinfra_would_leave_out_is_told_before_anybody_is_read(tmp_path: Path, text: str) -> None:
    inventory = tmp_path / "prod.py"
    inventory.write_text(f"nodes = ['@fake/n']\n{text}\n")
    plain = pyinfra(inventory, "deploy.py", "--dry")
    fleet = fleet_py("plan", inventory, home=tmp_path)
    assert (plain.code, fleet.code) == (1, 1)
    for run in (plain, fleet):
        assert GROUPS[text] in run.stderr
        assert "others is no group of hosts" in run.stderr
        assert "Traceback" not in run.stderr
        assert "@fake/n" not in run.text


def test_what_an_inventory_holds_beside_its_groups_is_left_alone(tmp_path: Path) -> None:
    inventory = tmp_path / "prod.py"
    inventory.write_text(
        "import csv, io\nfrom pathlib import Path\n"
        "nodes = ['@local']\nNAME, PORT, PORTS, PAIRS = 'a', 22, [22, 23], [(1, 2), [3]]\n"
        "DATA, NUMBERS, BYTES, NOBODY = {'a': 1}, {1, 2}, b'a', []\n"
        "SQUARES = (n * n for n in range(3))\nWITH = (n for n in range(3)), {}\n_hidden = {'a'}\n"
        "with Path(__file__).open() as file:\n    lines, rows = map(str.strip, file), csv.reader(file)\n"
        "    later = (line for line in file)\n"
        "def function():\n    pass\n"
    )
    run = pyinfra(inventory, "debug-inventory")
    assert run.code == 0, run.stderr
    assert "--> Groups: nodes, prod" in run.stderr
    assert run.stderr.count("[@local]") == 1


def test_pyinfra_asks_of_each_variable_of_an_inventory_whether_it_is_a_group() -> None:
    found = find_spec("pyinfra_cli")  # it is not imported: it would replace parts of our standard library
    assert found
    assert found.origin
    source = Path(found.origin).with_name("inventory.py").read_text()
    assert "for key, value in attrs.items() if _is_inventory_group(key, value)" in source


# --- more than one thing to do ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "work",
    [
        "deploy.py tasks.verify.user_namespace",
        "deploy.py foo=bar",
        "tasks.verify.user_namespace deploy.py",
        "tasks.verify.user_namespace tasks.rollback.previous_set",
    ],
)
def test_a_deploy_and_a_task_are_two_runs(fleet: Fleet, work: str) -> None:
    run = pyinfra(fleet.inventory, *work.split(), "-y")
    assert (run.code, run.stdout) == (1, "")
    assert run.stderr.splitlines()[-1].startswith("--> one at a time: ")
    assert "Traceback" not in run.stderr
    assert "a bug in userns-node" not in run.stderr


# --- options and signals that hide what happened ------------------------------------------------------------------


def test_no_wait_is_refused_because_it_hides_failures(fleet: Fleet) -> None:
    run = fleet.deploy("-y", "--no-wait")
    assert run.code == 1
    assert "--no-wait is not supported" in run.stderr
    assert run.said("@fake/fresh") == []


@pytest.mark.parametrize("options", [["-y"], []])
def test_a_dry_run_shows_its_operations_even_with_yes(fleet: Fleet, options: list[str]) -> None:
    run = fleet.deploy("--dry", "--json", *options, PYINFRA_YES="1")
    assert "Stage /etc/containerd/config.toml" in run.operations("@fake/fresh")


def test_an_interrupted_run_says_so(fleet: Fleet) -> None:
    fleet.hosts["workers"][0][1]["fake_delay"] = 30
    with subprocess.Popen(
        [PYINFRA, fleet.inventory, "deploy.py", "-y", "--json"],
        cwd=REPO,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr
        while "nothing to do" not in (line := process.stderr.readline()):
            assert line, process.wait()
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=100)
    assert process.returncode == 130
    assert stdout == ""
    assert "stopped. A change-over that has begun on a node goes on there" in stderr


@pytest.mark.parametrize("hook", ["before", "after_in_parent"])
def test_a_run_that_is_interrupted_while_it_forks_ends_as_well(tmp_path: Path, hook: str) -> None:
    """Python swallows what a handler raises in such a hook: the run went on and ended with 0."""
    inventory = tmp_path / "inventory.py"
    inventory.write_text(
        "import os, signal\n"
        "_own = os.getpid()\n"
        "def _interrupt():\n"
        "    if os.getpid() == _own and not _sent:\n"
        "        _sent.append(os.kill(_own, signal.SIGINT))\n"
        "        _pass = None\n"
        "_sent = []\n"
        f"os.register_at_fork({hook}=_interrupt)\n"
        "hosts = ['@local']\n"
    )
    run = pyinfra(inventory, "exec", "-y", "--", "sleep", "3")
    assert run.code == 130, run.text
    assert "--> stopped. A change-over that has begun" in run.stderr
    assert "Exception ignored" not in run.stderr
    assert "Grand total" not in run.text


def test_a_run_that_is_interrupted_at_its_question_ends(fleet: Fleet) -> None:
    controller, terminal = pty.openpty()
    with subprocess.Popen(
        [PYINFRA, fleet.inventory, "deploy.py"],
        cwd=REPO,
        stdin=terminal,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stderr
        said = b""
        while b"Press enter" not in said:
            more = os.read(process.stderr.fileno(), 4096)
            assert more, said
            said += more
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=100)
    os.close(terminal)
    os.close(controller)
    assert process.returncode == 130
    assert stderr.count(b"stopped. ") == 1


# --- the question -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("closed", [False, True])
def test_a_question_that_nobody_answers_changes_nothing(fleet: Fleet, closed: bool) -> None:
    run = fleet.deploy(closed=closed)
    assert run.code == 1
    assert "nobody answered, so the run ends here. Pass -y" in run.stderr
    assert "Starting operation" not in run.stderr
    assert "Traceback" not in run.text


def test_a_question_is_answered_by_an_empty_line(fleet: Fleet) -> None:
    run = fleet.deploy(stdin="\n")
    assert run.code == 0
    assert "Starting operation: Change over" in run.stderr


def test_where_there_is_nothing_to_do_nothing_is_asked(tmp_path: Path) -> None:
    made = Fleet(tmp_path)
    made.add("done", nodes.converged())
    run = made.deploy()
    assert run.code == 0
    assert "Press enter" not in run.stderr


class Terminal:
    """A run with somebody at the terminal, who presses enter at each question."""

    def __init__(self, fleet: Fleet, *options: str) -> None:
        controller, terminal = pty.openpty()
        try:
            answers = threading.Thread(target=self._answer, daemon=True, args=(controller,))
            answers.start()
            self.run = fleet.deploy(*options, stdin=terminal)
        finally:
            os.close(terminal)
            os.close(controller)

    @staticmethod
    def _answer(controller: int) -> None:
        try:
            for _ in range(20):
                os.write(controller, b"\n")
                time.sleep(0.05)
        except OSError:
            pass


def test_hosts_that_fail_before_the_plan_bring_up_one_question_after_it(fleet: Fleet) -> None:
    fleet.add_unreachable("gone")
    fleet.add("broken", answers={READ: {"success": False}})
    fleet.add("garbage", "hello")
    fleet.add("refused", max_pods="many")
    run = Terminal(fleet).run
    assert run.code == 1
    assert run.stderr.count("Press enter") == 1
    assert run.stderr.index("Press enter") > run.stderr.index("Detected changes")
    assert "Starting operation: Change over" in run.stderr


def test_somebody_at_the_terminal_is_asked_when_a_change_fails(fleet: Fleet) -> None:
    fleet.add("bad", answers={CHANGE: {"success": False, "stderr": "error: no"}})
    run = Terminal(fleet).run
    assert run.code == 1
    assert run.stderr.count("Press enter") == 2
    assert "One of more hosts failed, continue?" in run.stderr
    assert "runc: proven" in "\n".join(run.said("@fake/fresh"))
