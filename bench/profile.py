"""Where a controller's CPU goes in a plan of converged nodes, by the packages that it is spent in.

    python -m bench.profile              200 addresses
    python -m bench.profile 50

The addresses are one node's, reached over real SSH, as in bench.plan. A profile makes Python slower, and calls more so
than what they do: read the shares, and none of the seconds.
"""

from __future__ import annotations

import argparse
import pstats
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench import environment
from bench.plan import Plans
from fleet.events import Request
from lab import Lab
from lab.errors import in_one_line
from lab.paths import REPO

# Counts CPU and no waiting: greenlets wait most of the time.
_PROFILED = """
import pyinfra_cli  # first, for it makes everything else wait as gevent does
import cProfile, os, sys, time
read, write = os.pipe()  # whose end is open until we are done
os.write(write, sys.argv[2].encode())
os.dup2(read, 0)
from fleet import runner
profile = cProfile.Profile(time.process_time)
profile.enable()
try:
    runner.main()
finally:
    profile.disable()
    profile.dump_stats(sys.argv[1])
"""


def profile(addresses: int) -> dict[str, float]:
    """Seconds by package. Raises LabError where the nodes can't be had, or the plan fails."""
    with Lab() as lab:
        request = Request(action="plan", inventory=str(Plans(lab).inventory(addresses)))
        stats = lab.home / "stats"
        asked = request.model_dump_json() + "\n"
        lab.run([environment.operators() / "python", "-c", _PROFILED, stats, asked], cwd=REPO, timeout=3600)
        return by_package(pstats.Stats(str(stats)))


def by_package(stats: pstats.Stats) -> dict[str, float]:
    """Seconds by package, a built-in's with those of its callers."""
    seconds: dict[str, float] = defaultdict(float)
    found: dict[tuple[str, int, str], tuple[int, int, float, float, dict[tuple[str, int, str], tuple[float, ...]]]]
    found = stats.stats  # type: ignore[attr-defined]
    for (file, _, _), (_, _, own, _, callers) in found.items():
        if file != "~":
            seconds[_package(file)] += own
            continue
        for (caller, _, _), called in callers.items():
            seconds[_package(caller)] += called[2]
    return seconds


def _package(file: str) -> str:
    parts = Path(file).parts
    if "site-packages" in parts:
        name = parts[parts.index("site-packages") + 1]
        return "pyinfra" if name.startswith("pyinfra") else name
    return "userns-node" if file.startswith(str(REPO)) else "Python's library"


def table(seconds: Mapping[str, float], least: float = 0.02) -> str:
    """The shares, as a table of Markdown; those below `least` are one."""
    whole = sum(seconds.values())
    shares = sorted(((own / whole, name) for name, own in seconds.items()), reverse=True)
    rows = [(name, share) for share, name in shares if share >= least]
    rows.append(("all others", 1 - sum(share for _, share in rows)))
    return "\n".join(
        ["| package | share of the CPU |", "| --- | ---: |", *(f"| {name} | {share:.0%} |" for name, share in rows)]
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Profile, and print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.profile", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("addresses", nargs="?", type=int, default=200, help="how many (200)")
    with in_one_line("bench", "its nodes are gone"):
        print(table(profile(parser.parse_args(argv).addresses)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
