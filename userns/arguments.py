"""What command lines have in common: a word that is not what is asked for is told in a line. For argparse's `type`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from datetime import date

__all__ = ["day", "number", "seconds", "utf8"]


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
