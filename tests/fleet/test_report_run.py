"""Which run a report is on, with which one it is compared, and what is drift between the two."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fleet import page, report
from fleet.drift import between
from fleet.history import History
from fleet.records import Record, Status
from lab.paths import REPO
from tests.fleet.runs import FLEET, environment, fleet_py


def written(tmp_path: Path, *plans: tuple[dict[str, Any], list[Record]]) -> Path:
    """A history of plans, each with its options and its nodes."""
    past = History(tmp_path / "userns-node/history.db")
    for options, planned in plans:
        number = past.begin("plan", "prod", options)
        past.put(number, planned)
        past.finish(number, "done", 0)
    past.close()
    return tmp_path


def test_a_part_of_the_fleet_is_never_reported_as_the_whole(tmp_path: Path) -> None:
    n0, n4 = (Record(name=name, status=Status.READY, tier="idmapped", kernel="1") for name in ("n0", "n4"))
    failed = n0.model_copy(update={"status": Status.FAILED, "reasons": ("error: full",)})
    newer = n4.model_copy(update={"kernel": "2"})
    part = {"limit": ["n4"], "exclude": []}
    home = written(tmp_path, ({}, [failed, n4]), (part, [n4]), ({"limit": []}, [failed, newer]), (part, [newer]))
    whole = fleet_py("report", "prod", "--json", "-", "--html", home / "r.html", home=home)
    assert (whole.json["run"]["run"], whole.json["totals"]) == (3, {"ready": 1, "failed": 1})
    assert (whole.json["run"]["before"], whole.json["run"]["newer"]) == (1, 4)
    assert "run 4 is newer, but had --limit n4: --run 4 reports it" in whole.stderr
    assert "Run 4 is newer, but had <code>--limit n4</code>" in (home / "r.html").read_text()
    forms = ("--json", "-", "--html", home / "r.html", "--prometheus", home / "r.prom")
    limited = fleet_py("report", "--run", "4", *forms, home=home)
    assert (limited.json["run"]["chosen"], limited.json["run"]["before"]) == ("--limit n4", 2)
    assert limited.json["drift"] == [{"name": "n4", "what": ["kernel 1 -> 2"]}]
    assert "over <code>prod</code> with <code>--limit n4</code>" in (home / "r.html").read_text()
    assert 'chosen="--limit n4"} 4' in (home / "r.prom").read_text()
    assert "plan prod --limit n4, by" in fleet_py("show", "4", home=home).stdout
    assert fleet_py("history", home=home).stdout.splitlines()[1].split()[4:6] == ["--limit", "n4"]
    two = fleet_py("drift", "3", "4", home=home)
    assert "no node is otherwise" in two.stdout
    assert "of run 3 (over prod) and run 4 (over prod --limit n4), the nodes of both are compared: 1" in two.stderr


def test_where_every_run_was_over_a_part_the_last_one_is_reported(tmp_path: Path) -> None:
    node = Record(name="n4", status=Status.READY, tier="idmapped")
    home = written(tmp_path, ({"limit": ["n4"]}, [node]), ({"exclude": ["n0"]}, [node]))
    run = fleet_py("report", "--json", "-", home=home)
    assert (run.json["run"]["run"], run.json["run"]["chosen"], run.json["run"]["before"]) == (2, "--exclude n0", 0)
    assert "run 2 had --exclude n0" in run.stderr


def test_a_run_that_has_read_nothing_is_not_reported_as_all_waiting(tmp_path: Path) -> None:
    """What an apply writes down before it reads is only whom it is about to work on."""
    node = Record(name="n1", groups=("workers",), status=Status.FAILED, reasons=("error: full",))
    home = written(tmp_path, ({}, [node]))
    past = History(home / "userns-node/history.db")
    run = past.begin("apply", "prod", {})
    past.put(run, [Record(name="n1", groups=("workers",), status=Status.WAITING)])
    assert fleet_py("report", "prod", "--json", "-", home=home).json["totals"] == {"failed": 1}
    for outcome in ("interrupted before anything was changed", "did not begin: no key"):
        past.finish(run, outcome, 1)
        for command in (("report", "--run", "2", "--json", "-"), ("drift", "2")):
            refused = fleet_py(*command, home=home)
            assert (refused.code, refused.stdout) == (1, "")
            assert refused.stderr.endswith(f"run 2 has read no node ({outcome}): there is nothing to tell of it\n")
    past.put(run, [Record(name="n1", status=Status.WAITING, tier="idmapped")])
    past.finish(run, "interrupted before anything was changed", 130)
    assert fleet_py("report", "prod", "--json", "-", home=home).json["totals"] == {"waiting": 1}
    past.close()


def test_a_run_is_not_reported_as_one_over_another_inventory(tmp_path: Path) -> None:
    home = written(tmp_path, ({}, [Record(name="n1", status=Status.READY)]))
    assert fleet_py("report", "prod", "--run", "1", "--json", "-", home=home).code == 0
    other = fleet_py("report", "stage", "--run", "1", "--json", "-", home=home)
    assert (other.code, other.stdout) == (1, "")
    assert other.stderr == "fleet: run 1 is over prod, and not over stage\n"


def test_a_link_is_followed_and_stays(tmp_path: Path) -> None:
    home = written(tmp_path, ({}, [Record(name="n1", status=Status.READY)]))
    old, new = tmp_path / "old.json", tmp_path / "new.json"
    old.write_text("old")
    for target, link in ((old, tmp_path / "a"), (new, tmp_path / "b")):
        link.symlink_to(target.name)
        assert fleet_py("report", "--json", link, home=home).code == 0
        assert link.is_symlink()
        assert json.loads(target.read_text())["totals"] == {"ready": 1}
    loop = tmp_path / "loop"
    loop.symlink_to("loop")
    run = fleet_py("report", "--json", loop, home=home)
    assert (run.code, run.stderr.count("\n"), "cannot be written" in run.stderr) == (1, 1, True)
    assert not [each.name for each in tmp_path.iterdir() if each.name.startswith(".")]


def test_a_pipe_or_a_device_is_written_into_and_stays(tmp_path: Path) -> None:
    home = written(tmp_path, ({}, [Record(name="n1", status=Status.READY)]))
    pipe, link = tmp_path / "pipe", tmp_path / "link"
    os.mkfifo(pipe)
    link.symlink_to("pipe")
    for file in (pipe, link):
        reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
        assert fleet_py("report", "--json", file, home=home).code == 0
        assert json.loads(os.read(reader, 1 << 16))["totals"] == {"ready": 1}
        os.close(reader)
    assert stat.S_ISFIFO(link.stat().st_mode)
    assert link.is_symlink()
    # Of this process alone; its own name leads to a pipe that has none in any directory.
    stdout = tmp_path / "stdout"
    stdout.symlink_to("/proc/self/fd/1")
    assert fleet_py("report", "--json", stdout, home=home).json["totals"] == {"ready": 1}
    assert stdout.is_symlink()
    if os.geteuid() == 0:  # a device of our own, as /dev/null is
        null = tmp_path / "null"
        try:
            os.mknod(null, stat.S_IFCHR | 0o666, os.makedev(1, 3))
            null.write_text("")
        except PermissionError:  # in a container that may make none, or open none
            return
        assert fleet_py("report", "--json", null, home=home).code == 0
        assert stat.S_ISCHR(null.stat().st_mode)


def test_standard_output_that_is_a_file_is_written_into_also_once_it_was_removed(tmp_path: Path) -> None:
    home = written(tmp_path, ({}, [Record(name="n1", status=Status.READY)]))
    for removed in (False, True):
        out = tmp_path / "out"
        with out.open("w+") as stdout:
            if removed:
                out.unlink()
            words = [sys.executable, str(FLEET), "report", "--json", "/proc/self/fd/1"]
            subprocess.run(words, cwd=REPO, env=environment(home), stdout=stdout, check=True)
            assert json.loads(stdout.read() if removed else out.read_text())["totals"] == {"ready": 1}
        assert not [each.name for each in tmp_path.iterdir() if "deleted" in each.name]


def test_a_node_whose_pods_are_away_is_shown_as_such(tmp_path: Path) -> None:
    drained = Record(name="n1", status=Status.FAILED, changes=("restart containerd.service",), drained=True)
    text = fleet_py("show", "1", "n1", home=written(tmp_path, ({}, [drained]))).stdout
    assert "  was to restart containerd.service\n  its pods were moved away, and not let back\n" in text


def test_a_checkout_that_was_edited_is_not_shown_as_its_commit() -> None:
    about = report.About(1, "plan", "prod", "2026-11-25T10:00:00+00:00", "", "done", "ops", commit=f"{'a' * 40}+")
    assert "commit <code>aaaaaaaaaa+</code>" in page.html(report.make(about, [], None))


# --- what is drift, and what is not -------------------------------------------------------------------------------

TOML, UNIT = "write /etc/containerd/config.toml: edited", "restart containerd.service"


def node(status: Status, *changes: str) -> Record:
    return Record(name="n1", status=status, tier="idmapped", changes=changes)


def test_a_rollout_and_the_plan_after_it_are_no_drift() -> None:
    planned, waiting = node(Status.CHANGES, TOML, UNIT), node(Status.WAITING, TOML, UNIT)
    changed, ready = node(Status.CHANGED, TOML, UNIT), node(Status.READY)
    assert between([planned], [waiting]) == between([changed], [ready]) == between([ready], [changed]) == []
    (rolled_out,) = between([planned], [changed])
    assert rolled_out.what == ("changes -> ready",)


@pytest.mark.parametrize("before", [node(Status.READY), node(Status.CHANGED, TOML, UNIT)], ids=["ready", "changed"])
def test_a_file_that_somebody_edited_is_told_by_its_change(before: Record) -> None:
    (drift,) = between([before], [node(Status.CHANGES, TOML)])
    assert drift.what == ("ready -> changes", f"would now {TOML}")


def test_of_what_is_still_to_be_changed_the_differences_are_told() -> None:
    (drift,) = between([node(Status.WAITING, TOML)], [node(Status.CHANGES, UNIT)])
    assert drift.what == (f"would now {UNIT}", f"would no longer {TOML}")


def test_what_became_otherwise_while_a_node_could_not_be_reached_is_told(tmp_path: Path) -> None:
    first = Record(name="n1", status=Status.CHANGED, tier="idmapped", kernel="6.12", changes=(TOML,))
    lost = Record(name="n1", status=Status.UNREACHABLE, reasons=("timeout",))
    back = Record(name="n1", status=Status.CHANGES, tier="rootfs-only", kernel="6.1", changes=(TOML,))
    never = Record(name="n2", status=Status.UNREACHABLE, reasons=("timeout",))
    read = Record(name="n2", status=Status.READY, tier="idmapped", kernel="6.12")
    part = {"limit": ["n1"]}
    home = written(
        tmp_path, ({}, [first, never]), (part, [back]), ({}, [lost, never]), ({}, [lost, never]), ({}, [back, read])
    )
    told = [
        {
            "name": "n1",
            "what": [
                "unreachable -> changes",
                "tier idmapped -> rootfs-only",
                "kernel 6.12 -> 6.1",
                f"would now {TOML}",
            ],
        },
        {"name": "n2", "what": ["unreachable -> ready"]},
    ]
    assert fleet_py("drift", "5", "--json", home=home).json["drift"] == told
    assert fleet_py("report", "prod", "--json", "-", home=home).json["drift"] == told
    assert fleet_py("drift", "4", "--json", home=home).json["drift"] == []
