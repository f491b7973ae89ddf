"""What an apply tells at its end: what became of its nodes, and how to go on."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fleet import text
from fleet.plan import nodes_as_json
from fleet.records import Record, Status, totals
from fleet.terminal import say, tell
from tasks import next_step

__all__ = ["Ended"]


@dataclass(frozen=True, slots=True)
class Ended:
    """A run of apply that has ended. `nodes` are the hosts' names in Kubernetes; `begun`: it came to its waves."""

    run: int
    inventory: str
    outcome: str
    exit_code: int
    records: Sequence[Record]
    waves: Sequence[Mapping[str, Any]]
    nodes: Mapping[str, str]
    begun: bool

    def print_json(self) -> None:
        """As JSON values."""
        told = {"run": self.run, "inventory": self.inventory, "outcome": self.outcome, "exit_code": self.exit_code}
        told |= {"totals": totals(self.records), "waves": self.waves, "nodes": nodes_as_json(self.records)}
        print(json.dumps(told, indent=1, ensure_ascii=False))

    def print_text(self) -> None:
        """For people, with what is to be done next."""
        print("\n\n".join([*text.attention(self.records), f"{self.outcome}\n{text.summary(self.records)}"]))
        changed = [each for each in self.records if each.status is Status.CHANGED]
        if proven := {self.nodes[each.name]: each.label for each in changed if each.label}:
            tell("\n".join(next_step.steps(proven, f"fleet.py label {self.inventory}")))
        if waits := [self.nodes[each.name] for each in changed if each.awaits_kubelet]:
            tell("\n".join(next_step.restarts(waits, f"python fleet.py plan {self.inventory}, and label")))
        # One that changed nothing is none to resume: --resume would take an older one.
        if self.begun and any(each.status is Status.WAITING for each in self.records):
            say("go on with the same command and --resume")
