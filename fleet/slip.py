"""A slip in an inventory or its data, in one line."""

from __future__ import annotations

from traceback import extract_tb

__all__ = ["slip"]


def slip(error: Exception, inventory: str) -> str:
    """Where it is and what Python has against it: pyinfra tells it by a traceback, or not at all."""
    inner = getattr(error, "exception", None)  # pyinfra_cli's UnexpectedExternalError, which has no text of its own
    if isinstance(inner, Exception):
        file = str(getattr(error, "filename", inventory))
        lines = [frame.lineno for frame in extract_tb(inner.__traceback__) if frame.filename == file]
        where = f"{file} line {lines[-1]}" if lines else file
        return f"{where}: {_said(inner)}"
    if isinstance(error, SyntaxError):
        return f"{error.filename} line {error.lineno}: {error.msg}"
    return f"{inventory}: {_said(error)}"


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
