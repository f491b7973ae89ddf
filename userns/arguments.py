"""What command lines have in common: a mistyped word is told in a line (for argparse's `type`), and `--version`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from datetime import date
from typing import Any

from userns import __version__
from userns.commit import commit

__all__ = ["Version", "day", "number", "seconds", "utf8"]


class Version(argparse.Action):
    """`--version`, and the commit where there is one: git is asked for it only where somebody wants to know."""

    def __init__(self, option_strings: list[str], dest: str) -> None:
        super().__init__(
            option_strings, dest, nargs=0, default=argparse.SUPPRESS, help="show the version and the commit"
        )

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        """Print it and end."""
        here = commit()
        told = here.replace("+", " and changes since")
        print(f"userns-node {__version__}" + (f" (commit {told})" if here else ""))
        parser.exit()


def day(text: str) -> date:
    """A day, as 2026-11-23."""
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a day such as 2026-11-23") from error


def number(least: int, most: int) -> Callable[[str], int]:
    """A reader of whole numbers in a range, both ends included."""

    def read(text: str) -> int:
        # int() refuses to read thousands of digits.
        given = int(text) if text.isascii() and text.isdecimal() and len(text) < 20 else least - 1
        if not least <= given <= most:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number from {least} to {most}")
        return given

    return read


def seconds(most: int) -> Callable[[str], float]:
    """A reader of a time that passes, in seconds, with or without a fraction."""

    def read(text: str) -> float:
        try:
            given = float(text)
        except ValueError:
            given = 0
        if not 0 < given <= most:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds, up to {most}")
        return given

    return read


def utf8(text: str) -> str:
    """A text that can be written down, and sent on. Only a file's name may be of any bytes."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not UTF-8") from error
    return text
