"""The one error that the lab raises for what a reader can do something about, and how a command ends with it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


class LabError(RuntimeError):
    """Something that the lab needs is missing or did not work; the message says what to do."""


@contextmanager
def in_one_line(command: str, gone: str) -> Iterator[None]:
    """End the program with one line of `command`: by 1 where the lab can't go on, by 130 on Ctrl-C.

    `gone` is what the reader need not look after then.
    """
    try:
        yield
    except LabError as error:
        print(f"{command}: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print(f"\n{command}: stopped; {gone}", file=sys.stderr)
        sys.exit(130)
