"""What `fleet.py plan` costs one controller, from ten nodes to five thousand.

    python -m bench.plan                      10, 100 and 1,000 addresses, 1,000 and 5,000 played nodes, three runs each
    python -m bench.plan --runs 1 50          others; only the first is kept
    python -m bench.plan --runs 1 --played 2000

Beside each plan of addresses stands the least that pyinfra could do there: `pyinfra INVENTORY exec -- true`.

All addresses are one converged node's, reached over real SSH, whose own work shares the machine with the controller:
wall time is an upper bound, and the controller's CPU and memory are what a controller of separate nodes needs. Those
would read themselves on cores of their own, all at once: so there is also a plan of addresses that give the node's
answer as it was recorded. Played nodes are those of pyinfra's connector @fake: all that a controller does but SSH.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import product
from pathlib import Path
from statistics import median

from bench import environment, fleet, machine, measure, steps
from bench.userns_node import UsernsNode
from lab import Lab, LabError, LabNode
from lab.errors import in_one_line
from lab.paths import REPO
from tests import nodes
from tests.deploy.fleet import Fleet

SIZES = (10, 100, 1000)
PLAYED = (1000, 5000)
MOST = 1000
PLAN, ANSWERED, TRUE, PLAY = "a plan", "a plan, answered", "`true`", "a plan, played"

# Says at the end how much memory the largest of its processes had.
_REMEMBER = """
import resource, subprocess, sys
code = subprocess.call(sys.argv[1:])
print("peak-kib", resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(code)
"""


@dataclass(frozen=True, slots=True)
class Figure:
    """One run: seconds of wall time and of CPU, and MiB of the largest process."""

    nodes: int
    what: str
    wall: float
    controller_cpu: float
    nodes_cpu: float
    peak_mib: float
    load: float


class Plans:
    """A converged node with many addresses, and inventories of some of them, or of played ones."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab

    @cached_property
    def _addresses(self) -> tuple[LabNode, list[tuple[str, dict[str, object]]]]:
        settings = fleet.settings(self._lab)
        hosts = self._lab.light_nodes(MOST)
        (node,) = self._lab.nodes.values()
        assert isinstance(node, LabNode)
        UsernsNode(self._lab).deploy({node.name: self._lab.ssh_data(node)}, settings)
        return node, [(name, {**data, **settings}) for name, data in hosts.items()]

    def run(self, size: int) -> Figure:
        """Plan that many addresses. Raises LabError where one was not found converged."""
        return self._measure(PLAN, size, self._plan(self.inventory(size)), [self._addresses[0]])

    def answered(self, size: int) -> Figure:
        """Plan that many addresses, of which none reads itself: its answer is that of the first."""
        node = self._addresses[0]
        with steps.answering(node):
            self._measure(ANSWERED, 1, self._plan(self.inventory(1)), [node])
            return self._measure(ANSWERED, size, self._plan(self.inventory(size)), [node])

    def least(self, size: int) -> Figure:
        """Log in to that many addresses, and run nothing."""
        pyinfra = environment.operators() / "pyinfra"
        command: list[str | Path] = [pyinfra, "-y", self.inventory(size), "exec", "--", "true"]
        return self._measure(TRUE, size, command, [self._addresses[0]])

    def inventory(self, size: int) -> Path:
        """An inventory of so many of the node's addresses."""
        inventory = self._lab.home / "many.py"
        inventory.write_text(f"nodes = {self._addresses[1][:size]!r}\n")
        return inventory

    def play(self, size: int) -> Figure:
        """Plan that many played nodes. Raises LabError where one was not found converged."""
        home = self._lab.home / f"played-{size}"
        home.mkdir(exist_ok=True)
        made = Fleet(home)
        for number in range(size):
            made.add(f"n{number:05}", nodes.converged())
        return self._measure(PLAY, size, self._plan(made.inventory), [])

    def _plan(self, inventory: Path) -> list[str | Path]:
        history, python = self._lab.home / "history.sqlite", environment.operators() / "python"
        return [python, REPO / "fleet.py", "plan", inventory, "--json", "--history", history]

    def _measure(self, what: str, size: int, run: Sequence[str | Path], running: Sequence[LabNode]) -> Figure:
        command = [sys.executable, "-c", _REMEMBER, *run]
        cost = measure.run(self._lab, command, cwd=REPO, env={}, nodes=running, timeout=3600)
        if cost.status:
            raise LabError(f"{what} of {size} nodes exited with {cost.status}:\n{cost.output[-4000:]}")
        peak = int(cost.output.rpartition("peak-kib ")[2].split()[0]) / 1024
        return Figure(size, what, cost.wall, cost.controller_cpu, cost.nodes_cpu, peak, cost.load)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print the table, keep the figures."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.plan", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sizes", nargs="*", type=int, help="how many addresses (10 100 1000)")
    parser.add_argument("--played", nargs="*", type=int, default=[], help="how many played nodes (1000 5000)")
    parser.add_argument("--runs", type=int, default=3, help="how often each is measured (3); the median counts")
    options = parser.parse_args(argv)
    whole = not options.sizes and not options.played
    sizes, played = (SIZES, PLAYED) if whole else (options.sizes, options.played)
    figures = []
    with in_one_line("bench", "its nodes are gone"), Lab() as lab:
        plans = Plans(lab)
        for of, runs in ((sizes, (plans.least, plans.answered, plans.run)), (played, (plans.play,))):
            for size, _, run in product(of, range(options.runs), runs):
                figures.append(run(size))
                print(progress(figures[-1]), flush=True)
    described = machine.describe()
    print(table(figures))
    if whole:
        raw = {"machine": asdict(described), "runs": [asdict(each) for each in figures]}
        machine.keep("-plan", described, raw)
    return 0


def progress(figure: Figure) -> str:
    """One run in one line."""
    cpu = f"CPU: controller {figure.controller_cpu:.1f} s, nodes {figure.nodes_cpu:.1f} s"
    run = f"{figure.nodes:5} nodes, {figure.what:16} {figure.wall:6.1f} s"
    return f"{run}   {cpu}; {figure.peak_mib:.0f} MiB (load {figure.load:.1f})"


def table(figures: Sequence[Figure]) -> str:
    """The medians, as a table of Markdown."""
    lines = [
        "| converged nodes | | wall | controller CPU | a node | the nodes' own CPU | peak memory |",
        "| ---: | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for what, size in dict.fromkeys((each.what, each.nodes) for each in figures):
        runs = [each for each in figures if (each.what, each.nodes) == (what, size)]
        names = ("wall", "controller_cpu", "nodes_cpu", "peak_mib")
        wall, cpu, theirs, peak = (median(float(getattr(each, name)) for each in runs) for name in names)
        lines.append(
            f"| {size:,} | {what} | {wall:.1f} s | {cpu:.1f} s | {1000 * cpu / size:.0f} ms | {theirs:.1f} s "
            f"| {peak:.0f} MiB |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
