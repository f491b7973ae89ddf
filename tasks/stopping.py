"""Ctrl-C: a run that is stopped says so and ends with 130, wherever the signal finds it.

Python runs a signal's handler between any two steps of the program, and swallows what it raises in a hook of a fork, a
finalizer or a callback of the garbage collector: the run would go on, and in logging's hook of a fork it would keep
logging's lock for ever. So the handler raises nothing there: gevent's hub ends the run, between two greenlets.
"""

from __future__ import annotations

import getpass
import os
import signal
from collections.abc import Callable
from time import monotonic
from types import CodeType, FrameType

import gevent
import pyinfra_cli.cli  # type: ignore[import-untyped]
from pyinfra.connectors.sshuserclient.client import AskPolicy

__all__ = ["install"]

CODE = 130
# A second Ctrl-C within it is the same one, pressed twice; a later one is somebody who has waited for the first.
PATIENCE_SECONDS = 2.0


def install(end: Callable[[], None]) -> None:
    """Let `end` (which says so and raises SystemExit) end this process at a SIGINT, and no later than at a second one.

    Called in the main greenlet, before anything asks the operator.
    """
    hub, pid = gevent.get_hub(), os.getpid()
    # They wait for somebody at the terminal, and the hub with them. None of them forks.
    asking = _codes(pyinfra_cli.cli._do_confirm, getpass.getpass, AskPolicy.missing_host_key)
    noticed: list[float] = []
    told: list[bool] = []

    def end_once() -> None:
        if not told:
            told.append(True)
            end()

    def interrupted(number: int, frame: FrameType | None) -> None:
        if os.getpid() != pid:  # a fork that is not its command yet: it ends as that would
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        if noticed and monotonic() - noticed[0] > PATIENCE_SECONDS:
            os._exit(CODE)
        noticed.append(monotonic())
        if _is_in(frame, asking):
            end_once()
        hub.loop.run_callback_threadsafe(end_once)

    signal.signal(signal.SIGINT, interrupted)


def _codes(*functions: Callable[..., object]) -> frozenset[CodeType]:
    return frozenset(each.__code__ for each in functions if hasattr(each, "__code__"))


def _is_in(frame: FrameType | None, codes: frozenset[CodeType]) -> bool:
    while frame is not None:
        if frame.f_code in codes:
            return True
        frame = frame.f_back
    return False
