"""Labs that were left running after their owner's end (`make demo KEEP=1`)."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

from lab import ssh as logins
from lab import traces
from lab.entering import inside
from lab.errors import LabError
from lab.paths import LABS, REPO


@dataclass(frozen=True, slots=True)
class Detached:
    """A lab that was left running: its processes, and its nodes' addresses by name."""

    home: Path
    keeper: int
    holder: int
    nodes: dict[str, str]


def remember(lab: Detached) -> None:
    """Write down what the commands below need."""
    state = {"keeper": lab.keeper, "holder": lab.holder, "nodes": lab.nodes}
    (lab.home / "detached.json").write_text(json.dumps(state))


def running() -> list[Detached]:
    """The labs that were left running and still are."""
    states = [path for path in sorted(LABS.glob("*/detached.json")) if traces.is_alive(path.parent.name)]
    return [Detached(path.parent, **json.loads(path.read_text())) for path in states]


def login(node: str) -> str:
    """What an operator types, in this repository, to log in to a node that was left running."""
    python = Path(sys.executable)
    shown = python.relative_to(REPO) if python.is_relative_to(REPO) else python
    return f"{shown} -m lab ssh {node}"


def ssh(node: str, words: str = "") -> list[str]:
    """The command that logs in to a node."""
    for lab in running():
        if node in lab.nodes:
            return inside(lab.holder, logins.command(lab.home, lab.nodes[node], words))
    known = [name for lab in running() for name in lab.nodes]
    raise LabError(f"no node named {node} was left running ({', '.join(known) or 'none was'})")


def end() -> list[str]:
    """End them all, and return the names of their nodes once they are gone, their keepers too."""
    labs = running()
    keepers = []
    for lab in labs:
        with contextlib.suppress(ProcessLookupError):
            keepers.append((lab, os.pidfd_open(lab.keeper)))
            os.kill(lab.keeper, signal.SIGTERM)
    for lab, keeper in keepers:
        ended = select.select([keeper], [], [], 180)[0]
        os.close(keeper)
        if not ended:
            raise LabError(f"the lab {lab.home.name} did not end: its keeper is process {lab.keeper}")
    return [name for lab in labs for name in lab.nodes]
