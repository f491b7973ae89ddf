"""Runtime handlers of a node's own config.toml: which it has, and which of them the new one would take away."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from userns.containerd.dropins import path_of
from userns.containerd.extraconfig import CRI, RUNTIME
from userns.containerd.merge import at, spelled
from userns.findings import Finding, warning
from userns.node import Node
from userns.paths import DROP_INS

__all__ = ["lost", "of_tables"]


def of_tables(headers: Iterable[str], plugin: str = "") -> tuple[str, ...]:
    """The handlers that these table headers (or dotted keys) configure, under this id of CRI, or under whatever id."""
    paths = (path_of(header) or () for header in headers)
    within = (path for path in paths if path[:1] == ("plugins",) and plugin in ("", *path[1:2]))
    named = (path[4:5] for path in within if path[2:4] == ("containerd", "runtimes"))
    return tuple(dict.fromkeys(name for each in named for name in each))


def lost(node: Node, config_version: int, ours: Mapping[str, Any]) -> Iterator[Finding]:
    """A handler of which pods would only say, much later, that it is not configured.

    `ours` is the new config.toml; a drop-in that brings the handler, where this version reads it, is read beside it.
    """
    plugin = RUNTIME if config_version > 2 else CRI
    place = ("plugins", plugin, "containerd", "runtimes")
    kept = {*at(ours, place), *of_tables((table for each in node.drop_ins for table in each.tables), plugin)}
    gone = [name for name in node.handlers if name not in kept]
    if not gone:
        return
    cures = ["for crun, set crun_version"] if "crun" in gone else []
    if others := [name for name in gone if name != "crun"]:
        # Of containerd 1.7 a drop-in's section takes the place of the whole one.
        or_else = f" or into a drop-in in {DROP_INS}" if config_version > 2 else ""
        tables = " and ".join(f"[{spelled((*place, name))}]" for name in others)
        cures.append(f"put {tables} into the setting containerd_config{or_else}, with what the old file says there")
    yield warning(
        "runtime-handler-lost",
        f"config.toml has the runtime handler{'s' * (len(gone) > 1)} {', '.join(gone)}, which the new one takes away: "
        "pods whose RuntimeClass names it would not start any more, and where it is the default one, others would "
        f"run without it. To keep it: {'; '.join(cures)}",
        "containerd docs/cri/config.md, runtime classes",
    )
