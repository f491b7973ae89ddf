"""Run the fault harness. See `python -m tests.faults --help`."""

from __future__ import annotations

import argparse
import sys
from random import SystemRandom

from tests.faults import catalogue
from tests.faults.catalogue import CHANGES, Case
from tests.faults.crew import Crew
from tests.faults.running import Outcome


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description="Break a real node, again and again.")
    parser.add_argument("cases", nargs="*", type=Case.of, help="these alone, by name: kill@config:17, power@all:~0.4")
    parser.add_argument("--seed", type=int, help="draw the cases as a run did that printed this seed")
    parser.add_argument("--nodes", type=int, default=2, help="how many are broken side by side (default: 2)")
    return parser.parse_args()


def main() -> int:
    """Run the cases; 0 where no node is worse for it and no container died."""
    asked = arguments()
    seed = SystemRandom().randrange(10**6) if asked.seed is None else asked.seed
    outcomes = []
    with Crew(min(asked.nodes, len(asked.cases) or asked.nodes)) as crew:
        cases = asked.cases
        if not cases:
            lengths = crew.lengths(CHANGES)
            print("steps: " + ", ".join(f"{change} {length}" for change, length in lengths.items()), flush=True)
            cases = catalogue.whole(seed, lengths)
        print(f"seed {seed}: {len(cases)} cases", flush=True)
        for outcome in crew.run(cases, seed):
            outcomes.append(outcome)
            print(f"{len(outcomes):4}/{len(cases)} {outcome}", flush=True)
    return tell(outcomes, seed)


def tell(outcomes: list[Outcome], seed: int) -> int:
    """Sum up; the exit code. A fault that did not strike counts for none, and a run with one is not a good one."""
    missed = [outcome for outcome in outcomes if not outcome.struck and not outcome.problems]
    worse = [outcome for outcome in outcomes if outcome.problems]
    dead = [outcome for outcome in outcomes if outcome.dead]
    for what, some in (("did not strike", missed), ("worse", worse), ("a container died", dead)):
        for outcome in some:
            print(f"{what}: python -m tests.faults --seed {seed} '{outcome.case}'")
    print(f"faults={len(outcomes) - len(missed)} worse={len(worse)} dead_containers={len(dead)}")
    return 1 if missed or worse or dead or not outcomes else 0


if __name__ == "__main__":
    sys.exit(main())
