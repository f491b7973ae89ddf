"""Which run a report is on, and which one it is compared with: never a part, or a "what if", with it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from fleet.run import Run

__all__ = ["before", "reported"]


def reported(runs: Iterable[Run]) -> tuple[Run | None, Run | None]:
    """Of runs over one inventory, the latest first, the one that tells of it as it is; and a newer one that does not.

    Where there is none, it is the last one over all nodes, and else the last one.
    """
    newer = all_nodes = None
    for run in runs:
        if run.knows_its_nodes:
            if run.is_whole:
                return run, newer
            newer = newer or run
            all_nodes = all_nodes or (run if run.has_all_nodes else None)
    return all_nodes or newer, newer if all_nodes not in (None, newer) else None


def before(run: Run, runs: Iterable[Run]) -> Iterator[Run]:
    """The runs before this one, of those over the same choice of the same inventory, the latest first."""
    return (each for each in runs if each.id < run.id and each.choice == run.choice and each.knows_its_nodes)
