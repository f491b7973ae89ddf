"""The machine that the figures are of: without it they say nothing."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path


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
        memory_gib=_memory_gib(),
        processor=_processor(),
        kernel=platform.release(),
        python=platform.python_version(),
        pyinfra=version("pyinfra"),
        paramiko=version("paramiko"),
    )


def without_ansible() -> dict[str, str | int]:
    """The same where Ansible is not measured, and Dask is."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": _memory_gib(),
        "processor": _processor(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "pyinfra": version("pyinfra"),
        "distributed": version("distributed"),
    }


def _memory_gib() -> int:
    return round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30)


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
