"""Ranges of versions as the tables write them: `>=2.1,<2.1.5`."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from dataclasses import dataclass

from userns.versions import Version, beside, parse

_CLAUSE = re.compile(r"(>=|<=|==|>|<)\s*(\S+)")
_COMPARE: dict[str, Callable[[Version, Version], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
    ">": operator.gt,
    "<": operator.lt,
}


@dataclass(frozen=True, slots=True)
class Range:
    """The versions that fulfil every clause of `text`.

    A release candidate is below its release (2.0.7-rc.1 does not have the fixes of 2.0.7), and of its line (2.0.0-rc.1
    is >=2): see `beside`. (packaging's SpecifierSet keeps it out of `<2.0.7`.)
    """

    text: str
    clauses: tuple[tuple[str, Version], ...]

    @classmethod
    def of(cls, text: str) -> Range:
        """The range in `text`: clauses such as >=1.7, joined by commas. Raises ValueError."""
        clauses = []
        for clause in text.split(","):
            match = _CLAUSE.fullmatch(clause.strip())
            if not match:
                raise ValueError(f"{clause!r} is not a clause such as >=1.7 or <2.0.7 (in {text!r})")
            clauses.append((match[1], parse(match[2])))
        return cls(text, tuple(clauses))

    def __contains__(self, version: Version) -> bool:
        return all(_COMPARE[sign](beside(version, bound), bound) for sign, bound in self.clauses)

    def fits(self, text: str) -> bool:
        """Whether a node's word for a version is one in this range: a text that is no version is in none."""
        try:
            return parse(text) in self
        except ValueError:
            return False

    def __str__(self) -> str:
        return self.text
