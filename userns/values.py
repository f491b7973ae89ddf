"""Values of settings: each reader takes what an inventory or `--data` hands over and returns the clean value.

pyinfra turns `--data k=v` into a bool, an int or whatever JSON says, else a string (pyinfra_cli.util.parse_cli_arg),
so a reader takes the JSON text of a list or a mapping too. It refuses with ValueError, which says what is wrong with
the value; the caller adds the setting, the value and what is allowed.
"""

from __future__ import annotations

import json
import math
import posixpath
import re
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import urlsplit

from userns.kubelet.idrange import ID_SPACE
from userns.releases import VERSION
from userns.secret import SHOWN, Secret
from userns.versions import kubernetes as kubernetes_version
from userns.versions import parse, upstream

Reader = Callable[[object], object]

_KUBERNETES = re.compile(r"\d{1,3}\.\d{1,3}(?:\.\d{1,3})?(?:-(?:alpha|beta|rc)\.\d{1,3})?", re.ASCII)
_PLUGIN = re.compile(r"[A-Za-z0-9]+(?:[._-][A-Za-z0-9]+)*")
_FINDING = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")
_HOST = r"[A-Za-z0-9][A-Za-z0-9-]*(?:\.[A-Za-z0-9][A-Za-z0-9-]*)*(?::\d{1,5})?"
_NAME = r"[a-z0-9]+(?:(?:\.|__?|-+)[a-z0-9]+)*"
_IMAGE = re.compile(
    rf"(?:{_HOST}/)?{_NAME}(?:/{_NAME})*(?::[A-Za-z0-9_][A-Za-z0-9_.-]{{0,127}})?(?:@sha256:[0-9a-f]{{64}})?", re.ASCII
)
# Deeper than any containerd configuration; a mapping that holds itself would have no end.
_DEEPEST = 24


def optional(reader: Reader) -> Reader:
    """What `reader` takes, or None.

    The text of it is refused: `--data x=None` hands over that, and an inventory may have it in quotes.
    """

    def read(value: object) -> object:
        if isinstance(value, str) and value.strip().casefold() in {"none", "null"}:
            raise ValueError("it is text and not None: write None without quotes in an inventory, null behind --data")
        return None if value is None else reader(value)

    return read


def choice(*choices: object) -> Reader:
    """One of `choices`, by value and type: 1 is not True."""

    def read(value: object) -> object:
        if not any(value == one and type(value) is type(one) for one in choices):
            raise ValueError("it is none of the choices" + (_UNQUOTE if _hides(value, choices) else ""))
        return value

    return read


def boolean(value: object) -> bool:
    """True or False."""
    if not isinstance(value, bool):
        raise ValueError(_not("a bool", value) + (_UNQUOTE if _hides(value, (True, False)) else ""))
    return value


