"""Refusing one host without harm to the others.

In pyinfra 3.10 an exception in deploy code ends the run for every host, and each failed host brings up a question on
stdin in the midst of the plan, which crashes where stdin is closed. So a host is failed by hand, the question waits
until something is being changed, and the others go on; the exit code is 1 because the host counts as failed.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from pyinfra import host, logger
from pyinfra.api import State
from pyinfra.api.exceptions import PyinfraError
from pyinfra.api.state import StateStage
from pyinfra.context import ctx_host, ctx_state

from userns.diff import Mask

NO_HOSTS = "No hosts remaining!"
DEPLOY = "deploy.py --dry"


def refuse(reasons: Iterable[str]) -> None:
    """Fail the current host with these reasons, one a line. What was queued for it is neither shown nor run."""
    for reason in reasons:
        for line in reason.splitlines():
            logger.error(f"{host.print_prefix}{line}")
    # The real host and not the proxy, which pyinfra's results can't print.
    state, refused = ctx_state.get(), ctx_host.get()
    state.ops[refused].clear()
    refused.op_hash_order.clear()
    ask_late(state)
    try:
        state.fail_hosts({refused})
    except PyinfraError as error:
        # With no host left there is nothing to do, and the run ends by itself with exit code 1; raised here,
        # the error would cost `--json` its output.
        if str(error) != NO_HOSTS:
            raise


@contextmanager
def contained(command: str = DEPLOY) -> Iterator[None]:
    """Contain whatever goes wrong inside to the current host: one host's trouble is that host's.

    Also a decorator, `@contained()`: the function then returns None where its host was failed. `command` is what
    pyinfra was given to come here, and changes nothing: an error that nobody foresaw is told with it.
    """
    try:
        yield
    except PyinfraError as error:
        if ctx_host.get() not in ctx_state.get().failed_hosts:
            refuse([f"refused: {error}"])
        elif str(error) != NO_HOSTS:  # --fail-percent: the whole run is to end
            raise
    except Exception as error:
        refuse([f"refused: {unexpected(error, command)}"])


def unexpected(error: Exception, command: str) -> str:
    """What to tell of an error that nobody foresaw, and how to see where: by pyinfra, as fleet.py has no --debug."""
    logger.debug(Mask()("".join(traceback.format_exception(error))))
    bug = f"a bug in userns-node: `pyinfra INVENTORY {command} --debug --limit HOST` shows where; please report it"
    return f"unexpected {type(error).__name__}: {Mask()(str(error))} ({bug})"


def ask_late(state: State) -> None:
    """Let pyinfra's "hosts failed, continue?" wait until something is being changed."""
    ask = state.should_raise_failed_hosts
    if ask is not None and not isinstance(ask, LateQuestion):
        state.should_raise_failed_hosts = LateQuestion(ask)


class LateQuestion:
    """pyinfra's question after a failure, asked only where its answer decides something and somebody can give it.

    Before anything is changed, failed hosts are part of the plan, and one question follows the plan anyway.
    """

    def __init__(self, ask: Callable[[State], bool]) -> None:
        self.ask = ask

    def __call__(self, state: State) -> bool:
        """Whether the run is to end here."""
        somebody = sys.stdin is not None and not sys.stdin.closed and sys.stdin.isatty()
        return somebody and state.current_stage >= StateStage.Execute and self.ask(state)
