"""Runs requests on a Dask cluster, as `child.events` does on this machine: the same events, each of them once.

What a run decides (waves, canary, budgets, drain) stays with whoever asks; here a request's nodes are split into
shards, and a shard whose worker died, hangs, or cannot be heard any more is tried again on another one: see `shards`
for how two never work on one node at a time.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Set
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fleet import checkout, child
from fleet.child import CannotRun
from fleet.events import Event, HostEvent, InventoryEvent, RecordEvent, Request, StepEvent
from fleet.link import Link
from fleet.messages import Order
from fleet.records import Record, Status
from fleet.schedulers import Settings
from fleet.shards import SHARD, Attempt, Board, Leases, split

__all__ = ["Cluster", "Settings"]

TICK_SECONDS = 0.25
# Longer than any step of a node may take, for its beginning and its end are news: READ_SECONDS of tasks.assess (120 s)
# in a plan; in a change CHANGE_SECONDS of tasks.containerd and PROVE_SECONDS of tasks.verify (1800 s each), and the
# hour that fetch.sh gives a download.
SLOW_SECONDS = {"plan": 300.0, "apply": 4000.0}
# How long one that is there may take to answer at the beginning: later, patience is longer.
LOOK_SECONDS = 30.0
# How long an attempt may lie in a worker's queue, and how long where the worker is at work: for another run, then.
IDLE_SECONDS = 30.0
BUSY_SECONDS = 3600.0
# How long a run that is left waits for its workers to say that they have ended.
LEAVE_SECONDS = 5.0


@dataclass
class Cluster:
    """A cluster, and the run that uses it. `address` is the scheduler's, or a LocalCluster."""

    address: Any
    settings: Settings
    say: Callable[[str], None]
    slots: int = 0  # how many shards it took at a time when it was last looked at; 0: not yet
    _link: Link | None = None
    leases: Leases = field(init=False)
    _hosts: dict[str, HostEvent] = field(default_factory=dict)
    _told: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.leases = Leases(self.settings.lease)

    def close(self) -> None:
        """Leave the cluster."""
        if self._link:
            self._link.close()
            self._link = None

    @contextmanager
    def events(
        self, request: Request, verbose: bool = False, inventory: InventoryEvent | None = None
    ) -> Iterator[Iterator[Event]]:
        """The events of a request as they come. What it began on workers ends with the context.

        `inventory` is what is known of it already.

        Raises CannotRun from the iterator: no scheduler, no worker, a worker with another checkout.
        """
        if request.data:
            raise CannotRun(
                "--data does not go with a cluster: a value may be a password, and nothing of it is sent through a "
                "scheduler. Put it into group_data beside the inventory, on the controller and on the workers"
            )
        if inventory:
            self._hosts |= {each.name: each for each in inventory.hosts}
        run = _Run(self, request, inventory)
        events = run.events(verbose)
        try:
            yield events
        finally:
            events.close()

    def inventory(self, request: Request, verbose: bool) -> InventoryEvent:
        """Who is in the inventory, read here; the hosts of a wave are known from the plan before it."""
        if request.hosts is not None and all(name in self._hosts for name in request.hosts):
            return InventoryEvent(hosts=tuple(self._hosts[name] for name in request.hosts), sizes={})
        with child.events(request.model_copy(update={"action": "inventory"}), verbose) as events:
            found = child.inventory_of(events)
        self._hosts |= {each.name: each for each in found.hosts}
        return found

    def region(self, host: HostEvent) -> str:
        """Where a host's worker has to be; "" where any will do: all workers of this machine stand in one place."""
        return host.region if isinstance(self.address, str) else ""

    def connected(self, wanted: checkout.Checkout, inventory: str) -> Link | None:
        """The connection, a new one where the last one was lost; None where there is none now."""
        if self._link and not self._link.lost:
            return self._link
        self.close()
        try:
            self._link = Link(self.address, self.leases, wanted, inventory)
        except (TypeError, ValueError) as error:  # no such protocol; tls:// without certificates
            raise CannotRun(f"--scheduler {self.address}: {error}") from error
        except OSError:
            return None
        return self._link

    def say_once(self, line: str) -> None:
        """Say what the operator should know, not again for each wave."""
        if line not in self._told:
            self._told.add(line)
            self.say(line)


