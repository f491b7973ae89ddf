"""The machine that the figures are of: without it they say nothing."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from lab.paths import REPO

RESULTS = Path(__file__).with_name("results")


@dataclass(frozen=True, slots=True)
class Machine:
    """What decides how fast the runs are, and what ran."""

    date: str
    cores: int
    memory_gib: int
    processor: str
    kernel: str
    python: str
    pyinfra: str
    paramiko: str


def describe() -> Machine:
    """This machine, and the versions that were measured on it."""
    return Machine(
        date=datetime.now(UTC).date().isoformat(),
        cores=len(os.sched_getaffinity(0)),
        memory_gib=round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30),
        processor=_processor(),
        kernel=platform.release(),
        python=platform.python_version(),
        pyinfra=version("pyinfra"),
        paramiko=version("paramiko"),
    )


def keep(name: str, described: Machine, figures: Mapping[str, object]) -> None:
    """Write raw figures down, under the machine that they are of and `name`."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{described.date}-{described.cores}cores-{described.memory_gib}gib{name}.json"
    path.write_text(json.dumps(figures, indent=1) + "\n")
    print(f"Kept in {path.relative_to(REPO)}")


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
