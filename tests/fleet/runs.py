"""fleet.py as an operator runs it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lab.paths import REPO
from tests.deploy.fleet import Fleet, Run

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
        said = ""
        while after not in said:
            line = process.stderr.readline()
            assert line, said
            said += line
        yield process, said


def interrupted(
    *arguments: str | Path, home: Path, after: str, signals: Iterable[signal.Signals] = (signal.SIGINT,)
) -> Run:
    """Run it, and send it signals: at a line of its standard error with `after`, and each a second after its answer."""
    with begun(*arguments, home=home, after=after) as (process, said):
        assert process.stderr
        for number, one in enumerate(signals):
            while number and "stopping: " not in said:  # two signals that wait are one
                line = process.stderr.readline()
                assert line, said
                said += line
            if number:
                time.sleep(1)  # what it had begun to say it would do, it does
            process.send_signal(one)
        stdout, stderr = process.communicate(timeout=SECONDS)
    return Run(process.returncode, stdout, said + stderr)


def statuses(run: Run) -> dict[str, str]:
    """What a run with --json says of each node."""
    return {name: record["status"] for name, record in run.json["nodes"].items()}


def played(directory: Path, count: int = 4, **of: dict[str, Any]) -> Fleet:
    """Nodes n1, n2, … of one group; `of` has more about some of them."""
    directory.mkdir(exist_ok=True)
    fleet = Fleet(directory)
    for number in range(1, count + 1):
        fleet.add(f"n{number}", **of.get(f"n{number}", {}))
    return fleet


def apply(fleet: Fleet, *options: str, **how: Any) -> Run:
    """Roll out to all of them, without a question."""
    return fleet_py("apply", fleet.inventory, "-y", "--json", *options, home=fleet.directory, **how)


def seen(fleet: Fleet, *arguments: str) -> Any:
    """What a command that looks back says, as JSON values."""
    run = fleet_py(*arguments, "--json", home=fleet.directory)
    assert run.code == 0, run.text
    return json.loads(run.stdout)


def hanging(directory: Path) -> Fleet:
    """Nodes that answer at once when they are read, and then hang for as long as a file says so."""
    fleet = played(directory, 2)
    text = fleet.inventory.read_text()
    gate = directory / "hang"
    # Loaded by each process: the plan's finds no file yet; the first wave's finds it.
    (directory / "fleet.py").write_text(
        text + f"\n_gate = Path({str(gate)!r})\n"
        "for _host in nodes[0]:\n    _host[1]['fake_delay'] = 60 if _gate.exists() else 0\n"
        "_gate.touch()\n"
    )
    return Frozen(directory, fleet.hosts)


class Frozen(Fleet):
    """A fleet whose inventory was written by hand."""

    @property
    def inventory(self) -> Path:
        return self.directory / "fleet.py"
