"""Text of the code, as Markdown that shows it unchanged."""

from __future__ import annotations

import html
import re

_CODE = re.compile(r"(`[^`]+`)")


def plain(text: str) -> str:
    """Text in which only code between backticks means anything to Markdown."""
    pieces = _CODE.split(" ".join(text.split()))
    return "".join(piece if _CODE.fullmatch(piece) else _escaped(piece) for piece in pieces)


def code(text: str) -> str:
    """Text as code, also in a cell of a table."""
    return f"`{text}`" if "`" not in text else f"``{text}``"


def cell(text: str) -> str:
    """Text for a cell of a table."""
    return text.replace("|", "\\|")


def block(text: str, language: str = "text") -> str:
    """Lines as they are."""
    return f"```{language}\n{text.rstrip()}\n```"


def _escaped(text: str) -> str:
    return re.sub(r"([\\`*_\[\]{}#|])", r"\\\1", html.escape(text, quote=False))
