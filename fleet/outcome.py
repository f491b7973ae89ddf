"""How runs end: what the outcome of one is, or begins with. People have histories that hold these words. Pure."""

from __future__ import annotations

__all__ = [
    "BROKEN_OFF",
    "DECLINED",
    "DONE",
    "ENDED_BY_HAND",
    "EXIT_INTERRUPTED",
    "INTERRUPTED",
    "INTERRUPTED_BEFORE",
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
EXIT_INTERRUPTED = 130
