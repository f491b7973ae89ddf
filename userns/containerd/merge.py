"""Merging: nested TOML tables made plain, joined without overriding anything, and compared key by key."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime, time
from math import isnan
from typing import Any

from userns.containerd.toml_text import KeyPath, key

__all__ = ["ConfigError", "Place", "Table", "at", "difference", "merged", "plain", "spelled"]

Table = dict[str, Any]
# A path that may also lead through arrays.
Place = tuple[str | int, ...]

# TOML 1.0 promises 64 bits; containerd's Go reader takes no more.
_INT64 = -(2**63), 2**63 - 1


class ConfigError(ValueError):
    """A config.toml that cannot be written as asked. The message names the key, and no value: it may be a secret."""


def spelled(path: Place) -> str:
    """A path of keys as TOML spells it; an array's index in brackets."""
    text = ""
    for each in path:
        text += f"[{each}]" if isinstance(each, int) else f".{key(each)}"
    return text.removeprefix(".") or "the document"


def at(table: Mapping[str, Any], path: KeyPath) -> Table:
    """The table at `path`, empty where there is none."""
    found: Any = table
    for each in path:
        found = found.get(each, {}) if isinstance(found, Mapping) else {}
    return dict(found) if isinstance(found, Mapping) else {}


def plain(value: Any, path: Place = ()) -> Any:
    """`value` in the exact types that reading TOML gives back: str, int, float, bool, dates, list and dict.

    Raises ConfigError for what TOML cannot say, or what no two readers agree on.
    """
    match value:
        case bool():
            return value
        case str():
            return _text(str(value), path)
        case int():
            if not _INT64[0] <= value <= _INT64[1]:
                raise ConfigError(f"{spelled(path)} is a number beyond 64 bits, which containerd does not read")
            return int(value)
        case float():
            if isnan(value):
                raise ConfigError(f"{spelled(path)} is not a number (nan), which no setting of containerd means")
            return float(value)
        case datetime() | time():
            offset = value.utcoffset()
            if isinstance(value, time) and value.tzinfo is not None:
                raise ConfigError(f"{spelled(path)} is a time with a zone, which TOML cannot express")
            if offset is not None and offset.total_seconds() % 60:
                raise ConfigError(f"{spelled(path)} has an offset with seconds, which TOML cannot express")
            return value
        case date():
            return value
        case list() | tuple():
            return [plain(each, (*path, i)) for i, each in enumerate(value)]
        case Mapping():
            return {_name(k, path): plain(v, (*path, str(k))) for k, v in value.items()}
    raise ConfigError(
        f"{spelled(path)} is of type {type(value).__name__}, which TOML cannot express"
        + (": leave the key out" if value is None else "")
    )


def _name(name: Any, path: Place) -> str:
    if not isinstance(name, str):
        raise ConfigError(f"{spelled(path)} has a key that is not a string: {name!r}")
    return str(_text(str(name), path))


def _text(text: str, path: Place) -> str:
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise ConfigError(f"{spelled(path)} holds half of a surrogate pair, which is no text")
    return text


def merged(ours: Mapping[str, Any], extra: Mapping[str, Any], path: KeyPath = ()) -> Table:
    """`ours` with `extra` put in between. Raises ConfigError where `extra` would change a key of `ours`."""
    result = dict(ours)
    for name, value in extra.items():
        here = (*path, name)
        if name not in ours:
            result[name] = value
        elif isinstance(ours[name], dict) and isinstance(value, dict):
            result[name] = merged(ours[name], value, here)
        elif difference(ours[name], value) is not None:
            raise ConfigError(f"it sets {spelled(here)}, which is written from the other settings")
    return result


def difference(want: Any, have: Any, path: Place = ()) -> Place | None:
    """The path of the first key in which two values differ, or None. `1`, `1.0` and `true` are three values."""
    if isinstance(want, dict) and isinstance(have, dict):
        for name in sorted(want.keys() | have.keys()):
            if name not in want or name not in have:
                return (*path, name)
            found = difference(want[name], have[name], (*path, name))
            if found is not None:
                return found
        return None
    if isinstance(want, list) and isinstance(have, list):
        if len(want) != len(have):
            return path
        found_in = (difference(w, h, (*path, i)) for i, (w, h) in enumerate(zip(want, have, strict=True)))
        return next((each for each in found_in if each is not None), None)
    return None if type(want) is type(have) and want == have else path
