"""What a deploy to fresh nodes takes, beside shell scripts that are sent over one SSH connection.

    python -m bench.fresh                1 and 4 fresh nodes, three times each; the figures are kept
    python -m bench.fresh --runs 1 2     others

All get the same assets from the same mirror in the lab's network, set up the same node, and prove it with containers
of both runtimes; the scripts go to all nodes at once. One script does the same steps: it is what a deploy ran on a node
(bench/steps.py), so what a deploy takes beyond it is pyinfra's and the controller's share. The other one is written by
hand (bench/fresh.sh) and does less: it asks nothing, probes nothing and keeps no way back. Each run has nodes of its
own, on which nothing was done before.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import ceil
from pathlib import Path
from statistics import median

from bench import fleet, machine, measure, steps
from bench.userns_node import UsernsNode
from lab import Lab, LabError, LabNode, mirror, ssh
from lab.errors import in_one_line
from lab.paths import REPO

SIZES = (1, 4)
OURS, SAME_STEPS, BY_HAND = "userns-node", "same steps", "by hand"
# The most that a deploy may take of what the script with the same steps takes.
GOAL = 1.25
SCRIPT = REPO / "bench" / "fresh.sh"


@dataclass(frozen=True, slots=True)
class Figure:
    """One run over fresh nodes: seconds of wall time, and of CPU on the controller and on the nodes."""

    tool: str
    nodes: int
    wall: float
    controller_cpu: float
    nodes_cpu: float
    load: float


class Fresh:
    """Nodes for one run each."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._settings = fleet.settings(lab)
        self._assets = mirror.build(fleet.SUITE)
        self._count = 0
        self._same_steps = lab.home / "same-steps.sh"

    def record(self) -> None:
        """Deploy to a node for what is run there: the script with the same steps."""
        node = self._lab.node("recorded", fleet.SUITE)
        steps.record(node)
        cost = measure.run(self._lab, self._ours([node]), cwd=REPO, env={}, nodes=[node], timeout=3600)
        self._check(OURS, 1, cost)
        self._same_steps.write_text(steps.recorded(node))
        node.stop()

    def run(self, tool: str, size: int) -> Figure:
        """Set up that many. Raises LabError where one does not end up proven."""
        nodes = [self._lab.node(f"fresh{self._next()}", fleet.SUITE, wait=False) for _ in range(size)]
        try:
            for node in nodes:
                node.wait()
            cost = measure.run(self._lab, self._command(tool, nodes), cwd=REPO, env={}, nodes=nodes, timeout=3600)
            self._check(tool, size, cost)
            for node in nodes:
                node.ssh(
                    "systemctl is-active containerd && systemctl is-enabled containerd && test -e /usr/local/bin/crun"
                )
        finally:
            for node in nodes:
                node.stop()
        return Figure(tool, size, cost.wall, cost.controller_cpu, cost.nodes_cpu, cost.load)

    def _next(self) -> int:
        self._count += 1
        return self._count

    def _command(self, tool: str, nodes: Sequence[LabNode]) -> Sequence[str | Path]:
        if tool == OURS:
            return self._ours(nodes)
        return self._in_one_script(nodes) if tool == SAME_STEPS else self._by_hand(nodes)

    def _ours(self, nodes: Sequence[LabNode]) -> list[str]:
        hosts = {node.name: self._lab.ssh_data(node) for node in nodes}
        return UsernsNode(self._lab).command(hosts, self._settings, dry=False)

    def _by_hand(self, nodes: Sequence[LabNode]) -> list[str | Path]:
        found = (self._assets.asset(component) for component in ("containerd", "runc", "crun"))
        words = [str(self._settings["release_url"]), *(f"{asset.sha256}:{asset.path}" for asset in found)]
        return self._to_all(nodes, SCRIPT, *words, *map(str, fleet.ID_RANGE))

    def _in_one_script(self, nodes: Sequence[LabNode]) -> list[str | Path]:
        return self._to_all(nodes, self._same_steps)

    def _to_all(self, nodes: Sequence[LabNode], script: Path, *words: str) -> list[str | Path]:
        """One connection to each node, all at once, with a script for its shell."""
        shell = shlex.join(["sh", "-s", *words])
        logins = (shlex.join(ssh.command(self._lab.home, node.address, shell)) for node in nodes)
        to_all = "".join(f'{login} <{shlex.quote(str(script))} & all="$all $!"\n' for login in logins)
        return ["sh", "-euc", f"all=\n{to_all}for each in $all; do wait $each; done"]

    @staticmethod
    def _check(tool: str, size: int, cost: measure.Cost) -> None:
        """That all of it worked. A step that proves nothing fails, and with it the script with the same steps."""
        ends = {
            OURS: ("runc: proven", "crun: proven"),
            SAME_STEPS: (steps.DONE,),
            BY_HAND: ("runc: 0 65536 65536", "crun: 0 65536 65536"),
        }
        if cost.status or any(cost.output.count(end) < size for end in ends[tool]):
            raise LabError(f"{tool} did not set up {size} nodes:\n{cost.output[-4000:]}")


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print the table, keep the figures."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.fresh", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sizes", nargs="*", type=int, default=SIZES, help="how many nodes (1 4)")
    parser.add_argument("--runs", type=int, default=3, help="how often each is measured (3); the median counts")
    options = parser.parse_args(argv)
    figures = []
    with in_one_line("bench", "its nodes are gone"), Lab() as lab:
        fresh = Fresh(lab)
        fresh.record()
        # The tools take turns, so that what else the machine does falls on all.
        for size in options.sizes:
            for _ in range(options.runs):
                for tool in (BY_HAND, SAME_STEPS, OURS):
                    figures.append(fresh.run(tool, size))
                    print(progress(figures[-1]), flush=True)
    print(table(figures))
    if tuple(options.sizes) == SIZES:
        described = machine.describe()
        raw = {"machine": asdict(described), "goal": GOAL, "runs": [asdict(each) for each in figures]}
        machine.keep("-fresh", described, raw)
    return 0