@dataclass
class _Run:
    """One request on the cluster."""

    cluster: Cluster
    request: Request
    inventory: InventoryEvent | None
    board: Board = field(init=False)
    link: Link | None = None
    _alone_since: float = 0.0

    def events(self, verbose: bool) -> Generator[Event]:
        """First the inventory's, then those of all nodes."""
        self.board = Board(deque(), self.cluster.leases)
        inventory = self.inventory or self.cluster.inventory(self.request, verbose)
        self._sent = checkout.portable(self.request.inventory)
        self._checkout = checkout.here(self.request.inventory, Path.cwd())
        if self.request.action == "inventory" or not inventory.hosts:
            yield inventory
            return
        try:
            regions = {each.name: self.cluster.region(each) for each in inventory.hosts}
            if not self.cluster.slots:
                self._look({*regions.values()} - {""})
            self.board.shards.extend(split(regions, self.cluster.slots, self.cluster.settings.shard or SHARD))
            yield inventory
            while not self.board.done:
                yield from self._step()
                yield from self._given_up()
            yield from self._given_up()
        finally:
            self._leave()

    # --- before --------------------------------------------------------------------------------------------------

    def _look(self, regions: Set[str]) -> None:
        """Look at the cluster before anything is begun on it. Raises CannotRun where it is not one to work with."""
        deadline = time.monotonic() + min(self.cluster.settings.patience, LOOK_SECONDS)
        while True:
            link = self._connect()
            if link and link.counted.wait(1):
                if link.refused:
                    told = "; ".join(f"{address}: {why}" for address, why in sorted(link.refused.items()))
                    raise CannotRun(f"not every worker has what this controller has, so that nothing was begun: {told}")
                missing = regions - {region for each in link.workers.values() for region in each.regions}
                if link.workers and not missing:
                    self.cluster.slots = sum(each.slots for each in link.workers.values())
                    return
            if time.monotonic() > deadline:
                if not link:
                    raise CannotRun(f"no scheduler answers at {self.cluster.address}")
                none = "no worker"
                if link.workers:
                    none += f" that serves {', '.join(sorted(missing))} (--resources)"
                raise CannotRun(f"the cluster at {self.cluster.address} has {none}")
            time.sleep(TICK_SECONDS)

    # --- while it runs -------------------------------------------------------------------------------------------

    def _connect(self) -> Link | None:
        self.link = self.cluster.connected(self._checkout, self._sent)
        return self.link

    def _step(self) -> Iterator[Event]:
        """Wait a moment for what comes, and do what there is to do."""
        now = time.monotonic()
        if self.link and self.link.lost:
            self.cluster.say_once(f"{self.link.lost}; trying to reach it again")
            self.board.withdraw(list(self.board.attempts), self.link.lost)
        link = self._connect()
        if link is None:
            time.sleep(TICK_SECONDS)
        else:
            self.cluster.slots = sum(each.slots for each in link.workers.values()) or self.cluster.slots
            for word in link.words(TICK_SECONDS):
                if word.attempt not in self.board.attempts:
                    continue  # of one that is over, whose nodes are somebody else's by now
                if word.events:
                    self.board.heard(word.attempt, time.monotonic())
                yield from self._accepted(word.attempt, word.events)
                if word.ended is not None:
                    self._end(word.attempt, word.ended)
            self._watch(link, now)
        for each in self.board.expire(time.monotonic()):
            if link:
                link.forget(each)
        self._wait_or_give_up(link, now)

    def _accepted(self, attempt: str, events: Iterable[Event]) -> Iterator[Event]:
        for event in events:
            match event:
                case RecordEvent(record=record) if self.board.accept(attempt, record.name):
                    yield event
                case StepEvent():
                    yield event

    def _end(self, attempt: str, why: str) -> None:
        self.board.end(attempt, why)
        if self.link:
            self.link.forget(attempt)

    def _watch(self, link: Link, now: float) -> None:
        """Take shards away from workers that are gone or slow, and give them to those that are free."""
        workers = link.workers.values()
        if link.counted.is_set():
            self._withdraw(self.board.gone({each.token for each in workers}), "its worker was lost")
        self._withdraw(self.board.silent(now), "its worker cannot be heard")
        slow = self.cluster.settings.slow or SLOW_SECONDS[self.request.action]
        self._withdraw(self.board.slow(now, slow), f"nothing was heard of it for {slow:.0f} s")
        self._withdraw_idle({each.token for each in workers if each.busy}, now)
        for address, why in link.refused.items():
            self.cluster.say_once(f"worker {address} is not used: {why}")
        for attempt in self.board.start(workers, time.monotonic()):
            link.order(self._order(attempt), attempt.worker.address)

    def _withdraw_idle(self, busy: Collection[str], now: float) -> None:
        idle = []
        for each in self.board.idle(now, IDLE_SECONDS):
            if each.worker.token in busy and now - each.began < BUSY_SECONDS:
                self.cluster.say_once(f"worker {each.worker.address} is busy with another run: it is waited for")
            else:
                idle.append(each.id)
        self._withdraw(idle, f"its worker did not begin within {IDLE_SECONDS:.0f} s")

    def _withdraw(self, attempts: list[str], why: str) -> None:
        for each in attempts:
            attempt = self.board.attempts[each]
            self.cluster.say(f"{len(attempt.left)} nodes on {attempt.worker.address}: {why}; they are tried again")
        self.board.withdraw(attempts, why)

    def _order(self, attempt: Attempt) -> Order:
        assert self.link
        return Order(
            attempt=attempt.id,
            token=attempt.worker.token,
            line=self.link.name,
            lease=self.cluster.leases.seconds,
            checkout=self._checkout,
            action="apply" if self.request.action == "apply" else "plan",
            inventory=self._sent,
            names=attempt.shard.names,
            diff=self.request.diff,
            may_disturb=tuple(each for each in attempt.shard.names if each in self.request.may_disturb),
        )

    def _wait_or_give_up(self, link: Link | None, now: float) -> None:
        """Where there is nobody to work for longer than one has patience, no more is tried."""
        usable = self.board.usable(list(link.workers.values()), now) if link else []
        waiting = self.board.shards
        stuck = bool(waiting) and not any(
            not shard.region or shard.region in each.regions for shard in waiting for each in usable
        )
        if not stuck:
            self._alone_since = 0.0
            return
        self._alone_since = self._alone_since or now
        if now - self._alone_since > self.cluster.settings.patience:
            what = "no worker" if link else "no scheduler"
            self.board.give_up(f"there was {what} for {self.cluster.settings.patience:.0f} s")

    def _given_up(self) -> Iterator[Event]:
        for shard in self.board.take_given_up():
            what = "given up: nothing was done there"
            if self.request.action == "plan":
                what = "given up: it was not read"
            elif shard.tried:
                what = "given up; what had begun there goes on by itself, and finishes or undoes itself"
            for name in shard.names:
                yield RecordEvent(record=Record(name=name, status=Status.UNKNOWN, reasons=(what, *shard.why)))

    # --- after ---------------------------------------------------------------------------------------------------

    def _leave(self) -> None:
        """End what is still going on, as far as it can be heard; what cannot ends with its lease."""
        self.board.withdraw(list(self.board.attempts), "the run was left")
        deadline = time.monotonic() + LEAVE_SECONDS
        while self.board.attempts and self.link and not self.link.lost and time.monotonic() < deadline:
            for word in self.link.words(TICK_SECONDS):
                if word.ended is not None:
                    self._end(word.attempt, word.ended)
