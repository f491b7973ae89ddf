"""Which nodes are worked on by which worker: never one by two at a time, and none told of twice. Pure.

An attempt at a shard goes on for as long as its controller grants it: each grant is for `lease` seconds from when the
worker asked, and pyinfra's process dies by the kernel's own timer where none follows. So an attempt that nobody hears
of any more is over at the latest a lease after its last grant, whatever became of its worker or of the way there, and
only then its nodes are given to another one.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from uuid import uuid4

from fleet.messages import WITHDRAWN, Grants

__all__ = ["Attempt", "Board", "Leases", "Shard", "Worker", "split"]

# Clocks of two machines do not run alike; and a process takes a moment to die.
MARGIN_SECONDS = 1.0
# Fewer nodes at a time are not worth a process of their own: it takes a second to start.
FEWEST = 10
# At most so many, where nobody said how many: with a worker, no more work than that is lost.
SHARD = 200
# A worker of which nothing is heard any more may be on the list of a scheduler for minutes.
REST_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Worker:
    """A worker that may be used: the `slots` shards that it takes at a time, and the regions that it serves.

    `busy`: it is alive, and all its threads work, for whomever.
    """

    address: str
    token: str
    slots: int
    regions: frozenset[str] = frozenset()
    busy: bool = False


@dataclass(frozen=True, slots=True)
class Shard:
    """Nodes that are worked on together; after attempts that failed, with the workers and the reasons of those."""

    names: tuple[str, ...]
    region: str = ""
    tried: tuple[str, ...] = ()
    why: tuple[str, ...] = ()


@dataclass(slots=True)
class Attempt:
    """A shard on a worker. `left` are the nodes that nothing was told of yet; `heard` is when it last had news."""

    id: str
    shard: Shard
    worker: Worker
    began: float
    heard: float
    left: dict[str, None]
    withdrawn: str = ""


def split(regions: Mapping[str, str], slots: int, most: int) -> list[Shard]:
    """Shards of the hosts, whose regions these are: as many for each slot; none has more than `most` hosts."""
    slots = max(1, slots)
    rounds = max(1, -(-len(regions) // (most * slots)))
    size = min(most, max(FEWEST, -(-len(regions) // (rounds * slots))))
    shards = []
    ordered = sorted(regions, key=regions.__getitem__)  # stable: the inventory's order within a region
    for region, members in groupby(ordered, key=regions.__getitem__):
        names = list(members)
        shards += [Shard(tuple(names[at : at + size]), region) for at in range(0, len(names), size)]
    return shards


class Leases:
    """Which attempts may go on, and until when at the latest. Any thread may ask."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._lock = threading.Lock()
        self._beats: Grants = {}
        self._granted: dict[str, float] = {}

    def open(self, attempt: str) -> None:
        """It may be granted from now on."""
        with self._lock:
            self._beats[attempt] = 0

    def close(self, attempt: str) -> None:
        """It has ended, and is never granted again."""
        with self._lock:
            self._beats.pop(attempt, None)
            self._granted.pop(attempt, None)

    def grant(self, attempt: str, beat: int, now: float) -> None:
        """Let it go on, if it may."""
        with self._lock:
            if self._beats.get(attempt, WITHDRAWN) != WITHDRAWN:
                self._beats[attempt] = beat
                self._granted[attempt] = now

    def withdraw(self, attempt: str) -> None:
        """Grant it never again. It is over a lease after its last grant."""
        with self._lock:
            self._beats[attempt] = WITHDRAWN

    def over(self, attempt: str, now: float) -> bool:
        """Whether it has come to its end by now, where it was withdrawn: one that never began has."""
        with self._lock:
            granted = self._granted.get(attempt)
            return granted is None or now >= granted + self.seconds + MARGIN_SECONDS

    def began(self, attempt: str) -> bool:
        """Whether it ever was granted."""
        with self._lock:
            return attempt in self._granted

    def grants(self) -> Grants:
        """By the id of each attempt that was granted: its last such beat, or WITHDRAWN where it has to end."""
        with self._lock:
            return {each: beat for each, beat in self._beats.items() if beat}