def integer(at_least: int, at_most: int, multiple_of: int = 1) -> Reader:
    """An int within limits; a bool is none."""

    def read(value: object) -> int:
        number = _int(value)
        if not at_least <= number <= at_most:
            raise ValueError(f"it must be {at_least} to {at_most}")
        if number % multiple_of:
            lower = max(number // multiple_of * multiple_of, at_least)
            raise ValueError(f"it is not a multiple of {multiple_of}: try {lower} or {lower + multiple_of}")
        return number

    return read


def id_range(value: object) -> tuple[int, int]:
    """A pair of start and count."""
    pair = _json(value, list)
    if not isinstance(pair, list | tuple) or len(pair) != 2:
        raise ValueError(_not("a pair of start and count", value))
    start, count = (_int(number) for number in pair)
    if not (0 <= start < ID_SPACE and 0 < count < ID_SPACE):
        raise ValueError(f"user IDs are 0 to {ID_SPACE - 1}, and the count is at least one block")
    return start, count


def release(parts: int) -> Reader:
    """The exact version of an upstream release, of at least so many numbers, without the v of its tag."""

    def read(value: object) -> str:
        text = _version_text(value)
        if not VERSION.fullmatch(text):
            base = upstream(text)
            hint = f": the release that it was built from is {base}" if base and base != text else ""
            raise ValueError(f"it is not the version of an upstream release{hint}")
        if len(text.partition("-")[0].split(".")) < parts:
            raise ValueError(f"it is not exact: write {parts} numbers")
        return text

    return read


def kubernetes(oldest: str) -> Reader:
    """A Kubernetes version, with or without a patch level, from the minor `oldest` on.

    One that the tables do not know is a warning of the plan's (userns.requirements): nothing known speaks against it.
    """

    def read(value: object) -> str:
        text = _version_text(value)
        if not _KUBERNETES.fullmatch(text):
            raise ValueError("it is not a Kubernetes version")
        if kubernetes_version(text).release[:2] < parse(oldest).release:
            raise ValueError(f"user namespaces for pods begin with Kubernetes {oldest}: upgrade the cluster first")
        return text

    return read


def text(value: object) -> str:
    """Printable text that is not empty."""
    if isinstance(value, Secret):
        raise ValueError(
            "it is a Secret, which only containerd_config, release_url and release_proxy take: write it as plain text"
        )
    if not isinstance(value, str):
        raise ValueError(_not("a string", value))
    if not value.strip():
        raise ValueError("it is empty")
    if not value.isprintable():
        raise ValueError("it holds a control character (a line break?) or another one that cannot be printed")
    return value


def kernel(value: object) -> str:
    """A kernel: a version, or a whole release as `uname -r` says it."""
    release = _version_text(value)
    if not re.fullmatch(r"\d{1,3}\.\d{1,4}[A-Za-z0-9.+~_-]{0,100}", release, re.ASCII):
        raise ValueError("it is no kernel version")
    return release


def path(value: object) -> str:
    """An absolute, normalised path on a node; spaces and any other printable characters are fine."""
    where = text(value)
    if not where.startswith("/"):
        raise ValueError("it is not absolute: begin with /")
    normal = "/" + posixpath.normpath(where).lstrip("/")
    if normal != where or ".." in where.split("/"):
        raise ValueError(f"it is not normalised (no .., no double or trailing slash): write {normal}")
    if where == "/":
        raise ValueError("the root directory cannot be it: name a directory below")
    return where


def layer_path(value: object) -> str:
    """A path that can hold overlay layers: the kernel's lowerdir= separates with colon, comma and backslash."""
    where = path(value)
    if set(where) & set(":,\\"):
        raise ValueError("overlay mount options cannot hold a path with a colon, a comma or a backslash")
    return where


def url(value: object) -> str:
    """An http(s) URL, without its trailing slash."""
    base = text(value.value if isinstance(value, Secret) else value)
    if SHOWN in base:
        raise ValueError(f"it holds {SHOWN}, the text of a Secret that was put into a string: wrap the whole URL")
    try:
        parts = urlsplit(base)
        host, _port = parts.hostname, parts.port
    except ValueError as error:
        raise ValueError("it is not a URL: check the host and the port") from error
    if parts.scheme not in {"http", "https"} or not host or "@" in parts.path:
        raise ValueError("it is not an http or https URL with a host")
    if "?" in base or "#" in base or " " in base or not base.isascii():
        raise ValueError("it must be a plain one: no query, no fragment, no space")
    return base.rstrip("/")


def proxy(value: object) -> str:
    """The URL of an HTTP proxy: wget speaks no TLS with any, and its password would go out in the clear."""
    base = url(value)
    parts = urlsplit(base)
    if parts.scheme != "http":
        raise ValueError("it is no HTTP proxy: write http:// (through which https is fetched, too)")
    if parts.path:
        raise ValueError("a proxy is a host and a port, and has no path")
    return base


def image(value: object) -> str:
    """A container image reference."""
    reference = text(value)
    if len(reference) > 400 or not _IMAGE.fullmatch(reference):
        raise ValueError("it is not an image reference")
    return reference


def plugin(value: object) -> str:
    """The id of a containerd plugin, as `ctr plugins ls` prints it."""
    name = text(value)
    if len(name) > 76 or not _PLUGIN.fullmatch(name):
        raise ValueError("it is not the id of a snapshotter")
    return name


def finding_ids(value: object) -> tuple[str, ...]:
    """Ids of findings, each once; a single one may be given as a string."""
    if isinstance(value, str) and not value.lstrip().startswith("["):
        value = [value]
    ids = _json(value, list)
    if not isinstance(ids, list | tuple):
        raise ValueError(_not("a list", value))
    for id in ids:
        if not isinstance(id, str) or not _FINDING.fullmatch(id):
            raise ValueError(f"{id!r} is not the id of a finding: lower-case words joined by hyphens")
    return tuple(dict.fromkeys(ids))


def toml_table(value: object) -> dict[str, Any]:
    """A mapping that TOML can express, copied."""
    table = _json(value, dict)
    if not isinstance(table, dict):
        raise ValueError(_not("a mapping", value))
    return {_key(key, "it"): _toml(item, str(key), 1) for key, item in table.items()}


def _toml(value: object, where: str, depth: int) -> object:
    if depth > _DEEPEST:
        raise ValueError(f"{where} is nested deeper than {_DEEPEST} tables")
    match value:
        case bool():
            return value
        case int() if not -(2**63) <= value < 2**63:
            raise ValueError(f"{where} is a number beyond 64 bits")
        case float() if not math.isfinite(value):
            raise ValueError(f"{where} is not a finite number")
        case str() if "\0" in value or not _encodable(value):
            raise ValueError(f"{where} holds a NUL or half of a surrogate pair, which TOML cannot express")
        case str() if SHOWN in value:
            raise ValueError(f"{where} holds {SHOWN}, the text of a Secret that was put into a string: wrap the whole")
        case int() | float() | str():
            return value
        case Secret():
            return _toml(value.value, where, depth)
        case list() | tuple():
            return [_toml(item, f"{where}[{i}]", depth + 1) for i, item in enumerate(value)]
        case dict():
            return {_key(k, where): _toml(v, f"{where}.{k}", depth + 1) for k, v in value.items()}
        case None:
            raise ValueError(f"{where} is None, which TOML cannot express: leave the key out")
    raise ValueError(f"{where} is of type {type(value).__name__}: write strings, numbers, bools, lists and mappings")


def _key(key: object, where: str) -> str:
    if not isinstance(key, str):
        raise ValueError(f"{where} has the key {key!r}: keys must be strings")
    if not key or not key.isprintable():
        raise ValueError(f"{where} has the key {key!r}: keys must be printable and not empty")
    return key


def _encodable(value: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in value)


def _int(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        digits = isinstance(value, str) and re.fullmatch(r"\d+", value.strip())
        raise ValueError(_not("an int", value) + (_UNQUOTE if digits else ""))
    return value


def _json(value: object, wanted: type) -> object:
    """The value itself, or what its text says where that is JSON for `wanted`."""
    if not isinstance(value, str):
        return value
    try:
        parsed = json.loads(value)
    except (ValueError, RecursionError):
        return value
    return parsed if isinstance(parsed, wanted) else value


def _version_text(value: object) -> str:
    """A version as text. `--data kubernetes_version=1.33` arrives as a float, and 1.30 as the float 1.3."""
    if isinstance(value, float) and re.fullmatch(r"\d+\.\d\d+", repr(value)):
        return repr(value)
    if isinstance(value, float | int) and not isinstance(value, bool):
        raise ValueError(
            "a number loses its last zero (1.30 is 1.3): write it as a string, "
            """"1.30" in an inventory and '"1.30"' or v1.30 behind --data"""
        )
    version = text(value)
    return version[1:] if re.match(r"v\d", version) else version


def _not(wanted: str, value: object) -> str:
    """What the value is instead of what was wanted."""
    return f"it is {_KINDS.get(type(value), type(value).__name__)} and not {wanted}"


_UNQUOTE = ": write it without quotes"


def _hides(value: object, allowed: Sequence[object]) -> bool:
    """Whether it is one of the bools that are allowed, in quotes."""
    bools = {str(one).casefold() for one in allowed if isinstance(one, bool)}
    return isinstance(value, str) and value.strip().casefold() in bools


_KINDS: dict[type, str] = {
    type(None): "None",
    bool: "a bool",
    int: "an int",
    float: "a float",
    str: "a string",
    list: "a list",
    tuple: "a tuple",
    dict: "a mapping",
}
