"""A progress bar on a terminal; nothing in a pipe."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import Any

import click

__all__ = ["Progress"]


class Progress:
    """How many of the nodes are done with, and what is being done. On standard error."""

    def __init__(self, label: str) -> None:
        self._label = label
        self._bar: Any = None
        self._step = ""

    def begin(self, length: int) -> None:
        """Show the bar of so many nodes."""
        if not sys.stderr.isatty():
            return
        self._bar = click.progressbar(
            length=length, label=self._label, file=sys.stderr, show_pos=True, item_show_func=lambda _: self._step[:60]
        )
        self._bar.__enter__()
        self._bar.render_progress()

    def advance(self) -> None:
        """One node more is done with."""
        if self._bar:
            with suppress(OSError):
                self._bar.update(1)

    def say(self, step: str) -> None:
        """What is being done."""
        self._step = step
        if self._bar:
            with suppress(OSError):
                self._bar.render_progress()

    def end(self) -> None:
        """Take the bar away; what is told next stands in its own line."""
        if self._bar:
            with suppress(OSError):
                self._bar.__exit__(None, None, None)
            self._bar = None
