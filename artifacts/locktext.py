"""Edits of the lock file's text: one version's table comes in, or changes, and every other line stays as it is.

tomlkit is not used for this: it takes the comment above a table for the end of the table before, so that a version
put in between would part a comment from what it is about. The lines are edited instead, and the result is read back:
it must mean just what was asked for, or nothing comes of it.
"""

from __future__ import annotations

import copy
import re
import tomllib
from collections.abc import Mapping
from typing import Any

from artifacts.errors import Unusable
from userns.containerd import toml_text
from userns.releases import ARCHITECTURES, COMPONENTS, Lock, LockError
from userns.versions import parse

__all__ = ["KEYS", "with_version"]

# The keys of a version's table, in the order in which they are written.
KEYS = (*ARCHITECTURES.values(), "verified", "source")

_KEY = r"\s*(?:[A-Za-z0-9_-]+|\"[^\"]*\"|'[^']*')\s*"
_HEADER = re.compile(rf"\s*\[(?P<keys>{_KEY}(?:\.{_KEY})*)\]\s*(?:#.*)?")
_SINGLE = re.compile(r"[A-Za-z0-9_-]+|\"[^\"]*\"|'[^']*'")
_ASSIGNMENT = re.compile(r"\s*(?P<key>[a-z0-9]+)\s*=\s*(?:\"(?:[^\"\\]|\\.)*\"|'[^']*')(?P<rest>\s*(?:#.*)?)")


def with_version(text: str, component: str, version: str, entry: Mapping[str, str], head: Mapping[str, str]) -> str:
    """`text` with this table for the version, newest first; `head` begins the component where the lock lacks it."""
    end = "\r\n" if "\r\n" in text else "\n"
    lines = text.replace("\r\n", "\n").split("\n")
    if lines[-1] == "":
        lines.pop()
    sections = _sections(lines)
    at = next((start for start, line, keys in sections if keys == (component, "sha256", version)), None)
    if at is None:
        _insert(lines, sections, component, version, entry, head)
    else:
        _change(lines, sections, (component, "sha256", version), entry)
    changed = end.join([*lines, ""])
    _prove(text, changed, component, version, entry, head)
    return changed


def _sections(lines: list[str]) -> list[tuple[int, int, tuple[str, ...]]]:
    """Each header's keys and line, and the line where it begins with the comment lines right above it."""
    found = []
    for number, line in enumerate(lines):
        if header := _HEADER.fullmatch(line):
            start = number
            while start and lines[start - 1].lstrip().startswith("#"):
                start -= 1
            keys = tuple(key.strip("\"'") for key in _SINGLE.findall(header["keys"]))
            # What stands at the very top is about the file.
            found.append((number if start == 0 else start, number, keys))
    return found


def _insert(
    lines: list[str],
    sections: list[tuple[int, int, tuple[str, ...]]],
    component: str,
    version: str,
    entry: Mapping[str, str],
    head: Mapping[str, str],
) -> None:
    block = [f"[{component}.sha256.{toml_text.inline(version)}]"]
    block += [f"{key} = {toml_text.inline(entry[key])}" for key in KEYS if key in entry]
    own = [section for section in sections if section[2][0] == component]
    if own:
        older = (start for start, _, keys in own if len(keys) == 3 and _order(keys[2]) < _order(version))
        last = sections.index(own[-1])
        behind = sections[last + 1][0] if last + 1 < len(sections) else len(lines)
        at = next(older, behind)
    else:
        block = [f"[{component}]", *(f"{key} = {toml_text.inline(value)}" for key, value in head.items()), "", *block]
        later = COMPONENTS[COMPONENTS.index(component) + 1 :]
        at = next((start for start, _, keys in sections if keys[0] in later), len(lines))
    while at and not lines[at - 1].strip():
        at -= 1
        del lines[at]
    lines[at:at] = [*([""] if at else []), *block, *([""] if at < len(lines) else [])]


def _change(
    lines: list[str],
    sections: list[tuple[int, int, tuple[str, ...]]],
    wanted: tuple[str, ...],
    entry: Mapping[str, str],
) -> None:
    """Give the table's lines new values, in place; what follows a value on its line stays."""
    index = next(number for number, section in enumerate(sections) if section[2] == wanted)
    first = sections[index][1] + 1
    last = sections[index + 1][0] if index + 1 < len(sections) else len(lines)
    body: list[tuple[str | None, str]] = []
    for line in lines[first:last]:
        assignment = _ASSIGNMENT.fullmatch(line)
        if not assignment or assignment["key"] not in KEYS:
            body.append((None, line))
        elif (key := assignment["key"]) in entry:
            body.append((key, f"{key} = {toml_text.inline(entry[key])}{assignment['rest']}"))
    at = 0
    for key in KEYS:
        if key not in entry:
            continue
        present = next((number for number, each in enumerate(body) if each[0] == key), None)
        if present is None:
            body.insert(at, (key, f"{key} = {toml_text.inline(entry[key])}"))
            present = at
        at = present + 1
    lines[first:last] = [line for _, line in body]


def _order(version: str) -> tuple[Any, str]:
    try:
        return parse(version), version
    except ValueError as error:
        raise Unusable(f"the lock file has a table for {version!r}, which is no version") from error


def _prove(
    before: str, after: str, component: str, version: str, entry: Mapping[str, str], head: Mapping[str, str]
) -> None:
    """The new text must be a lock that says what the old one said, and the one thing more."""
    wanted = copy.deepcopy(tomllib.loads(before))
    table = wanted.setdefault(component, dict(head))
    table.setdefault("sha256", {})[version] = dict(entry)
    try:
        if tomllib.loads(after) == wanted:
            Lock.parse(after)
            return
    except (tomllib.TOMLDecodeError, LockError):
        pass
    raise Unusable(
        f"the lock file is written in a form that cannot be edited here: give each version a table of its own, "
        f'[{component}.sha256."{version}"]'
    )
