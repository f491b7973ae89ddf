"""The last word on each node, of several runs that had it: by when it was said, and not by when its run began."""

from __future__ import annotations

from collections.abc import Sequence

from fleet.history import History
from fleet.records import Record
from fleet.run import Run

__all__ = ["last_words", "rollouts_beside"]


def last_words(history: History, runs: Sequence[tuple[Run, bool]]) -> dict[str, Record]:
    """The last record of each node. Of each run, the latest first: whether all it found counts, or its waves alone."""
    found = dict[str, tuple[str, Record]]()
    for run, reads in reversed(runs):
        settled = history.settled(run.id)
        for each in history.records(run.id):
            when = settled.get(each.name, run.span[0])  # a run reads at some time after it began
            if (reads or each.name in settled) and when >= found.get(each.name, ("",))[0]:
                found[each.name] = when, each
    return {name: record for name, (_, record) in found.items()}


def rollouts_beside(history: History, run: Run) -> list[tuple[Run, bool]]:
    """The rollouts that had begun before a run and went on beside it: their waves may be newer than what it read."""
    return [(each, False) for each in history.still_at_it(run)]
