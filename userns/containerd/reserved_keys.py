"""Keys of drop-ins that a setting writes: containerd takes the drop-in's, and the proof may be of what no pod uses."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from typing import Any

from userns.containerd.extraconfig import CRI, IMAGES, OVERLAY, RUNTIME, TAKEN, TAKEN_OF_HANDLER, UNREAD, literal
from userns.containerd.merge import at, spelled
from userns.containerd.toml_text import KeyPath
from userns.findings import Finding, blocker, warning
from userns.node import DropIn

__all__ = ["UNREAD_SOURCE", "overriding", "reserved", "value_of"]

_JOINED = "containerd v2.3.4 cmd/containerd/server/config/config_test.go; containerd/containerd#9982"
UNREAD_SOURCE = "containerd v2.3.4 internal/cri/config/config.go (ImageConfig, RuntimeConfig)"
_HANDLERS = ("plugins", RUNTIME, "containerd", "runtimes")
_DEFAULT = ("plugins", RUNTIME, "containerd", "default_runtime_name")
_SNAPSHOTTER = ("plugins", IMAGES, "snapshotter")
# What a proof and the probes are of, by a key's last part.
_PROVEN = {"BinaryName", "SystemdCgroup", "snapshotter", "runtime_type", "runtime_path", "root_path"}
# What containerd takes where config.toml says nothing.
_BUILT_IN: Mapping[KeyPath, object] = {
    ("grpc", "address"): "/run/containerd/containerd.sock",
    ("plugins", OVERLAY, "slow_chown"): False,
    ("plugins", OVERLAY, "root_path"): "",
}
# In no file's text: a value that the node could not tell.
_UNKNOWN = object()


def reserved() -> dict[KeyPath, str]:
    """Each key that the node tells of a drop-in, with what to do instead.

    Not those of CRI's old id: containerd 1.7 replaces its section as a whole, and 2.x reads none of them there. Nor
    root, state and version, which have findings of their own.
    """
    at_top = {path: instead for path, instead in TAKEN.items() if len(path) > 1 and CRI not in path}
    of_handlers = {
        (*_HANDLERS, name, *path): instead for name in ("runc", "crun") for path, instead in TAKEN_OF_HANDLER.items()
    }
    return at_top | of_handlers | dict(UNREAD)


def overriding(drop_in: DropIn, config_version: int, ours: Mapping[str, Any]) -> Iterator[Finding]:
    """What of `drop_in` differs from what the new config.toml, `ours`, says or leaves to containerd."""
    known = reserved()
    proven, others, unread = list[str](), dict[str, None](), list[str]()
    for each in drop_in.keys:
        path, value = each.path, value_of(each.value)
        if path not in known or (config_version == 2 and {RUNTIME, IMAGES} & set(path)):
            continue
        if path in UNREAD:
            unread.append(f"{spelled(path)} = {literal(value)} ({known[path]})")
            continue
        if any(type(value) is type(want) and value == want for want in _expected(path, ours)):
            continue
        said = f"{spelled(path)} = {literal(value)}"
        handler = path[4] if path[:4] == _HANDLERS else ""
        if handler and handler not in at(ours, _HANDLERS):
            table = spelled((*_HANDLERS, handler))
            others[f"[{table}] (a handler that nothing here proves: set crun_version, or give it another name)"] = None
        elif path == _DEFAULT:
            others[f"{said} ({_of_default(value, ours)})"] = None
        elif path[-1] in _PROVEN:
            (want, *_) = _expected(path, ours)
            proven.append(f"{said} instead of {literal(want)} ({known[path]})")
        else:
            others[f"{said} ({known[path]})"] = None
    if proven:
        yield blocker(
            "drop-in-overrides-proven",
            f"{drop_in.path} sets {'; '.join(proven)}. containerd takes the drop-in's, so that pods would use other "
            "programs and settings than those that are probed and proven. Take it out of the file",
            _JOINED,
        )
    if others:
        yield warning(
            "drop-in-overrides-setting",
            f"{drop_in.path} sets {'; '.join(others)}. containerd takes the drop-in's, whatever the settings say. "
            "Take out of the file what is not meant",
            _JOINED,
        )
    if unread:
        yield warning(
            "drop-in-key-unread",
            f"{drop_in.path} sets {'; '.join(unread)}. containerd 2.x reads no such key there and only says so in its "
            "log: what it should set is as config.toml has it. Take it out of the file",
            UNREAD_SOURCE,
        )


def _expected(path: KeyPath, ours: Mapping[str, Any]) -> tuple[object, ...]:
    """The values that change nothing, the one that counts now first."""
    written = at(ours, path[:-1])
    if path[-1] in written:
        return (written[path[-1]],)
    if path[:4] == _HANDLERS:
        everyones = at(ours, _SNAPSHOTTER[:-1]).get("snapshotter", "overlayfs")
        left: Mapping[str, tuple[object, ...]] = {"snapshotter": (everyones, ""), "runtime_path": ("",)}
        return left.get(path[-1], ())
    if path[-1] == "root_path":
        return ("", f"{str(ours.get('root', '')).rstrip('/')}/{OVERLAY}")
    return (_BUILT_IN[path],) if path in _BUILT_IN else ()


def _of_default(value: object, ours: Mapping[str, Any]) -> str:
    now = at(ours, _DEFAULT[:-1]).get("default_runtime_name")
    what = f"pods whose RuntimeClass names no handler run with it, and not with {literal(now)}"
    if isinstance(value, str) and value in at(ours, _HANDLERS):
        return f"{what}: set default_runtime"
    return f"{what}; it is not installed from here, and no proof is of it. A node for GPUs may want that"


def value_of(text: str) -> object:
    """The value that this text is in TOML; one that equals no other where it is none."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        return _UNKNOWN
