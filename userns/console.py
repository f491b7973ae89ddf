"""The console: how a program ends whose output is cut off, characters that the terminal lacks or would obey."""

from __future__ import annotations

import io
import os
import re
import sys
from collections.abc import Callable

__all__ = ["CUT_OFF", "plain", "plain_but_styled", "run"]

# As a program that SIGPIPE ends.
CUT_OFF = 128 + 13
# Bold and the colours that are ours, as click writes them. What conceals, or is black, is not among them.
_STYLE = re.compile(r"(\x1b\[(?:[01]|3[1-6])m)")


def run(main: Callable[[], int]) -> int:
    """The exit code of `main`, or CUT_OFF where what reads its output (`| head`) has seen enough; 1 where it is lost.

    What stdout or stderr cannot encode is written as an escape: an ellipsis must not cost the whole answer. Where one
    of them is closed, what is written to it goes nowhere.
    """
    _open_what_is_closed()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        try:
            return main()
        except BrokenPipeError:
            raise
        except OSError:
            _flush("\n")  # is it stdout? What could not be written may be dropped already
            raise
        finally:  # also behind --help, which exits
            _flush()
    except BrokenPipeError:
        _drop()
        return CUT_OFF
    except _Lost as error:
        _drop()
        print(f"the output cannot be written: {error}", file=sys.stderr)
        return 1


class _Lost(Exception):
    """What was printed cannot be written, and why: the disk is full, say."""


def _flush(more: str = "") -> None:
    try:
        sys.stdout.write(more)
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise _Lost(error.strerror) from error


def _drop() -> None:
    """What is still buffered goes nowhere at exit, where it would raise once more."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _open_what_is_closed() -> None:
    """Python has None for it, which print() takes for stdout; and the next file gets its number and its text."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            nowhere = os.open(os.devnull, os.O_RDWR)  # the lowest number that is free, which is its own
            os.set_inheritable(nowhere, True)
            setattr(sys, name, os.fdopen(nowhere, "w" if number else "r", encoding="utf-8"))


def plain(text: str) -> str:
    """`text` with escapes for what a terminal would obey or hide: all that is not printable, but tabs and line ends.

    No sequence is looked for, of which there are more than anybody lists: none can begin without such a character.
    """
    if text.replace("\n", "").replace("\t", "").isprintable():  # nearly always, and far faster than by character
        return text
    return "".join(c if c.isprintable() or c in "\t\n" else ascii(c)[1:-1] for c in text)


def plain_but_styled(text: str) -> str:
    """The same, of a text in which our own styles are."""
    return "".join(part if number % 2 else plain(part) for number, part in enumerate(_STYLE.split(text)))
