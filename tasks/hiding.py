"""What no output of a run shows, whoever prints it: the secrets in the data of its hosts.

Nothing here prints one in the first place. This is for what others print: what a program on a node says of the text
that it was given, and pyinfra itself.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from typing import Any

from pyinfra import logger
from pyinfra.api import output

from userns.secret import SHOWN, forms, texts

_forms: set[str] = set()
_pattern: re.Pattern[str] | None = None


def remember(data: Mapping[str, Any]) -> None:
    """Hide every secret in the data of a host from now on."""
    global _pattern
    new = {form for secret in texts(data) for form in forms(secret)} - _forms
    if not new:
        return
    if not _forms:
        logger.addFilter(_clean)
        output.set_echo(_Echo(output._echo))
    _forms.update(new)
    _pattern = None


def hidden(text: str) -> str:
    """`text` without any secret that was remembered."""
    global _pattern
    if not _forms:
        return text
    if _pattern is None:  # once for all hosts that were remembered meanwhile, of which each may have its own
        _pattern = re.compile("|".join(map(re.escape, sorted(_forms, key=len, reverse=True))))
    return _pattern.sub(SHOWN, text)


def _clean(record: logging.LogRecord) -> bool:
    if isinstance(record.msg, str):
        record.msg, record.args = hidden(record.getMessage()), ()
    return True


class _Echo:
    """pyinfra's way to print what a node says, line by line."""

    def __init__(self, echo: Any) -> None:
        self.echo = echo

    def __call__(self, message: Any = None, **how: Any) -> None:
        self.echo(hidden(message) if isinstance(message, str) else message, **how)
