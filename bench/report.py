"""The figures as a table and as JSON. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any

from bench.measure import Cost

OURS, THEIRS = "userns-node", "Ansible"


@dataclass(frozen=True, slots=True)
class Fleet:
    """What one size of fleet costs. `real` hosts are a node each; the others are addresses of one, and run dry."""

    hosts: int
    real: bool
    costs: Mapping[str, list[Cost]] = field(default_factory=lambda: {OURS: [], THEIRS: []})

    @property
    def label(self) -> str:
        """The fleet in words."""
        if not self.real:
            return f"{self.hosts} addresses, dry"
        return f"{self.hosts} node{'s' if self.hosts > 1 else ''}"

    def median(self, tool: str, of: str) -> float:
        """The median over a tool's runs of one field of `Cost`."""
        return median(float(getattr(cost, of)) for cost in self.costs[tool])

    def times(self, of: str) -> float:
        """How many times as much Ansible takes."""
        return self.median(THEIRS, of) / self.median(OURS, of)


def markdown(fleets: Sequence[Fleet], commands: Mapping[str, int], cores: int) -> str:
    """The table that docs/explanation/speed.md quotes, and what has to be said with it."""
    rows = [
        ["a converged run over", OURS, THEIRS, "faster", f"{OURS}, CPU", f"{THEIRS}, CPU", "less CPU"],
        ["---", *["---:"] * 6],
    ]
    for fleet in fleets:
        row = [fleet.label]
        for of in ("wall", "controller_cpu"):
            row += [*(seconds(fleet.median(tool, of)) for tool in (OURS, THEIRS)), ratio(fleet.times(of))]
        rows.append(row)
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    real = max((fleet for fleet in fleets if fleet.real), key=lambda fleet: fleet.hosts)
    own = {tool: seconds(real.median(tool, "nodes_cpu") / real.hosts) for tool in (OURS, THEIRS)}
    return (
        f"{table}\n\n"
        f"A node runs {commands[OURS]} remote command{'s' if commands[OURS] > 1 else ''} for {OURS} and "
        f"{commands[THEIRS]} for {THEIRS}, and spends {own[OURS]} and {own[THEIRS]} of its own CPU on them. "
        f"CPU in the table is the controller's alone. The seconds hold the nodes' work too: all of them share "
        f"{cores} cores with the controller, so on a fleet of separate machines both tools are faster.\n"
    )


def seconds(value: float) -> str:
    """Seconds with as many digits as mean something."""
    return f"{value:.2f} s" if value < 10 else f"{value:.0f} s"


def ratio(value: float) -> str:
    """A ratio, rounded down: no figure is better than what was measured."""
    return f"{int(value)}x" if value >= 10 else f"{int(value * 10) / 10}x"


def progress(fleet: Fleet, tool: str, cost: Cost) -> str:
    """One run in one line."""
    return (
        f"{fleet.label:>18}  {tool:<11}  {cost.wall:7.2f} s, controller {cost.controller_cpu:6.2f} s of CPU, "
        f"nodes {cost.nodes_cpu:6.2f} s (load {cost.load:.1f})"
    )


def as_json(
    fleets: Sequence[Fleet], commands: Mapping[str, int], tasks: int, machine: Mapping[str, object]
) -> dict[str, Any]:
    """Everything that was measured, raw."""
    return {
        "machine": dict(machine),
        "remote_commands_a_node": dict(commands),
        "ansible_tasks": tasks,
        "fleets": [
            {
                "hosts": fleet.hosts,
                "nodes": "one real node each" if fleet.real else "addresses of one real node, dry",
                "runs": {tool: [_raw(cost) for cost in costs] for tool, costs in fleet.costs.items()},
                "times": {of: round(fleet.times(of), 1) for of in ("wall", "controller_cpu", "nodes_cpu")},
            }
            for fleet in fleets
        ],
    }


def _raw(cost: Cost) -> dict[str, float]:
    return {key: round(value, 3) for key, value in asdict(cost).items() if key not in ("status", "output")}
