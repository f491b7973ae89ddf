"""How runs end: what the outcome of one is, or begins with. People have histories that hold these words. Pure."""

from __future__ import annotations

__all__ = [
    "BEFORE_A_WAVE",
    "BROKEN_OFF",
    "DECLINED",
    "DONE",
    "ENDED_BY_HAND",
    "EXIT_INTERRUPTED",
    "INTERRUPTED",
    "INTERRUPTED_BEFORE",
    "IN_FLIGHT",
    "NOT_BEGUN",
    "STOPPED",
]

DONE = "done"
DECLINED = "declined"
NOT_BEGUN = "did not begin"
INTERRUPTED_BEFORE = "interrupted before anything was changed"
INTERRUPTED = "interrupted"
STOPPED = "stopped"
BROKEN_OFF = "broken off"
ENDED_BY_HAND = "ended by hand"
# Of a run that has begun no wave, and so has changed nothing.
BEFORE_A_WAVE = (NOT_BEGUN, DECLINED, INTERRUPTED_BEFORE)
# The reason of a node whose change was not seen to its end. While the run goes on, that is to come.
IN_FLIGHT = (
    "it was being changed when this was written down: what has begun there goes on by itself, and finishes or undoes "
    "itself"
)
EXIT_INTERRUPTED = 130
