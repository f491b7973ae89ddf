"""fleet.py as an operator runs it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from lab.paths import REPO
from tests.deploy.fleet import Run

FLEET = REPO / "fleet.py"
SECONDS = 600


def environment(home: Path) -> dict[str, str]:
    """Its environment."""
    return {**os.environ, "XDG_STATE_HOME": str(home)}


def fleet_py(*arguments: str | Path, home: Path, cwd: Path = REPO, **more: str) -> Run:
    """Run it. `home` is where it keeps its history."""
    done = subprocess.run(
        [sys.executable, FLEET, *map(str, arguments)],
        cwd=cwd,
        env={**environment(home), **more},
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=SECONDS,
        check=False,
    )
    return Run(done.returncode, done.stdout, done.stderr)


@contextmanager
def begun(
    *arguments: str | Path, home: Path, after: str, before: Iterable[str] = ()
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """It runs, and its standard error has had a line with `after`: the process, and what was said so far.

    `before` are words before the command.
    """
    with subprocess.Popen(
        [*before, sys.executable, str(FLEET), *map(str, arguments)],
        cwd=REPO,
        env=environment(home),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr
        seen = ""
        while after not in seen:
            line = process.stderr.readline()
            assert line, seen
            seen += line
        yield process, seen


def interrupted(
    *arguments: str | Path, home: Path, after: str, signals: Iterable[signal.Signals] = (signal.SIGINT,)
) -> Run:
    """Run it, and send it signals once its standard error has a line with `after`: the next one a second later each."""
    with begun(*arguments, home=home, after=after) as (process, seen):
        for number, one in enumerate(signals):
            if number:
                time.sleep(1)
            process.send_signal(one)
        stdout, stderr = process.communicate(timeout=SECONDS)
    return Run(process.returncode, stdout, seen + stderr)


def statuses(run: Run) -> dict[str, str]:
    """What a run with --json says of each node."""
    return {name: record["status"] for name, record in run.json["nodes"].items()}
