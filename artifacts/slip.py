"""A slip in an inventory or its data, in one line."""

from __future__ import annotations

from traceback import extract_tb

__all__ = ["slip"]


def slip(error: Exception, inventory: str) -> str:
    """Where it is and what Python has against it: pyinfra tells it by a traceback, or not at all."""
    where: list[str] = []
    inner = getattr(error, "exception", None)  # pyinfra_cli's UnexpectedExternalError, which has no text of its own
    if isinstance(inner, Exception):
        # Where the file came to, and where the error is if that is in a module that it imports.
        file, error = str(getattr(error, "filename", inventory)), inner
        frames = [frame for frame in extract_tb(error.__traceback__) if not frame.filename.startswith("<frozen ")]
        own = [frame for frame in frames if frame.filename == file]
        where = [f"{frame.filename}, line {frame.lineno}" for frame in [*own[-1:], *frames[-1:]]]
    message = str(error)
    if isinstance(error, SyntaxError):
        where.append(f"{error.filename}, line {error.lineno}")
        message = error.msg
    where = [*dict.fromkeys(where)] or [inventory]
    return " ".join(": ".join([*where, type(error).__name__, message]).split())
