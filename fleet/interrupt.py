"""Ctrl-C while nodes are being changed: the first one waits for those in flight, the second one leaves."""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType
from typing import Any

__all__ = ["Interrupt", "Late"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Late(KeyboardInterrupt):
    """Somebody left after nodes were changed."""


class Interrupt:
    """`wanted` is true once somebody asked for the end; asked twice, KeyboardInterrupt is raised.

    `say` is called in a signal's handler: it has to be one that may be.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._before: dict[signal.Signals, Any] = {}
        self.wanted = False

    def __enter__(self) -> Interrupt:
        # Under nohup a terminal may hang up. A shell makes background jobs deaf to Ctrl-C: not us.
        deaf = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        heard = [each for each in _SIGNALS if each is not signal.SIGHUP or not deaf]
        self._before = {each: signal.signal(each, self._asked) for each in heard}
        return self

    def __exit__(self, *_: object) -> None:
        for each, handler in self._before.items():
            signal.signal(each, handler)

    def _asked(self, number: int, _frame: FrameType | None) -> None:
        if not self.wanted:
            self.wanted = True
            self._say("stopping: the nodes in flight are finished and no other is begun. Again to leave at once")
        elif number != signal.SIGHUP:  # a terminal hangs up once, and its shell says so again
            raise KeyboardInterrupt
