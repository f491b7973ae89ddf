"""Whose pods were moved away for a change, so that nobody forgets to let them back, whatever becomes of the change."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from fleet.drain import Guard
from fleet.history import History
from fleet.records import Record
from fleet.run import Run

__all__ = ["LOOK", "Away", "look", "remembered", "untold"]


@dataclass
class Away:
    """`nodes` are the hosts' names in Kubernetes; `hosts` those whose pods are away, or are being moved.

    `moved` are those of them of which it was the last `leave` that moved them.
    """

    guard: Guard
    say: Callable[[str], None]
    nodes: Mapping[str, str] = field(default_factory=dict)
    hosts: set[str] = field(default_factory=set)
    moved: set[str] = field(default_factory=set)

    def found(self, hosts: Iterable[str]) -> None:
        """An earlier run moved the pods of these away, and did not let them back."""
        self.hosts |= (found := set(hosts))
        self.guard.ours |= {self.nodes[host] for host in found}

    def leave(self, hosts: Iterable[str], write: Callable[[Iterable[str]], object]) -> dict[str, str]:
        """Move the pods of these away; the hosts where that failed, each with why.

        `write` is called with those that are ours to give back, right before something is done to them. One stays ours
        where that failed, unless the guard has given it back.
        """

        self.moved = set()

        def begun(ours: Iterable[str]) -> None:
            self.moved = set(ours) - self.hosts
            self.hosts |= set(ours)
            write(ours)

        failed = self.guard.before({host: self.nodes[host] for host in hosts}, self.say, begun)
        self.hosts -= {host for host in failed if self.nodes[host] in self.guard.given_back}
        return failed

    def back(self, hosts: Iterable[str]) -> dict[str, str]:
        """Let pods back to these; the hosts where that failed, each with why."""
        nodes = {host: self.nodes[host] for host in hosts}
        failed = self.guard.after(nodes, self.say)
        self.hosts -= nodes.keys() - failed.keys()
        return failed

    def undo(self, hosts: Iterable[str]) -> dict[str, str]:
        """Let pods back to those of these that the last `leave` moved them away from, as `back`."""
        return self.back([host for host in hosts if host in self.moved & self.hosts])

    def told(self, host: str) -> str:
        """What somebody has to do about a host whose pods are away still."""
        return self.guard.left(self.nodes[host])


LOOK = "look whether it is cordoned; apply with --drain (or --after COMMAND) lets its pods back once it is well"


def _moved(run: int) -> str:
    return f"run {run} was to let its pods back, and did not"


def look(run: int) -> str:
    """What somebody has to look at, of a node that `run` has drained and not given back."""
    return f"{_moved(run)}: {LOOK}"


def _still_away(run: Run) -> str:
    return f"run {run.id} of {run.user} on {run.host} goes on, and has moved its pods away{run.if_gone}"


def _going_on(history: History, drained: Mapping[str, int]) -> dict[int, Run]:
    runs = {number: history.run(number) for number in set(drained.values())}
    return {number: run for number, run in runs.items() if run.goes_on}


def remembered(
    history: History, records: Iterable[Record], drained: Mapping[str, int], say: Callable[[str], None]
) -> Iterator[Record]:
    """The records of a run that gives nothing back, those of the `drained` marked as such, and said.

    Such a run is what is reported next: were it silent, nobody would think of these nodes any more. But where another
    run goes on that has drained them, that does.
    """
    going_on = _going_on(history, drained)
    for record in records:
        if (run := drained.get(record.name)) is None:
            yield record
            continue
        if run in going_on:
            say(f"{record.name}: {_still_away(going_on[run])}")
            yield record
            continue
        say(f"{record.name}: {look(run)}")
        yield record.model_copy(update={"drained": True, "reasons": (*record.reasons, look(run))})


def untold(
    history: History, inventory: str, run: int, drained: Mapping[str, int], has: Collection[str]
) -> Iterator[str]:
    """A line for each drained node of which no record of `run` tells, and nobody would think.

    Those are the `drained` that it has not, and what was drained by another name of the inventory: it was moved, say.
    One that an earlier run over the whole inventory did not have either is gone from it, and was told of then.
    """
    names = sorted(drained.keys() - set(has))
    earlier = (each for each in (history.runs(inventory, "apply") if names else ()) if each.id != run)
    whole = next((each.id for each in earlier if each.has_all_nodes and each.has_read), 0)
    going_on = _going_on(history, drained)
    for name in names:
        if drained[name] in going_on:
            yield f"{name}: {_still_away(going_on[drained[name]])}"
        elif drained[name] >= whole:
            yield (
                f"{name}: {_moved(drained[name])}, and this run leaves it out: look whether it is cordoned "
                f"(fleet.py show {drained[name]} {name}), or apply to it with --drain"
            )
    for name, other in sorted(history.drained_elsewhere(inventory).items()):
        if name in has and other.goes_on:
            yield f"{name}: {_still_away(other)}"
        elif name in has:
            yield (
                f"{name}: {_moved(other.id)}. That was over {other.inventory}, of which this run knows nothing: look "
                f"whether it is cordoned (fleet.py show {other.id} {name}), or apply to it there with --drain"
            )
