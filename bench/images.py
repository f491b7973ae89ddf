"""What baking an image costs: a whole run of pyinfra over a prepared tree, for the first time and once more.

Nothing is subtracted: the start of Python and of pyinfra is in it. The assets lie on this machine's loopback, so that
no network is measured; fetching and verifying them is in it too.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from secrets import token_hex
from statistics import median
from typing import Any

from bench import environment
from bench.report import seconds
from lab import LabError, cache, loopback, mirror, tree
from lab.paths import BUILD, REPO

# Seconds that a bake may add to the building of an image.
GOALS = {"first": 5.0, "second": 1.0}


@dataclass(frozen=True, slots=True)
class Cost:
    """What one run cost, in seconds: `cpu` is that of all its processes; `load` is the machine's when it began."""

    wall: float
    cpu: float
    load: float


def measure(runs: int) -> dict[str, list[Cost]]:
    """Bake `runs` copies of a tree twice each. Raises LabError where one is not baked."""
    assets = mirror.build("testing")
    costs: dict[str, list[Cost]] = {name: [] for name in GOALS}
    with _home() as home, loopback.served(assets.root) as url:
        pristine = tree.build(home / "pristine", "testing", "6.12")
        for turn in range(runs):
            root = tree.copy(pristine, home / f"root{turn}")
            for name, found in costs.items():
                cost = _bake(root, home / "log", url, assets.lock, done=name == "second")
                told = f"{cost.wall:5.2f} s, {cost.cpu:5.2f} s of CPU (load {cost.load:.1f})"
                print(f"{name:>6} bake: {told}", flush=True)
                found.append(cost)
            cache.remove_tree(root)
    return costs


@contextmanager
def _home() -> Iterator[Path]:
    home = BUILD / "images" / f"bench-{token_hex(4)}"
    home.mkdir(parents=True)
    try:
        yield home
    finally:
        cache.remove_tree(home)


def _bake(root: Path, log: Path, url: str, lock: Path, *, done: bool) -> Cost:
    settings = {"release_url": url, "artifact_lock": str(lock), "containerd_version": None, "runc_version": None}
    data = [f"--data={name}={json.dumps(value)}" for name, value in settings.items()]
    command = [str(environment.operators() / "pyinfra"), "-y", *data, "inventories/golden.py", "deploy.py"]
    env = os.environ | {"IMAGE_ROOTS": str(root)}
    load, before, started = os.getloadavg()[0], _cpu(), time.perf_counter()
    with log.open("w") as output:
        end = subprocess.run(
            command, cwd=REPO, env=env, stdin=subprocess.DEVNULL, stdout=output, stderr=output, check=False
        )
    wall, cpu = time.perf_counter() - started, _cpu() - before
    said = log.read_text(errors="replace")
    if end.returncode or done is not ("nothing to do" in said):
        raise LabError(f"{' '.join(command)} exited with {end.returncode}:\n{said[-4000:]}")
    return Cost(wall, cpu, load)


def _cpu() -> float:
    """Seconds of CPU, user and system, of all processes that were started here and have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def table(costs: Mapping[str, Sequence[Cost]]) -> str:
    """The medians beside the goals, as Markdown."""
    rows = ["| a bake of an image | goal | time | CPU |", "| --- | ---: | ---: | ---: |"]
    for name, found in costs.items():
        wall, cpu = (median(getattr(cost, of) for cost in found) for of in ("wall", "cpu"))
        missed = "" if wall <= GOALS[name] else " (missed)"
        rows.append(f"| the {name} | {GOALS[name]:.0f} s | {seconds(wall)}{missed} | {seconds(cpu)} |")
    return "\n".join(rows)


def as_json(costs: Mapping[str, Sequence[Cost]], machine: Mapping[str, object]) -> dict[str, Any]:
    """Everything that was measured, raw."""
    return {
        "machine": dict(machine),
        "goals_seconds": GOALS,
        "bakes": {
            name: [{key: round(value, 3) for key, value in asdict(cost).items()} for cost in found]
            for name, found in costs.items()
        },
    }
