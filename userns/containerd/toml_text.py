"""TOML text of plain values, such that one mapping has one text, whatever the order of its keys.

`toml.dumps` is never used: version 0.10.2 fails on control characters, writes a backslash before an "x" in a way
that no reader takes, and turns nested arrays of tables into arrays of their keys.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from functools import lru_cache
from typing import Any

import tomlkit

__all__ = ["KeyPath", "assignments", "inline", "key", "tables"]

# The keys on the way to a value.
KeyPath = tuple[str, ...]


@lru_cache(maxsize=1024)  # the same ones come for every node of a fleet
def key(name: str) -> str:
    """A key, bare or quoted."""
    return str(tomlkit.key(name).as_string())


def inline(value: Any) -> str:
    """A value on one line."""
    if isinstance(value, dict):
        pairs = [f"{key(name)} = {inline(value[name])}" for name in sorted(value)]
        return "{ " + ", ".join(pairs) + " }" if pairs else "{}"
    if isinstance(value, list):
        return "[" + ", ".join(inline(each) for each in value) + "]"
    return str(tomlkit.item(value).as_string())


def assignments(table: Mapping[str, Any]) -> str:
    """`key = value` lines, for all but what `tables` gives a header of its own."""
    return "".join(f"{key(name)} = {inline(table[name])}\n" for name in sorted(table) if not _headed(table[name]))


def tables(table: Mapping[str, Any], opened: Container[KeyPath] = (), path: KeyPath = ()) -> str:
    """The tables inside `table`, each under its whole header; one that holds only tables needs none.

    A path in `opened` has its header elsewhere: only the tables inside it are written.
    """
    text = ""
    for name in sorted(table):
        inner, here = table[name], (*path, name)
        header = ".".join(map(key, here))
        if isinstance(inner, list) and _headed(inner):
            for each in inner:
                text += f"[[{header}]]\n" + "".join(f"{key(k)} = {inline(each[k])}\n" for k in sorted(each)) + "\n"
        elif isinstance(inner, dict):
            lines = assignments(inner)
            if here not in opened and (lines or not inner):
                text += f"[{header}]\n{lines}\n"
            text += tables(inner, opened, here)
    return text


def _headed(value: Any) -> bool:
    """Whether a value gets a header: a table, or an array of nothing but tables."""
    if isinstance(value, list):
        return bool(value) and all(isinstance(each, dict) for each in value)
    return isinstance(value, dict)
