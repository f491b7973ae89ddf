"""Standard error, which may go away: a terminal hangs up, the other end of a pipe is interrupted with us."""

from __future__ import annotations

import os
import sys

__all__ = ["interject", "say", "tell"]


def tell(line: str) -> None:
    """Print a line for people. Where nobody is there any more, the run goes on: nodes may be in flight."""
    try:
        print(line, file=sys.stderr, flush=True)
    except OSError:
        _tell_nobody()


def say(line: str) -> None:
    """Tell it as our own word, beside what pyinfra and others print."""
    tell(_ours(line))


def interject(line: str) -> None:
    """Say it in a signal's handler, which may have come in the middle of a print: Python's buffer takes none within.

    https://docs.python.org/3/library/io.html#reentrancy: such a print raises RuntimeError.
    """
    try:
        os.write(2, f"{_ours(line)}\n".encode())
    except OSError:
        _tell_nobody()


def _ours(line: str) -> str:
    return f"fleet: {line}"


def _tell_nobody() -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)
