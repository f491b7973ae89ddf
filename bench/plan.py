"""What `fleet.py plan` costs one controller, from ten nodes to a thousand: over real SSH, to addresses of one node.

    python -m bench.plan                 10, 100 and 1,000 addresses, three runs each; the figures are kept
    python -m bench.plan --runs 1 50     others

All addresses are one converged node's, whose own work shares the machine with the controller: wall time is an upper
bound, and the controller's CPU and memory are what a controller of separate nodes needs.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from bench import fleet, machine, measure
from bench.userns_node import UsernsNode
from lab import Lab, LabError, LabNode
from lab.paths import REPO

SIZES = (10, 100, 1000)

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
    wall: float
    controller_cpu: float
    nodes_cpu: float
    peak_mib: float
    load: float


class Plans:
    """A converged node with many addresses, and an inventory of some of them."""

    def __init__(self, lab: Lab, most: int) -> None:
        self._lab = lab
        self._settings = fleet.settings(lab)
        self._hosts = lab.light_nodes(most)
        (node,) = lab.nodes.values()
        assert isinstance(node, LabNode)
        self._node = node
        UsernsNode(lab).deploy({node.name: lab.ssh_data(node)}, self._settings)

    def run(self, size: int) -> Figure:
        """Plan that many. Raises LabError where one was not found converged."""
        inventory = self._lab.home / "many.py"
        nodes = [(name, {**data, **self._settings}) for name, data in list(self._hosts.items())[:size]]
        inventory.write_text(f"nodes = {nodes!r}\n")
        history = self._lab.home / "history.sqlite"
        command: list[str | Path] = [
            sys.executable,
            "-c",
            _REMEMBER,
            sys.executable,
            REPO / "fleet.py",
            "plan",
            inventory,
            "--json",
        ]
        cost = measure.run(
            self._lab, [*command, "--history", history], cwd=REPO, env={}, nodes=[self._node], timeout=3600
        )
        if cost.status:
            raise LabError(f"the plan of {size} addresses exited with {cost.status}:\n{cost.output[-4000:]}")
        peak = int(cost.output.rpartition("peak-kib ")[2].split()[0]) / 1024
        return Figure(size, cost.wall, cost.controller_cpu, cost.nodes_cpu, peak, cost.load)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print the table, keep the figures."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.plan", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sizes", nargs="*", type=int, default=SIZES, help="how many addresses (10 100 1000)")
    parser.add_argument("--runs", type=int, default=3, help="how often each is measured (3); the median counts")
    options = parser.parse_args(argv)
    try:
        with Lab() as lab:
            plans = Plans(lab, max(options.sizes))
            figures = [plans.run(size) for size in sorted(options.sizes) for _ in range(options.runs)]
    except LabError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    described = machine.describe()
    print(table(figures))
    if tuple(options.sizes) == SIZES:
        raw = {"machine": asdict(described), "runs": [asdict(each) for each in figures]}
        machine.keep("-plan", described, raw)
    return 0


def table(figures: Sequence[Figure]) -> str:
    """The medians, as a table of Markdown."""
    lines = [
        "| converged nodes | wall | controller CPU | a node | peak memory |",
        "| ---: | ---: | ---: | ---: | ---: |",
    ]
    for size in sorted({each.nodes for each in figures}):
        runs = [each for each in figures if each.nodes == size]
        wall, cpu, peak = (median(getattr(each, of) for each in runs) for of in ("wall", "controller_cpu", "peak_mib"))
        lines.append(f"| {size} | {wall:.1f} s | {cpu:.1f} s | {1000 * cpu / size:.0f} ms | {peak:.0f} MiB |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
