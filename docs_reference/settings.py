"""The reference of settings: name, default, type, what is allowed, and why."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator

from docs_reference.markdown import cell, code, plain
from docs_reference.source import ROOT
from userns.policy import Policy
from userns.settings import SETTINGS

_ALL = ROOT / "inventories/group_data/all.py"
_INTRO = """\
# Settings

*This page is made from the code: types and defaults from `userns/`, reasons from `inventories/group_data/all.py`.*

All settings are optional. They are pyinfra's group and host data: a file `group_data/GROUP.py` beside the inventory,
the data of a group or of a host in it, or `--data name=value`, which comes last. A mapping or a list after `--data` is
JSON; None there is `null`, and a version has its v: `--data kubernetes_version=v1.30`.

All settings of a host are checked before its node is read: unknown names that look like one of these, wrong types,
versions without a digest, settings that contradict each other. Every mistake is told at once.
"""
_TYPES = {str: "text", int: "whole number", bool: "True or False", types.NoneType: "None"}


def page() -> str:
    """The whole page."""
    parts = [_INTRO]
    for title, reasons in sections():
        parts.append(f"## {title}\n")
        for names, reason in reasons:
            parts += [_entry(name, reason) for name in names]
    return "\n".join(parts)


def sections() -> Iterator[tuple[str, list[tuple[list[str], str]]]]:
    """The headings of group_data/all.py, each with its groups of settings and the comment above each group."""
    title, groups = "", list[tuple[list[str], str]]()
    for paragraph in _ALL.read_text("utf-8").split("\n\n"):
        lines = paragraph.strip().splitlines()
        if lines[0].startswith("# ---"):
            if groups:
                yield title, groups
            title, groups = lines[0].strip("# -"), []
            lines = lines[1:]
        names = [line.split(" = ")[0] for line in lines if " = " in line and not line.startswith("#")]
        if names and set(names) <= SETTINGS.keys():
            groups.append((names, " ".join(line.lstrip("# ") for line in lines if line.startswith("#"))))
    yield title, groups


def _entry(name: str, reason: str) -> str:
    setting = SETTINGS[name]
    kinds = _kinds(Policy.model_fields[name].annotation)
    if setting.default is None and "None" not in kinds:
        kinds.append("None")
    default = list(setting.default) if isinstance(setting.default, tuple) else setting.default
    rows = [
        ("default", code(f'"{default}"' if isinstance(default, str) else repr(default))),
        ("type", cell(" or ".join(kinds))),
        ("allowed", cell(plain(setting.allowed))),
    ]
    table = "\n".join(["| | |", "| --- | --- |", *(f"| {head} | {text} |" for head, text in rows)])
    return f"### {name}\n\n{table}\n\n{plain(reason)}\n"


def _kinds(annotation: object) -> list[str]:
    """The words for a type of a Policy's field."""
    origin, of = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Literal:
        return [code(f'"{each}"' if isinstance(each, str) else repr(each)) for each in of]
    if origin in (types.UnionType, typing.Union):
        return [kind for each in of for kind in _kinds(each)]
    if origin is dict:
        return ["mapping"]
    if origin is tuple:
        return ["list of texts"] if Ellipsis in of else ["pair of whole numbers"]
    return [_TYPES[typing.cast(type, annotation)]]
