"""`fleet.py apply` on a terminal: the plan, the question, and what an answer means."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lab.paths import REPO
from tests.deploy.fleet import Fleet
from tests.fleet.runs import FLEET, environment, played, seen


@contextmanager
def asking(fleet: Fleet, stdout: int | None = None) -> Iterator[tuple[subprocess.Popen[bytes], int, bytes]]:
    """A rollout that has asked its question on a terminal, the other end of that, and what it has shown there.

    `stdout` is where its standard output goes: else there, too.
    """
    controller, terminal = pty.openpty()
    with subprocess.Popen(
        [sys.executable, FLEET, "apply", fleet.inventory],
        cwd=REPO,
        env=environment(fleet.directory),
        stdin=terminal,
        stdout=terminal if stdout is None else stdout,
        stderr=terminal,
    ) as process:
        os.close(terminal)
        shown = b""
        while b"Change these nodes? [y/N]" not in shown:
            shown += os.read(controller, 4096)
        yield process, controller, shown
        os.close(controller)


def answered(fleet: Fleet, answer: bytes) -> tuple[int, bytes]:
    """The exit code of a rollout on a terminal where somebody answers its question so, and all that it showed."""
    with asking(fleet) as (process, controller, shown):
        os.write(controller, answer)
        try:
            while chunk := os.read(controller, 4096):
                shown += chunk
        except OSError:  # the other end is closed
            pass
        return process.wait(timeout=60), shown


def test_the_plan_is_shown_before_the_question_also_in_a_pipe(tmp_path: Path) -> None:
    """As in `apply | tee`, where Python itself would hold it back."""
    with asking(played(tmp_path, 1), subprocess.PIPE) as (process, controller, _):
        assert process.stdout
        came, *_ = select.select([process.stdout], [], [], 0)
        os.write(controller, b"n\n")
        plan, _ = process.communicate(timeout=60)
    assert came
    assert b"What would change" in plan


def test_on_a_terminal_there_is_a_bar_and_a_question(tmp_path: Path) -> None:
    code, shown = answered(played(tmp_path, 1), b"y\n")
    assert code == 0
    assert b"reading" in shown
    assert b"changing" in shown
    assert b"1/1" in shown
    assert b"kubectl label --overwrite node @fake/n1 userns-node/tier=idmapped" in shown


@pytest.mark.parametrize(
    ("answer", "code", "outcome"),
    [(b"n\n", 1, "declined"), (b"\x04", 130, "interrupted before anything was changed")],
    ids=["no", "Ctrl-D"],
)
def test_whoever_does_not_agree_changes_nothing(tmp_path: Path, answer: bytes, code: int, outcome: str) -> None:
    fleet = played(tmp_path, 1)
    ended, shown = answered(fleet, answer)
    assert ended == code
    assert b"Traceback" not in shown
    assert b"--resume" not in shown  # it would go on with an older one
    (run,) = seen(fleet, "history")
    assert (run["outcome"], run["exit_code"], run["totals"]) == (outcome, code, {"waiting": 1})
