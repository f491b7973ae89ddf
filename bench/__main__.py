"""Boot the fleets, measure, report: see the package."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict

import bench
from bench import ansible, fleet, images, machine, many, measure, report
from bench.ansible import Ansible
from bench.report import OURS, Fleet
from bench.userns_node import UsernsNode
from lab import Lab, LabError, LabNode
from lab.errors import in_one_line
from lab.paths import REPO

REAL = (1, 10)
ADDRESSES = (50, 100)
# Ansible takes minutes for so many, and spreads little over them.
ANSIBLE_RUNS_OF_MANY = 1
RUN_SECONDS = 3600

Hosts = Mapping[str, Mapping[str, object]]
Tool = Ansible | UsernsNode


class Bench:
    """One lab and its settings, with the two tools, and what they were found to cost."""

    def __init__(self, lab: Lab, runs: int) -> None:
        self.lab = lab
        self.runs = runs
        self.settings = fleet.settings(lab)
        self.fleets: list[Fleet] = []
        self.commands: dict[str, int] = {}
        self.tasks = 0

    def real(self, sizes: Sequence[int]) -> None:
        """Measure fleets of real nodes, each of them deployed to first."""
        say(f"Booting {max(sizes)} nodes, and deploying to them")
        nodes = fleet.boot(self.lab, max(sizes))
        hosts = {node.name: self.lab.ssh_data(node) for node in nodes}
        tools = self._converge(hosts, nodes[0])
        self._count_commands(tools, hosts, nodes)
        for size in sizes:
            chosen = dict(list(hosts.items())[:size])
            self._measure(Fleet(size, real=True), tools, chosen, nodes[:size], self.runs)
        for node in nodes:
            node.stop()

    def addresses(self, sizes: Sequence[int]) -> None:
        """Measure fleets of addresses: what the controller does is the same, and one node answers for all."""
        say(f"Booting one node with {max(sizes)} addresses, and deploying to it")
        hosts = self.lab.light_nodes(max(sizes))
        (node,) = self.lab.nodes.values()
        assert isinstance(node, LabNode)
        fleet.give_python(self.lab, node)
        tools = self._converge({node.name: self.lab.ssh_data(node)}, node)
        for size in sizes:
            chosen = dict(list(hosts.items())[:size])
            self._measure(Fleet(size, real=False), tools, chosen, [node], ANSIBLE_RUNS_OF_MANY)

    def _converge(self, hosts: Hosts, example: LabNode) -> tuple[UsernsNode, Ansible]:
        ours = UsernsNode(self.lab)
        ours.deploy(hosts, self.settings)
        return ours, Ansible(self.lab, example)

    def _count_commands(self, tools: Sequence[Tool], hosts: Hosts, nodes: Sequence[LabNode]) -> None:
        """Also warms up what only a first run pays for, such as the bytecode of the nodes' Python."""
        say("Counting the remote commands of a converged run in the log of a node's sshd")
        for tool in tools:
            with measure.SessionLog(nodes[0]) as log:
                tasks = self._run(tool, hosts, nodes, dry=False)[1]
            self.commands[tool.name] = log.sessions
            self.tasks = max(self.tasks, tasks)
            print(f"{tool.name}: {log.sessions} commands on a node", flush=True)

    def _measure(
        self, size: Fleet, tools: Sequence[Tool], hosts: Hosts, nodes: Sequence[LabNode], ansible_runs: int
    ) -> None:
        """The tools take turns, so that what else the machine does falls on both."""
        say(size.label)
        self.fleets.append(size)
        for turn in range(self.runs):
            for tool in tools:
                if tool.name == OURS or turn < ansible_runs:
                    cost = self._run(tool, hosts, nodes, dry=not size.real)[0]
                    size.costs[tool.name].append(cost)
                    print(report.progress(size, tool.name, cost), flush=True)

    def _run(self, tool: Tool, hosts: Hosts, nodes: Sequence[LabNode], *, dry: bool) -> tuple[measure.Cost, int]:
        command = tool.command(hosts, self.settings, dry=dry)
        cost = measure.run(self.lab, command, cwd=REPO, env=tool.environment, nodes=nodes, timeout=RUN_SECONDS)
        if cost.status:
            raise LabError(f"{' '.join(command)} exited with {cost.status}:\n{cost.output[-4000:]}")
        return cost, tool.check(cost.output, list(hosts))


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print the table, and keep the figures."""
    if (argv := sys.argv[1:] if argv is None else argv)[:1] == ["many"]:
        return many.main(argv[1:])
    parser = argparse.ArgumentParser(
        prog="python -m bench", description=bench.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", nargs="?", choices=("fleet", "images"), help="only this (both)")
    parser.add_argument("--quick", action="store_true", help="only the real nodes, one run each; keeps no figures")
    parser.add_argument("--runs", type=int, default=3, help="how often each is measured (3); the median counts")
    arguments = parser.parse_args(argv)
    runs = 1 if arguments.quick else max(1, arguments.runs)
    with in_one_line("bench", "its nodes are gone"):
        if arguments.what != "fleet":
            bake(runs, kept=not arguments.quick)
        if arguments.what != "images":
            converge(runs, quick=arguments.quick)
    return 0


def bake(runs: int, *, kept: bool) -> None:
    """Measure bakes of an image, print the table, and keep the figures."""
    say("Baking an image, and the same once more")
    costs = images.measure(runs)
    say("Medians")
    print(images.table(costs))
    if kept:
        described = machine.describe()
        machine.keep("-images", described, images.as_json(costs, asdict(described)))


def converge(runs: int, *, quick: bool) -> None:
    """Measure runs over fleets, beside Ansible, print the table, and keep the figures."""
    ansible.installed()  # before there is a node
    with Lab() as lab:
        measured = Bench(lab, runs)
        measured.real(REAL)
        if not quick:
            measured.addresses(ADDRESSES)
    described = machine.describe()
    say("Medians")
    print(report.markdown(measured.fleets, measured.commands, described.cores))
    if not quick:
        about = asdict(described) | ansible.described()
        machine.keep("", described, report.as_json(measured.fleets, measured.commands, measured.tasks, about))


def say(text: str) -> None:
    """A headline."""
    print(f"\n==> {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