@dataclass
class Board:
    """All shards of one request. Times are seconds of one clock; `tries` is how often a shard is tried in all.

    `resting` are workers that were silent, by token, and until when they are not used.
    """

    shards: deque[Shard]
    leases: Leases
    tries: int = 3
    attempts: dict[str, Attempt] = field(default_factory=dict)
    given_up: list[Shard] = field(default_factory=list)
    resting: dict[str, float] = field(default_factory=dict)

    @property
    def done(self) -> bool:
        """Whether there is nothing left to do or to wait for."""
        return not self.shards and not self.attempts

    def start(self, workers: Collection[Worker], now: float) -> Iterator[Attempt]:
        """Attempts to be made now: each on the worker with the most free slots that serves the shard's region."""
        workers = self.usable(workers, now)
        free = Counter({each.address: each.slots for each in workers})
        free.subtract(each.worker.address for each in self.attempts.values())
        for shard in [*self.shards]:
            serving = [each for each in workers if not shard.region or shard.region in each.regions]
            # Another one than before, if there is one; it is waited for while it is busy.
            serving = [each for each in serving if each.address not in shard.tried] or serving
            if not serving or free[(best := max(serving, key=lambda each: free[each.address])).address] < 1:
                continue
            free[best.address] -= 1
            self.shards.remove(shard)
            attempt = Attempt(uuid4().hex, shard, best, now, now, dict.fromkeys(shard.names))
            self.attempts[attempt.id] = attempt
            self.leases.open(attempt.id)
            yield attempt

    def usable(self, workers: Collection[Worker], now: float) -> list[Worker]:
        """Those of these workers that were not silent just now."""
        return [each for each in workers if self.resting.get(each.token, now) <= now]

    def heard(self, attempt: str, now: float) -> None:
        """Set when the attempt last had news to `now`."""
        if known := self.attempts.get(attempt):
            known.heard = now

    def accept(self, attempt: str, name: str) -> bool:
        """A node's record came: whether it is the first and only one of it."""
        known = self.attempts.get(attempt)
        if known is None or name not in known.left:
            return False
        del known.left[name]
        return True

    def end(self, attempt: str, why: str) -> None:
        """It has ended. What it told nothing of is tried again."""
        self.leases.close(attempt)
        if not (known := self.attempts.pop(attempt, None)) or not known.left:
            return
        why = (
            known.withdrawn or why or "it reported nothing about these hosts: does its copy of the inventory have them?"
        )
        shard = Shard(
            tuple(known.left),
            known.shard.region,
            (*known.shard.tried, known.worker.address),
            (*known.shard.why, f"{known.worker.address}: {why}"),
        )
        if len(shard.tried) < self.tries:
            self.shards.append(shard)
        else:
            self.given_up.append(shard)

    def withdraw(self, attempts: Collection[str], why: str) -> None:
        """Let these not go on. They are over when they say so, or when their leases are."""
        for each in attempts:
            self.attempts[each].withdrawn = self.attempts[each].withdrawn or why
            self.leases.withdraw(each)

    def expire(self, now: float) -> list[str]:
        """End the attempts that were withdrawn and have come to their end unheard; their ids. Their workers rest."""
        ended = [each for each in self.attempts.values() if each.withdrawn and self.leases.over(each.id, now)]
        for each in ended:
            self.resting[each.worker.token] = now + REST_SECONDS
            self.end(each.id, "")
        return [each.id for each in ended]

    def gone(self, tokens: Collection[str]) -> list[str]:
        """The attempts whose worker is not among these."""
        return [each.id for each in self.attempts.values() if each.worker.token not in tokens and not each.withdrawn]

    def silent(self, now: float) -> list[str]:
        """The attempts that asked for no grant until the last one was over: they cannot go on any more."""
        began = [each for each in self.attempts.values() if not each.withdrawn and self.leases.began(each.id)]
        return [each.id for each in began if self.leases.over(each.id, now)]

    def slow(self, now: float, seconds: float) -> list[str]:
        """The attempts that began, and of which nothing was heard for so long."""
        waiting = [each for each in self.attempts.values() if not each.withdrawn and self.leases.began(each.id)]
        return [each.id for each in waiting if now - each.heard > seconds]

    def idle(self, now: float, seconds: float) -> list[Attempt]:
        """The attempts that did not begin within so long: their worker hangs, or has no thread for them."""
        waiting = [each for each in self.attempts.values() if not each.withdrawn]
        return [each for each in waiting if now - each.began > seconds and not self.leases.began(each.id)]

    def give_up(self, why: str) -> None:
        """Try nothing more."""
        for each in self.shards:
            self.given_up.append(Shard(each.names, each.region, each.tried, (*each.why, why)))
        self.shards.clear()

    def take_given_up(self) -> Sequence[Shard]:
        """The shards that were given up since this was asked last."""
        found, self.given_up = self.given_up, []
        return found
