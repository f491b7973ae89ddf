"""The records that the scripts print on a node: one line of TAB-separated fields, its kind first.

Everything before the first line (a login's banner) is ignored; an answer without its last line was cut off and is
refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from userns.versions import upstream

__all__ = ["BEGIN", "END", "ByKind", "ReadingError", "one", "pairs", "records", "version_in"]

BEGIN, END = "userns-node-begin", "userns-node-end"
FORMAT = "1"
_VERSION = re.compile(r"(?<![\w.])v?\d+\.\d+")

ByKind = dict[str, list[tuple[str, ...]]]
"""The fields of all records, by their kind."""


class ReadingError(ValueError):
    """The node's answer can't be read; the message says which line, what it holds and what was expected."""


def records(lines: list[str]) -> Iterable[list[str]]:
    """The records of an answer, between its first and its last line. Raises ReadingError."""
    split = [line.rstrip("\r\n").split("\t") for line in lines]
    begins = [number for number, fields in enumerate(split) if fields[0] == BEGIN]
    if not begins:
        shown = f"; it begins with {lines[0][:80]!r}" if lines else ": there is none"
        raise ReadingError(f"the node script's answer lacks its first line{shown}")
    answer = split[begins[-1] :]
    if answer[0][1:] != [FORMAT]:
        raise ReadingError(f"the node script speaks format {answer[0][1:]}, expected {FORMAT!r}")
    for number, fields in enumerate(answer):
        if fields[0] == END:
            return answer[1:number]
    raise ReadingError(
        f"the node script's answer was cut off after {len(answer)} lines; the last begins with {answer[-1][0][:40]!r}. "
        "The connection broke or the script was killed: run it again"
    )


def one(kind: str, position: int = 0) -> Callable[[ByKind], str]:
    """A reader of one field; "" where the node gave no answer."""

    def reader(by_kind: ByKind) -> str:
        for fields in by_kind.get(kind, []):
            return fields[position].strip()
        return ""

    return reader


def pairs(by_kind: ByKind, kind: str) -> dict[str, str]:
    """The records of two fields, as a mapping; of the same first field, the last one counts."""
    return {fields[0]: fields[1] for fields in by_kind.get(kind, [])}


def version_in(text: str) -> str:
    """The first version in what a program printed; containerd's module path ends in "/v2" before it."""
    match = _VERSION.search(text)
    return (upstream(text[match.start() :]) or "") if match else ""
