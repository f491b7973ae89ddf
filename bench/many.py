"""What a second Dask worker brings, and what a node costs its worker, the scheduler and the controller.

    python -m bench many                    4,000 played nodes; one worker and two take turns, three times each
    python -m bench many --nodes 800

A plan over converged nodes that pyinfra's connector @fake plays: all that a controller does but SSH itself. The workers
have one core each, so that this needs two that are idle: the load of the machine is written down with every run.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median

from bench import machine
from lab import LabError
from lab.errors import in_one_line
from lab.paths import BUILD, REPO
from tests import nodes
from tests.deploy.fleet import Fleet
from tests.fleet.clusters import Cluster
from tests.node.faults import wait_for

WORKERS = ("w1", "w2")
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Cost:
    """One run: seconds, and seconds of CPU; `load` is the machine's when it began."""

    workers: int
    nodes: int
    wall: float
    workers_cpu: float
    scheduler_cpu: float
    controller_cpu: float
    load: float


def main(argv: Sequence[str]) -> int:
    """Measure, print, and keep the figures."""
    parser = argparse.ArgumentParser(
        prog="python -m bench many", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nodes", type=int, default=4000, help="how many are played (4000)")
    parser.add_argument("--runs", type=int, default=3, help="how often each is measured (3); the median counts")
    arguments = parser.parse_args(argv)
    costs: list[Cost] = []
    with in_one_line("bench", "its processes are gone"):
        BUILD.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=BUILD) as home:
            _run(Path(home), arguments.nodes, max(1, arguments.runs), costs)
    print(summary(costs))
    keep(costs)
    return 0


def _run(home: Path, count: int, runs: int, costs: list[Cost]) -> None:
    fleet = Fleet(home)
    for number in range(count):
        fleet.add(f"n{number:05}", nodes.converged())
    inventory = fleet.inventory
    for turn in range(runs):
        for workers in (1, len(WORKERS)):
            # A cluster of its own: a worker that is idle beside the one that is measured would be used.
            with Cluster(home / f"dask-{turn}-{workers}") as cluster:
                names = WORKERS[:workers]
                cluster.begin(*names)
                wait_for(lambda: all("Registered to" in cluster.log(name) for name in names))  # noqa: B023 (in this turn)
                cost = _measure(cluster, names, inventory, home, count)
            costs.append(cost)
            print(progress(cost), flush=True)


def _measure(cluster: Cluster, names: Sequence[str], inventory: Path, home: Path, count: int) -> Cost:
    before = {name: _cpu(cluster.processes[name].pid) for name in (*names, "scheduler")}
    load, children = os.getloadavg()[0], os.times()
    words: list[str | Path] = [sys.executable, REPO / "fleet.py", "plan", inventory, "--scheduler", cluster.address]
    began = time.perf_counter()
    done = subprocess.run([*words, "--history", home / "history.db"], capture_output=True, text=True, check=False)
    wall = time.perf_counter() - began
    if done.returncode or f"{count} nodes: {count} ready" not in done.stdout:
        raise LabError(f"not every node was found ready:\n{(done.stdout + done.stderr)[-3000:]}")
    used = {name: _cpu(cluster.processes[name].pid) - cpu for name, cpu in before.items()}
    after = os.times()
    own = after.children_user + after.children_system - children.children_user - children.children_system
    return Cost(len(names), count, wall, sum(used[name] for name in names), used["scheduler"], own, load)


def _cpu(pid: int) -> float:
    """Seconds of CPU of a process, with those of the children that it has waited for (proc_pid_stat(5))."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(int(ticks) for ticks in fields[11:15]) / TICKS


def speedup(costs: Sequence[Cost]) -> float:
    """How many times as fast two workers are, by the medians of their walls."""
    one, two = (median(cost.wall for cost in costs if cost.workers == workers) for workers in (1, len(WORKERS)))
    return one / two


def per_node(costs: Sequence[Cost]) -> dict[str, float]:
    """Milliseconds of CPU that a node costs each of them, by the medians of all runs."""
    of = ("workers_cpu", "scheduler_cpu", "controller_cpu")
    return {name: round(1000 * median(getattr(cost, name) / cost.nodes for cost in costs), 2) for name in of}


def progress(cost: Cost) -> str:
    """One run in one line."""
    return (
        f"{cost.workers} worker{'s' if cost.workers > 1 else ' '}  {cost.nodes} nodes  {cost.wall:7.2f} s   "
        f"CPU: workers {cost.workers_cpu:6.2f} s, scheduler {cost.scheduler_cpu:5.2f} s, "
        f"controller {cost.controller_cpu:5.2f} s (load {cost.load:.1f})"
    )


def summary(costs: Sequence[Cost]) -> str:
    """What it comes to."""
    each = per_node(costs)
    return (
        f"two workers are {int(speedup(costs) * 100) / 100} times as fast as one; a node costs "
        f"{each['workers_cpu']} ms of CPU on its worker, {each['scheduler_cpu']} ms on the scheduler, "
        f"{each['controller_cpu']} ms on the controller"
    )


def keep(costs: Sequence[Cost]) -> None:
    """Write the raw figures down."""
    described = machine.describe()
    figures = {
        "machine": asdict(described) | {"distributed": version("distributed")},
        "nodes": "played by pyinfra's connector @fake, converged; a plan",
        "speedup_of_two_workers": round(speedup(costs), 2),
        "cpu_ms_per_node": per_node(costs),
        "runs": [{name: round(value, 3) for name, value in asdict(cost).items()} for cost in costs],
    }
    machine.keep("-many", described, figures)
