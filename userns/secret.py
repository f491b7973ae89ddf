"""Secrets in settings: the wrapper for an inventory's values, and which texts of an inventory no output may show.

from userns.secret import Secret

release_url = Secret("https://robot:its-password@mirror.example")
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from userns.containerd.toml_text import inline

__all__ = ["NAMES", "SHOWN", "Secret", "forms", "hide", "texts", "without"]

SHOWN = "<secret>"

# A name with such a word in it names a secret, and so do all names in a table of such a name.
NAMES = re.compile(
    "pass|pwd|secret|token|auth|credential|cookie|bearer|header|signature|"
    "(private|api|access|signing|client|encrypt|encryption)[-_ ]?key",
    re.I,
)
# In a table of such a name, too, this is none.
_OPEN = re.compile(r"user(_?name)?", re.I)
# The settings that may hold secrets, and pyinfra's own data that does.
URLS = ("release_url", "release_proxy")
_OURS = ("containerd_config", *URLS)
_PYINFRAS = ("ssh_password", "ssh_key_password", "_sudo_password", "_su_password")
_USERINFO = re.compile(r"://([^\s\"'<>/]*)@")
_PROXY = re.compile(r"(?:\w+://)?([^\s/]+)@")
# What is only said to be a secret by its name, or is a part of a URL, is looked for from this length on: a shorter one
# (`true`, `none`) is part of other words. A URL's user may be a token, or a name that is such a word, too (`deploy`).
_LONG = 5
_LONG_USER = 12


@dataclass(frozen=True, slots=True, repr=False)
class Secret:
    """A text that is never shown. `containerd_config` takes it for any value in it, `release_url` and
    `release_proxy` as the whole URL.

    Raises TypeError where it is no text, or an empty one.
    """

    value: str

    def __post_init__(self) -> None:
        if not isinstance(self.value, str) or not self.value:
            raise TypeError("Secret takes a string that is not empty")

    def __repr__(self) -> str:
        return SHOWN

    __str__ = __repr__

    def to_json(self) -> str:
        """What pyinfra prints of it (pyinfra_cli.util.json_encode)."""
        return SHOWN


def texts(data: Mapping[str, Any]) -> Iterator[str]:
    """Every secret in one host's data: what is wrapped, what is named like one in our settings, what URLs hold."""
    for name, value in data.items():
        if name == "containerd_config" and isinstance(value, str):
            value = _parsed(value)  # behind --data
        yield from _of_environment(value) if name == "_env" else _in(value, ours=name in _OURS, named=name in _PYINFRAS)


def _of_environment(value: object) -> Iterator[str]:
    """Of what pyinfra gives to commands: a proxy may stand there without a scheme, and a token be a number."""
    if isinstance(value, Mapping):
        texts = {name: each if isinstance(each, Secret) else str(each) for name, each in value.items()}
        yield from _in(texts, ours=True, named=False)
        for each in texts.values():
            if match := _PROXY.match(str(each)):
                yield from _of_userinfo(match[1])


def _of_userinfo(userinfo: str) -> Iterator[str]:
    """What stands in a URL before its "@", as a whole and in part. What is short is looked for in its place alone."""
    user, colon, password = userinfo.partition(":")
    if colon:
        yield userinfo if len(userinfo) >= _LONG else f"{userinfo}@"
    if len(password) >= _LONG:
        yield password
    if user:
        yield user if len(user) >= (_LONG_USER if colon else _LONG) else f"//{user}@"


def _in(value: object, *, ours: bool, named: bool) -> Iterator[str]:
    match value:
        case Secret():
            yield from dict.fromkeys((value.value, value.value.rstrip("/")))  # as release_url is used
            yield from _in(value.value, ours=ours, named=False)
        case str() if ours or named:
            if named and len(value) >= _LONG:
                yield value
            for match in _USERINFO.finditer(value) if ours else ():
                yield from _of_userinfo(match[1])
        case Mapping():
            for key, inner in value.items():
                name = str(key)
                secret = named or bool(NAMES.search(name))
                yield from _in(inner, ours=ours, named=ours and secret and not _OPEN.fullmatch(name))
        case list() | tuple() | set() | frozenset():
            for inner in value:
                yield from _in(inner, ours=ours, named=named)


def _parsed(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def forms(secret: str) -> tuple[str, ...]:
    """A secret as it is, as it is written in a string of TOML and of JSON, and as a shell's word within others."""
    quoted = (inline(secret), json.dumps(secret), json.dumps(secret, ensure_ascii=False))
    words = [secret]
    for _ in range(3):  # sudo and su have a shell in a shell
        words.append(words[-1].replace("'", "'\"'\"'"))  # as shlex.quote has it
    return tuple(dict.fromkeys((*words, *(each[1:-1] for each in quoted))))


def hide(text: str, secrets: Iterable[str]) -> str:
    """`text` with SHOWN for each of the secrets in it, however it is written."""
    for form in sorted({form for secret in secrets for form in forms(secret)}, key=len, reverse=True):
        text = text.replace(form, SHOWN)
    return text


def without(value: Any, secrets: Iterable[str], named: bool = False) -> Any:
    """A setting's value with SHOWN for each secret in it, and for whatever is named like one."""
    known = tuple(secrets)
    match value:
        case Mapping():
            return {
                key: without(inner, known, (named or bool(NAMES.search(str(key)))) and not _OPEN.fullmatch(str(key)))
                for key, inner in value.items()
            }
        case list() | tuple():
            return [without(inner, known, named) for inner in value]
        case str():
            return SHOWN if named else hide(value, known)
    return SHOWN if named else value
