"""Diagnosis: what a log, an event or an error text says about user namespaces, with its cause, cure and source.

Pure: text in, diagnoses out. `diagnose` takes a text, `Search` takes one line at a time, however many there are.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from userns.tables.symptoms import SYMPTOMS, Symptom

__all__ = ["Diagnosis", "Search", "diagnose", "lines"]

# Enough to recognise a line by; a whole event may be a page.
_SHOWN = 300
# A longer line is taken in pieces, which overlap by more than any symptom is long.
_PIECE = 1 << 16
_OVERLAP = 1 << 12


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """A symptom that was met: `line` is where it first was, made harmless for a terminal, and `number` counts it.

    What is as it should be has no `fix`, and `cause` says what it is.
    """

    id: str
    cause: str
    fix: str
    source: str
    line: str
    number: int
    findings: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()


def diagnose(text: str) -> tuple[Diagnosis, ...]:
    """What is said in `text`: each symptom once, in the order in which they first appear."""
    search = Search()
    for number, line in lines([text.encode("utf-8", "surrogatepass")]):
        search.line(number, line)
    return search.found()


def lines(chunks: Iterable[bytes]) -> Iterator[tuple[int, str]]:
    """The lines in a stream of bytes, with their numbers; whatever is no text becomes a replacement character."""
    number, rest = 1, b""
    for chunk in chunks:
        parts = (rest + chunk).split(b"\n")
        rest = parts.pop()
        for part in parts:
            yield from _pieces(number, part)
            number += 1
        if len(rest) > _PIECE + _OVERLAP:
            yield number, _text(rest[:_PIECE])
            rest = rest[_PIECE - _OVERLAP :]
    if rest:
        yield from _pieces(number, rest)


def _pieces(number: int, line: bytes) -> Iterator[tuple[int, str]]:
    for start in range(0, max(len(line) - _OVERLAP, 1), _PIECE - _OVERLAP):
        yield number, _text(line[start : start + _PIECE])


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")


# A row of a uid_map: the first ID inside, the first one outside, how many.
_MAPPING = re.compile(r"\s*(\d{1,10})\s+(\d{1,10})\s+\d{1,10}\s*", re.ASCII)


@dataclass(frozen=True, slots=True)
class _Compiled:
    row: Symptom
    patterns: tuple[re.Pattern[str], ...]
    together: tuple[re.Pattern[str], ...]


def _compile(row: Symptom) -> _Compiled:
    return _Compiled(
        row,
        # Each by itself and not as one alternative: the fixed text at its beginning is what makes it fast.
        tuple(re.compile(each) for each in row.patterns),
        tuple(re.compile(each) for each in row.together),
    )


_COMPILED = tuple(_compile(row) for row in SYMPTOMS)


class Search:
    """Takes a text line by line and remembers what it met in it."""

    def __init__(self) -> None:
        self._found: dict[str, Diagnosis] = {}
        self._order: dict[str, tuple[int, int]] = {}
        self._parts: set[tuple[str, int]] = set()
        self._mapped: Diagnosis | None = None
        self._only_mappings = True

    def line(self, number: int, line: str) -> None:
        """Look at one line."""
        if self._only_mappings:
            self._mapping(number, line)
        met: dict[str, tuple[Symptom, int]] = {}
        text = line.lower()
        for each in _COMPILED:
            for pattern in each.patterns:
                if match := pattern.search(text):
                    met[each.row.id] = (each.row, match.start())
                    break
            if each.together and each.row.id not in self._found:
                self._part(each, number, text, line)
        general = {id for row, _ in met.values() for id in row.instead_of}
        for id, (row, start) in met.items():
            if id not in general:
                self._add(row, number, start, line)

    def found(self) -> tuple[Diagnosis, ...]:
        """What was met until now, in the order of its first appearance.

        A text that is a uid_map and nothing else is an answer, also where it is a good one. Among other lines such a
        row says nothing of what the text was asked for.
        """
        if self._only_mappings and self._mapped and not self._found:
            return (self._mapped,)
        return tuple(sorted(self._found.values(), key=lambda each: self._order[each.id]))

    def _mapping(self, number: int, line: str) -> None:
        row = _MAPPING.fullmatch(line)
        if not row:
            self._only_mappings = not line.strip()
        elif int(row[1]) == 0 and int(row[2]) > 0 and not self._mapped:
            cause = f"this pod has a user namespace: its root is host uid {int(row[2])}"
            self._mapped = Diagnosis("user-namespace", cause, "", "user_namespaces(7)", _shown(line, 0), number)

    def _part(self, symptom: _Compiled, number: int, text: str, line: str) -> None:
        """One of several lines that say it together; it is told of where the last of them is."""
        for index, pattern in enumerate(symptom.together):
            if (symptom.row.id, index) not in self._parts and pattern.search(text):
                self._parts.add((symptom.row.id, index))
        if all((symptom.row.id, index) in self._parts for index in range(len(symptom.together))):
            self._add(symptom.row, number, 0, line)

    def _add(self, row: Symptom, number: int, start: int, line: str) -> None:
        if row.id in self._found:
            return
        self._order[row.id] = (number, start)
        self._found[row.id] = Diagnosis(
            row.id, row.cause, row.fix, row.source, _shown(line, start), number, row.findings, row.settings
        )


def _shown(line: str, start: int) -> str:
    """The part of a line around its symptom, printable."""
    begin = max(0, min(start - 80, len(line) - _SHOWN))
    cut = line[begin : begin + _SHOWN]
    text = " ".join("".join(each if each.isprintable() else " " for each in cut).split())
    return ("… " if begin else "") + text + (" …" if begin + _SHOWN < len(line) else "")
