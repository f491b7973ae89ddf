"""Other rollouts at the same time: never two on one node, and never two that spend what one group may do without."""

from __future__ import annotations

import os
from collections.abc import Iterable
from itertools import takewhile

from fleet import text
from fleet.child import CannotRun
from fleet.events import HostEvent
from fleet.history import History, absolute

__all__ = ["refuse"]


def refuse(history: History, run: int, inventory: str, hosts: Iterable[HostEvent]) -> None:
    """Raise CannotRun where another rollout goes on that `run` over these hosts must not be beside.

    A node's own lock would keep it whole, but each of two runs would spoil the other's waves. Groups are those of one
    inventory: in another one the same name may mean other nodes.
    """
    hosts = [*hosts]
    names, groups = {each.name for each in hosts}, {group for each in hosts for group in each.groups}
    for other in history.going_on("apply"):
        theirs = history.records(other.id) if other.id != run else []
        who = f"run {other.id} of {other.user} on {other.host}, since {other.started}, goes on over"
        if shared := sorted(names & {each.name for each in theirs}):
            raise CannotRun(f"{who} {text.names(shared)}: {other.way_out}")
        if os.path.realpath(other.inventory) != os.path.realpath(absolute(inventory)):
            continue
        if shared := sorted(groups & {group for each in theirs for group in each.groups}):
            raise CannotRun(
                f"{who} other nodes of {', '.join(shared)}, and each of the two would have as many away at a time as "
                f"max_unavailable allows of the whole group: {other.way_out}"
            )
    # What is known of a node is what the run with the highest number says, so that we are not heard after another one.
    for other in takewhile(lambda each: each.id > run, history.runs(inventory, "apply")):
        shared = sorted(names & {each.name for each in history.records(other.id)})
        if shared and not other.changed_nothing:
            raise CannotRun(
                f"run {other.id} of {other.user} was over {text.names(shared)} while this one began: "
                f"look what became of them (fleet.py show {other.id}), and give the command again"
            )
