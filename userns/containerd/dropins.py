"""Drop-ins of containerd: what those in conf.d do to our config.toml as soon as `imports` names them."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from userns.containerd.extraconfig import CRI, IMAGES, REGISTRY, RUNTIME, UNREAD, right_plugin
from userns.containerd.merge import at, spelled
from userns.containerd.reserved_keys import UNREAD_SOURCE, overriding
from userns.containerd.toml_text import KeyPath
from userns.findings import Finding, blocker, note, warning
from userns.node import DropIn

__all__ = ["lint", "path_of"]

_VERSION = "containerd v2.3.4 cmd/containerd/server/config/config.go:475-481; containerd/containerd#12891"
_IDS = "containerd v1.7.34 docs/cri/config.md"
_BOTH = "containerd v2.3.4 internal/cri/config/config.go (ValidateImageConfig); docs/hosts.md"
_REPLACED = "containerd v1.7.34 services/server/config/config.go:299-322; containerd/containerd#5837"
_JOINED = "containerd v2.3.4 cmd/containerd/server/config/config_test.go; containerd/containerd#9982"
# CRI's plugins of containerd 2.x, which split the old one.
_OF_2 = ((RUNTIME,), (IMAGES,))


def lint(drop_ins: Sequence[DropIn], config_version: int, ours: Mapping[str, Any]) -> list[Finding]:
    """What is wrong with the drop-ins, for a config.toml of `config_version` that holds `ours`.

    They are blockers although the files were there before: without `imports` containerd never read them, and our
    config.toml wakes them.
    """
    return [finding for each in drop_ins for finding in _of(each, config_version, ours)]


def _of(drop_in: DropIn, config_version: int, ours: Mapping[str, Any]) -> Iterator[Finding]:
    if drop_in.unreadable:
        yield blocker(
            "drop-in-unreadable",
            f"{drop_in.path} could not be read, so that nobody knows what containerd will do with it: "
            "look at its mode, or connect as root.",
        )
        return
    if drop_in.version != config_version:
        yield blocker("drop-in-version-mismatch", _mismatch(drop_in, config_version), _VERSION)
    opened = tuple(dict.fromkeys(path for header in drop_in.tables if (path := path_of(header))))
    for path in opened:
        if path in (("root",), ("state",)):
            yield blocker(
                "drop-in-moves-root",
                f"{drop_in.path} sets {path[0]}, and containerd takes its value instead of config.toml's: the node's "
                "images and containers would be looked for in a directory that nobody probed. "
                "Take it out; containerd_root is the setting.",
                _JOINED,
            )
    if config_version == 2:
        yield from _replacing(drop_in, opened, ours)
    else:
        yield from _joining(drop_in, opened, ours)
    yield from overriding(drop_in, config_version, ours)


def _mismatch(drop_in: DropIn, config_version: int) -> str:
    has = "names no version, which means 1" if drop_in.version is None else f"has version = {drop_in.version}"
    return (
        f"{drop_in.path} {has}; config.toml has version = {config_version}, and every drop-in must have the same: "
        "else containerd does not start, or loses settings without a word. "
        f"Write `version = {config_version}` as its first line, with the plugin ids of that version, or remove it."
    )


def _replacing(drop_in: DropIn, opened: Sequence[KeyPath], ours: Mapping[str, Any]) -> Iterator[Finding]:
    """containerd 1.7: a drop-in's plugin section takes the place of the whole one in config.toml."""
    written = at(ours, ("plugins",))
    for section in dict.fromkeys(path[1] for path in opened if len(path) > 1 and path[0] == "plugins"):
        if section in written:
            yield blocker(
                "drop-in-replaces-section",
                f"{drop_in.path} opens {spelled(('plugins', section))}, which config.toml writes too: containerd 1.7 "
                "takes the drop-in's section instead of the whole one in config.toml and loses what stands there. "
                "Move its keys into the setting containerd_config.",
                _REPLACED,
            )
    if unread := [spelled(path) for path in dict.fromkeys(path[:2] for path in opened) if path[1:] in _OF_2]:
        yield warning(
            "drop-in-key-unread",
            f"{drop_in.path} opens {', '.join(unread)}, which containerd 1.7 does not read: what stands in it does "
            f'nothing. Move its keys into the setting containerd_config, under "{CRI}", or take it out',
            _IDS,
        )


def _joining(drop_in: DropIn, opened: Sequence[KeyPath], ours: Mapping[str, Any]) -> Iterator[Finding]:
    """containerd 2.x joins plugin sections; the drop-in's keys win."""
    if (*REGISTRY, "mirrors") in {path[:4] for path in opened} and "config_path" in at(ours, REGISTRY):
        yield blocker(
            "drop-in-mirrors",
            f"{drop_in.path} sets mirrors of registries, and config.toml sets {spelled((*REGISTRY, 'config_path'))}: "
            "with both, CRI does not load and the kubelet has no runtime. Write each mirror as "
            "/etc/containerd/certs.d/NAME/hosts.toml, or move the table into the setting containerd_config.",
            _BOTH,
        )
    read = (path for path in opened if path not in UNREAD)
    shortest = (path[: 3 if right_plugin(path[:3]) == right_plugin(path[:4]) else 4] for path in read)
    moved = {spelled(path): right for path in shortest if (right := right_plugin(path))}
    if moved:
        told = ", ".join(f"{table} (containerd 2.x reads it under {right})" for table, right in moved.items())
        yield warning(
            "drop-in-key-unread",
            f"{drop_in.path} opens {told}. What stands in it does nothing, and containerd only says so in its log: "
            "move it there, or take it out",
            UNREAD_SOURCE,
        )
    shared = [spelled(path) for path in opened if path[0] == "plugins" and _writes_keys(ours, path)]
    if shared:
        yield note(
            "drop-in-overrides",
            f"{drop_in.path} opens {', '.join(shared)}, where config.toml has keys, too: "
            "of a key that both set, containerd takes the drop-in's.",
            _JOINED,
        )


def _writes_keys(ours: Mapping[str, Any], path: KeyPath) -> bool:
    """Whether `ours` has a key right inside the table at `path`, or has the key `path` itself."""
    *above, last = path
    found = at(ours, tuple(above)).get(last, {})
    return not isinstance(found, dict) or any(not isinstance(value, dict) for value in found.values())


def path_of(header: str) -> KeyPath | None:
    """The keys of `plugins."io.containerd.grpc.v1.cri".containerd`, with or without brackets; None if it is none."""
    text = header.strip()
    try:
        table: Any = tomllib.loads(text if text.startswith("[") else f"[{text}]")
    except tomllib.TOMLDecodeError:
        return None
    path: list[str] = []
    while table:
        if isinstance(table, list):
            table = table[0]
            continue
        name, table = next(iter(table.items()))
        path.append(name)
    return tuple(path)
