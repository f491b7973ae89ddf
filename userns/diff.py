"""Diffs of managed files for people to read, with every secret's value replaced.

What lies on a node was written by anybody, in TOML or not, whole or cut off. Where it cannot be understood, rather
too much is masked than too little.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, MutableMapping
from difflib import unified_diff
from typing import Any

import tomlkit

from userns.console import plain
from userns.secret import NAMES, forms

__all__ = ["Mask", "unified"]

_SEPARATOR = re.compile(r"[\w.-]*[\"']?\s*[=:]?\s*")
_STRING = re.compile(r"\"(?:\\.|[^\"\\])*\"|'[^']*'")
_MARK = re.compile(r"<secret \d+>")
_PEM = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.S)
# Up to the last "@", because a password may hold one; the query, because it may be a signature.
_USERINFO = re.compile(r"(?<=://)()([^\s\"'<>]+)(?=@)")
# A proxy is also taken without a scheme. Not an image by its tag and digest.
_BARE_USERINFO = re.compile(r"(?<![\w/@:])()([^\s\"'=/@:,]+:[^\s\"'/@]+)(?=@(?!sha\d)[\w\[])")
_QUERY = re.compile(r"(://[^\s\"'<>?]*\?)([^\s\"'<>]+)")
# A shorter secret would turn up inside of other words.
_LONG = 8


class Mask:
    """Replaces secrets, the same one by the same mark, so that a change of a secret still shows as a change.

    `known` are secrets that no name tells of.
    """

    def __init__(self, known: Iterable[str] = ()) -> None:
        self._marks: dict[str, str] = {}
        self._known = sorted({(form, secret) for secret in known for form in forms(secret)}, key=_longest_first)

    def __call__(self, text: str) -> str:
        """`text` without the values of names that mean secrets, private keys, and what URLs hold of them."""
        text = self._without_known(text)
        try:
            document = tomlkit.parse(text)
            if self._hide_in(document):
                text = tomlkit.dumps(document)
        except Exception:  # no TOML, or more than tomlkit can take: what is left is found line by line
            pass
        text = "".join(self._lines(text))
        for secret in sorted((each for each in self._marks if len(each) >= _LONG), key=len, reverse=True):
            text = text.replace(secret, self._marks[secret])
        return self._without_userinfo(text)

    def in_sentence(self, text: str) -> str:
        """`text` that is no file's, but words for people: "Authentication failed" is no name with a value behind it."""
        return self._without_userinfo(self._without_known(text))

    def _without_known(self, text: str) -> str:
        for form, secret in self._known:
            if form in text:
                text = text.replace(form, self._marks.setdefault(secret, f"<secret {len(self._marks) + 1}>"))
        return _PEM.sub(lambda match: self._mark(match[0]), text)

    def _without_userinfo(self, text: str) -> str:
        for pattern in (_USERINFO, _BARE_USERINFO, _QUERY):
            text = pattern.sub(lambda match: match[1] + self._mark(match[2]), text)
        return text

    def _mark(self, value: str) -> str:
        bare = value.strip().strip("\"'")
        if not bare or _MARK.fullmatch(bare):
            return value
        return self._marks.setdefault(bare, f"<secret {len(self._marks) + 1}>")

    def _hide_in(self, table: MutableMapping[str, Any], secret: bool = False) -> bool:
        """Replace the secrets in a table of a TOML document, of whatever type they are; whether there was one."""
        found = False
        for key, value in list(table.items()):
            hide = secret or bool(NAMES.search(key))
            if hide and not isinstance(value, MutableMapping) and not _holds_only_tables(value):
                table[key] = self._mark(str(value))
                found = True
            for inner in _tables(value):
                found = self._hide_in(inner, hide) or found
        return found

    def _lines(self, text: str) -> Iterator[str]:
        """Mask what follows a name that means a secret: in comments, in arguments, and where there is no grammar.

        To the end of the line, and on to the end of what it opens: a quote, a bracket, a table.
        """
        opened, in_table = "", False
        for line in re.findall(r"[^\n]*\n|[^\n]+", text):
            name = NAMES.search(_MARK.sub(lambda mark: "-" * len(mark[0]), line))
            header = not opened and line.lstrip().startswith("[")
            if header:
                in_table = name is not None
            if header or not (opened or in_table or name):
                yield line
                continue
            if opened:
                start = 0
            elif name and not in_table and (separator := _SEPARATOR.match(line, name.end())):
                start = separator.end()
            else:
                start = line.find("=") + 1
            value = line[start:].rstrip("\r\n")
            opened = _still_open(value, opened)
            yield line[:start] + self._mark(value) + line[start + len(value) :]


def _longest_first(known: tuple[str, str]) -> tuple[int, str]:
    return -len(known[0]), known[0]


def _tables(value: object) -> list[MutableMapping[str, Any]]:
    """The tables that a value is, or holds."""
    if isinstance(value, MutableMapping):
        return [value]
    return [table for each in value for table in _tables(each)] if isinstance(value, list) else []


def _holds_only_tables(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(each, MutableMapping) for each in value)


def _still_open(value: str, opened: str) -> str:
    """What is open at the end of a line that holds `value`, named by what will close it, where `opened` was before."""
    ends = value.strip().rstrip(",")
    match opened:
        case "]" | "}":
            return "" if ends.startswith(opened) or ends.endswith(opened) else opened
        case '"""' | "'''":
            return "" if opened in value else opened
        case ",":
            return ""
    if value.strip() in ('",', "',", ","):  # an option in a list, whose value is the next line
        return ","
    for quote in ('"""', "'''"):
        if value.count(quote) % 2:
            return quote
    outside = _STRING.sub("", ends)
    for bracket, close in ("[]", "{}"):
        if outside.startswith(bracket) and outside.count(bracket) > outside.count(close):
            return close
    return "\\" if ends.endswith("\\") else ""


def unified(path: str, old: str | None, new: str | None, secrets: Iterable[str] = ()) -> list[str]:
    """The unified diff from `old` to `new` (None: no such file), line by line, secrets masked."""
    mask = Mask(secrets)
    before, after = _shown(mask(old or "")), _shown(mask(new or ""))
    names = "/dev/null" if old is None else path, "/dev/null" if new is None else path
    lines = [part for line in unified_diff(before, after, *names, lineterm="") for part in _ended(line)]
    if not lines and old != new:
        return [f"--- {names[0]}", f"+++ {names[1]}", "(they differ only in what is masked or cannot be seen)"]
    return lines


# Behind the last line of a text that does not end with a line end; no line that is shown has this character.
_OPEN = "\0"


def _shown(text: str) -> list[str]:
    """The lines of a text, without what would move the cursor of a terminal."""
    *lines, rest = plain(text).split("\n")
    return [*lines, rest + _OPEN] if rest else lines


def _ended(line: str) -> list[str]:
    """A line of the diff, followed by diff's own mark where the text ends without a line end."""
    return [line.removesuffix(_OPEN), "\\ No newline at end of file"] if line.endswith(_OPEN) else [line]
