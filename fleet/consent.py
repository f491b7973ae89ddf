"""Whether somebody wants a rollout, once its plan was told."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

import click

from fleet import text
from fleet.child import CannotRun
from fleet.options import WAYS, Options
from fleet.records import Record, Status

__all__ = ["agreed", "asked"]


def agreed(records: Sequence[Record], idle: Sequence[str], options: Options, *, diff: bool) -> bool:
    """Tell the plan, and ask. `idle` are nodes that need no change, and would get their pods back.

    Raises CannotRun where nobody is there, or has not said what is to become of the pods.
    """
    if not options.json:
        print(text.plan(records, diff=diff, verbose=options.verbose), flush=True)
    _refuse_undecided(records, options)
    changing = any(each.status is Status.CHANGES for each in records)
    wanted = ["change these nodes"] * changing + [f"let pods back to {text.names(idle)}"] * bool(idle)
    question = ", and ".join(wanted)
    return options.yes or asked(f"{question[0].upper()}{question[1:]}?", "use plan to look")


def asked(question: str, instead: str) -> bool:
    """Ask it. Raises CannotRun where nobody is there, with what to do instead, and KeyboardInterrupt if they leave."""
    if sys.stdin is None or sys.stdin.closed or not sys.stdin.isatty():
        raise CannotRun(f"nobody is there to agree: pass -y to change nodes without a question, or {instead}")
    try:
        return click.confirm(question, err=True)
    except click.Abort:  # Ctrl-C, or Ctrl-D
        raise KeyboardInterrupt from None


def _refuse_undecided(records: Iterable[Record], options: Options) -> None:
    disturbed = [each for each in records if each.status is Status.CHANGES and each.disrupts]
    if disturbed and options.drain is None:
        raise CannotRun(
            f"the pods of {text.names([each.name for each in disturbed])} would be disturbed "
            f"({disturbed[0].disrupts[0]}): say {WAYS}"
        )
