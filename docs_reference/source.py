"""What the source says of each finding: its severities, its messages and where each rule is from.

The ids are in a table (userns.tables.KNOWN_IDS); the rest stands where a finding is made, so it is read from there: the
calls of blocker(), warning() and note(), tables of severities, and what the scripts on a node print.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from userns.findings import Severity
from userns.tables import ADVISORIES, ERRNOS, KNOWN_IDS, LINES, RELEASES, RULES

ROOT = Path(__file__).resolve().parent.parent
_MAKERS = {each.value: each for each in Severity}
# Methods that make a blocker of an answer of the kernel's: the id comes second.
_BLAMES = ("_blame", "_refuse")
_IN_SCRIPTS = re.compile(rf"\b({'|'.join(_MAKERS)}): ([a-z0-9-]+): ([\w' ]*)")


@dataclass(slots=True)
class Told:
    """What there is to tell of one id. In a message "…" stands for what a node or the settings put there."""

    severities: set[Severity] = field(default_factory=set)
    messages: list[str] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)

    def add(self, severity: Severity, message: str = "", source: str = "") -> None:
        """One more place where it is made."""
        self.severities.add(severity)
        for text, known in ((message, self.messages), (source, self.sources)):
            if text.strip(" …") and text not in known:
                known.append(text)


def read() -> dict[str, Told]:
    """Each known id, and each of a line, with what the code and the tables say of it."""
    told = {id: Told() for id in (*KNOWN_IDS, *LINES)}
    for path in sorted([*(ROOT / "userns").rglob("*.py"), *(ROOT / "tasks").rglob("*.py")]):
        for id, severity, message, source in _Module(path).findings():
            told[id].add(severity, message, source)
    for path in sorted((ROOT / "tasks" / "scripts").glob("*.sh")):
        for severity, id, message in _IN_SCRIPTS.findall(path.read_text("utf-8")):
            if id in told:
                told[id].add(_MAKERS[severity], message.strip())
    _add_tables(told)
    return told


def _add_tables(told: dict[str, Told]) -> None:
    for rule in RULES:
        told[rule.id].add(rule.severity, re.sub(r"\{\w*\}", "…", rule.message), rule.source)
    for errno in ERRNOS.values():
        if errno.finding:
            # One that was given another severity where it is met keeps that.
            known = told[errno.finding].severities
            told[errno.finding].add(min(known) if known else Severity.BLOCKER, errno.meaning, errno.source)
    for advisory in ADVISORIES:
        blocks = bool(advisory.fixed) and (advisory.escape or advisory.severity == "critical")
        fixed = f" Fixed in {', '.join(advisory.fixed)}." if advisory.fixed else " No fixed release is confirmed."
        text = f"{advisory.component}, {advisory.severity}: {advisory.summary}.{fixed}"
        told[advisory.finding].add(Severity.BLOCKER if blocks else Severity.WARNING, text, advisory.source)
    for release in RELEASES:
        text = f"{release.component} {release.branch} gets fixes until {release.until}. Move to a maintained branch."
        told[release.finding].add(Severity.WARNING, text, release.source)
    for component in {row.component for row in ADVISORIES}:
        told[f"open-advisories-{component}"].add(Severity.WARNING)


class _Module:
    """One module's source."""

    def __init__(self, path: Path) -> None:
        self._tree = ast.parse(path.read_text("utf-8"))
        self._names: dict[str, list[tuple[int, ast.expr]]] = {}  # each assignment to a name: its line, its value
        for node in ast.walk(self._tree):
            if isinstance(node, ast.Assign):
                for target in node.targets:
                    if isinstance(target, ast.Name):
                        self._names.setdefault(target.id, []).append((node.lineno, node.value))

    def findings(self) -> Iterator[tuple[str, Severity, str, str]]:
        """Every finding that is made here: id, severity, message, source."""
        for node in ast.walk(self._tree):
            if isinstance(node, ast.Call):
                yield from self._of_call(node)
            elif isinstance(node, ast.Dict):
                for key, value in zip(node.keys, node.values, strict=True):
                    if isinstance(value, ast.Attribute) and ast.unparse(value.value) == "Severity" and key is not None:
                        for id in self._ids(key):
                            yield id, Severity[value.attr], "", ""

    def _of_call(self, call: ast.Call) -> Iterator[tuple[str, Severity, str, str]]:
        words = call.args
        match call.func:
            case ast.Attribute(attr=name) if name in _BLAMES:
                severities, words = [Severity.BLOCKER], words[1:]
            case ast.Name("Finding") if len(words) > 2:
                named = [each.attr for each in ast.walk(words[1]) if isinstance(each, ast.Attribute)]
                severities, words = (
                    [Severity[name] for name in named if name in Severity.__members__],
                    [words[0], *words[2:]],
                )
            case function:
                severities = list(self._severities(function))
        if not severities or not words:
            return
        message = self._text(words[1]) if len(words) > 1 else ""
        source = self._text(words[2]) if len(words) > 2 else ""
        for id in self._ids(words[0]):
            for severity in severities:
                yield id, severity, message, source

    def _severities(self, function: ast.expr, depth: int = 0) -> Iterator[Severity]:
        match function:
            case ast.Name(name) if name in _MAKERS:
                yield _MAKERS[name]
            case ast.IfExp():
                yield from self._severities(function.body, depth)
                yield from self._severities(function.orelse, depth)
            case ast.Name(name) if not depth:  # kind = note if … else warning
                yield from self._severities(self._value(name, function.lineno), 1)

    def _ids(self, expression: ast.expr) -> Iterator[str]:
        for node in ast.walk(expression):
            match node:
                case ast.Constant(str(text)) if text in KNOWN_IDS:
                    yield text
                case ast.JoinedStr(parts):
                    pattern = "".join(
                        re.escape(str(part.value)) if isinstance(part, ast.Constant) else r"\w[\w-]*" for part in parts
                    )
                    if pattern.strip(r"\w[]*-"):
                        yield from (id for id in KNOWN_IDS if re.fullmatch(pattern, id))
                case ast.Name(name):
                    value = self._value(name, node.lineno)
                    if isinstance(value, ast.Constant) and value.value in KNOWN_IDS:
                        yield str(value.value)

    def _text(self, expression: ast.expr, depth: int = 0) -> str:
        """What an expression would say, with "…" for what is not known before."""
        match expression:
            case ast.Constant(str(text)):
                return text
            case ast.JoinedStr(parts):
                return re.sub("…[ …]*…", "…", "".join(self._text(part, depth) for part in parts))
            case ast.FormattedValue(ast.Name(name) as value) if name.isupper():
                return self._text(value, depth)
            case ast.BinOp(left=left, op=ast.Add(), right=right):
                return self._text(left, depth) + self._text(right, depth)
            case ast.Name(name) if depth < 3:
                return self._text(self._value(name, expression.lineno), depth + 1)
            case ast.Call(func=ast.Attribute(value=template, attr="format")):
                return re.sub(r"\{\w*\}", "…", self._text(template, depth))
        return "…"

    def _value(self, name: str, line: int) -> ast.expr:
        """What a name was given last before a line; a constant of the module may stand below it."""
        given = self._names.get(name, [])
        before = [value for number, value in given if number < line]
        return before[-1] if before else given[0][1] if given else ast.Constant(None)
