"""The console: how a program ends whose output is cut off, or has characters that the terminal lacks."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable

__all__ = ["CUT_OFF", "run"]

# As a program that SIGPIPE ends.
CUT_OFF = 128 + 13


def run(main: Callable[[], int]) -> int:
    """The exit code of `main`, or CUT_OFF where what reads its output (`| head`) has seen enough.

    What stdout or stderr cannot encode is written as an escape: an ellipsis must not cost the whole answer.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        try:
            return main()
        finally:  # also behind --help, which exits
            sys.stdout.flush()
    except BrokenPipeError:
        # What is still buffered goes there at exit, where it would raise once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return CUT_OFF
