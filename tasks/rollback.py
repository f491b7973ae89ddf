"""Bring a kept set back on nodes that a later change broke.

    pyinfra INVENTORY tasks.rollback.previous_set     the set before the last change (or before the last rollback)
    pyinfra INVENTORY tasks.rollback.older_set        the other set that is kept

Neither needs the settings, nor a node that the policy would accept: what comes back was there before. `--dry` says
what would come back.
"""

from __future__ import annotations

from collections.abc import Iterable

import click
from pyinfra import host
from pyinfra.api import FactBase, StringCommand
from pyinfra.api.exceptions import FactProcessError
from pyinfra.context import ctx_host, ctx_state

from tasks import operations
from tasks.containerd import CHANGE_SECONDS
from tasks.files import run
from tasks.node import READ_SECONDS
from tasks.refusal import contained, refuse
from tasks.stage import Stage
from tasks.telling import say, tell_finding
from userns import rollback
from userns.reading.records import ReadingError

PARTS = ("record.sh", "running.sh", "sets.sh")


class KeptSets(FactBase[rollback.Kept]):
    """The sets that a node keeps, and what is there now: see `userns.rollback.Kept`."""

    def command(self) -> StringCommand:
        """The script, which travels inside the command."""
        return run(PARTS[-1], parts=PARTS[:-1])

    def process(self, output: Iterable[str]) -> rollback.Kept:
        """Read the answer. A FactProcessError fails this host; any other exception would stop all hosts."""
        try:
            return rollback.read(output)
        except ReadingError as error:
            raise FactProcessError(str(error)) from error


@contained("tasks.rollback.previous_set --dry")
def previous_set() -> None:
    """Bring back the set from before the last change, and keep the present one in its place."""
    _bring_back(rollback.PREVIOUS)


@contained("tasks.rollback.older_set --dry")
def older_set() -> None:
    """Bring back the older one of the two kept sets."""
    _bring_back(rollback.PREVIOUS_2)


def _bring_back(wanted: str) -> None:
    kept = host.get_fact(KeptSets, _timeout=READ_SECONDS)
    if ctx_host.get() in ctx_state.get().failed_hosts:
        return
    if kept is None:
        refuse(["refused: the node answered nothing, though its shell says that all went well. Does sh run there?"])
        return
    plan = rollback.make(kept, wanted)
    _tell(plan, kept)
    if plan.refused:
        refuse(["refused: this node is left as it is"])
        return
    if not plan.actions:
        say(click.style("nothing to do: the kept set is what is there now", fg="green"))
        return
    stage = Stage()
    for kind, *fields in plan.actions:
        stage.add(kind, *fields)
    operations.activate(
        name=f"Bring back the set {plan.set}, restart containerd, check its health",
        stage=stage.path,
        token=stage.token,
        actions=stage.text,
        _timeout=CHANGE_SECONDS,
    )


def _tell(plan: rollback.Rollback, kept: rollback.Kept) -> None:
    """Say what would come back, and why not."""
    for finding in plan.findings:
        tell_finding(finding)
    if plan.refused:
        return
    if plan.set == rollback.UNDO:
        say(f"a change was cut off on this node ({kept.unfinished}): the set from before it comes back")
    for change in plan.changes:
        say(f"{click.style('will', fg='cyan')} {change}")