def progress(figure: Figure) -> str:
    """One run in one line."""
    cpu = f"CPU: controller {figure.controller_cpu:.1f} s, nodes {figure.nodes_cpu:.1f} s"
    return f"{figure.nodes} fresh, {figure.tool:12} {figure.wall:6.1f} s   {cpu} (load {figure.load:.1f})"


def times(figures: Sequence[Figure], size: int, beside: str) -> float:
    """How many times as long a deploy takes as the script `beside`, by the medians of their walls."""
    return _median(figures, size, OURS, "wall") / _median(figures, size, beside, "wall")


def _median(figures: Sequence[Figure], size: int, tool: str, of: str) -> float:
    return median(float(getattr(each, of)) for each in figures if (each.tool, each.nodes) == (tool, size))


def table(figures: Sequence[Figure]) -> str:
    """The medians, as a table of Markdown."""
    lines = [
        f"| fresh nodes | userns-node | the same steps | ratio (goal {GOAL}) | by hand | ratio | the nodes' own CPU |",
        "| ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for size in sorted({each.nodes for each in figures}):
        tools = (OURS, SAME_STEPS, BY_HAND)
        ours, same, hand = (f"{_median(figures, size, tool, 'wall'):.1f} s" for tool in tools)
        cpu = ", ".join(f"{_median(figures, size, tool, 'nodes_cpu'):.1f} s" for tool in tools)
        # Never better than they were measured.
        beside = {tool: f"{ceil(times(figures, size, tool) * 100) / 100:.2f}" for tool in (SAME_STEPS, BY_HAND)}
        beside[SAME_STEPS] += " (missed)" if times(figures, size, SAME_STEPS) > GOAL else ""
        lines.append(f"| {size} | {ours} | {same} | {beside[SAME_STEPS]} | {hand} | {beside[BY_HAND]} | {cpu} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
