"""Standard error, which may go away: a terminal hangs up, the other end of a pipe is interrupted with us."""

from __future__ import annotations

import os
import sys

__all__ = ["say", "tell"]


def tell(line: str) -> None:
    """Print a line for people. Where nobody is there any more, the run goes on: nodes may be in flight."""
    try:
        print(line, file=sys.stderr, flush=True)
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 2)
        os.close(nowhere)


def say(line: str) -> None:
    """Tell it as our own word, beside what pyinfra and others print."""
    tell(f"fleet: {line}")
