"""Which run a report is on, and which one it is compared with: never a part of a fleet with the whole. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from fleet.run import Run

__all__ = ["before", "reported"]


def reported(runs: Iterable[Run]) -> tuple[Run | None, Run | None]:
    """Of runs over one inventory, the latest first, the one that tells of all its nodes; and a newer one over a part.

    Where none was over the whole inventory it is the last one.
    """
    newer = None
    for run in runs:
        if run.knows_its_nodes:
            if run.is_whole:
                return run, newer
            newer = newer or run
    return newer, None


def before(run: Run, runs: Iterable[Run]) -> Run | None:
    """The run before this one, of those over the same choice of the same inventory, the latest first."""
    same = (each for each in runs if each.id < run.id and each.choice == run.choice)
    return next((each for each in same if each.knows_its_nodes), None)
