"""What a Dask worker does: one attempt at a shard, in a pyinfra process of its own, for as long as it is granted.

The worker only passes on: what pyinfra's process tells goes to the controller, what the controller grants goes to that
process. Where either way is cut, or the worker dies or hangs, pyinfra's process dies: see `shards`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from queue import Empty, SimpleQueue
from uuid import uuid4

from distributed import Client, Queue, Variable, get_client, get_worker

from fleet import checkout
from fleet.child import ROOT, BrokenOff, CannotRun, running
from fleet.events import Event, InventoryEvent, Request
from fleet.messages import WITHDRAWN, Order, Seat, Word, grants

__all__ = ["identify", "key", "serve"]

TOKEN = uuid4().hex
# Of a lease: how often it is asked for another one, so that one that is late is no end yet.
BEATS = 6
# What happens within this time is told at once.
GATHER_SECONDS = 0.5
POLL_SECONDS = 0.05

_log = logging.getLogger("distributed.worker.fleet")
_begun: set[str] = set()


class Withdrawn(Exception):
    """It has to end."""


def identify(inventory: str) -> str:
    """Who this is, and what it would work with: a Seat as JSON."""
    return Seat(token=TOKEN, checkout=checkout.here(inventory)).model_dump_json()


def key(attempt: str) -> str:
    """The name of an attempt among the tasks of a scheduler."""
    return f"fleet-{attempt}"


def serve(text: str) -> None:
    """Carry out an order (as JSON), once."""
    order = Order.model_validate_json(text)
    if order.token != TOKEN or order.attempt in _begun:
        return  # of a worker that had this address before us, or given out again by the scheduler: it knows no leases
    _begun.add(order.attempt)
    try:
        with closing(Line(order, get_client())) as line:
            line.end(_attempt(order, line))
    except Exception as error:  # the way to the controller is cut: it finds out by itself
        _log.warning("%s over %d nodes of %s: %r", order.action, len(order.names), order.inventory, error)


def _attempt(order: Order, line: Line) -> str:
    """Why it ended; "" where all was told."""
    try:
        until = line.first()
        if told := checkout.differences(order.checkout, checkout.here(order.inventory), order.inventory):
            return told
        request = Request(
            action=order.action,
            inventory=order.inventory,
            hosts=order.names,
            diff=order.diff,
            may_disturb=order.may_disturb,
            until=until,
        )
        with running(request, cwd=ROOT) as child:
            inbox: SimpleQueue[Event | Exception | None] = SimpleQueue()
            threading.Thread(target=_read, args=(child.events, inbox), daemon=True).start()
            while True:
                line.gather(inbox)
                if line.ended is not None:
                    return line.ended
                until = line.beat()
                with suppress(OSError):  # it has just ended: the last of what it told is on its way
                    child.renew(until)
    except Withdrawn as error:
        return f"it was withdrawn{error}"
    except CannotRun as error:
        return str(error)


def _read(events: Iterator[Event], inbox: SimpleQueue[Event | Exception | None]) -> None:
    try:
        for event in events:
            inbox.put(event)
        inbox.put(None)
    except Exception as error:
        inbox.put(error)


class Line:
    """The line between an attempt and its controller, over the scheduler."""

    def __init__(self, order: Order, client: Client) -> None:
        self._order = order
        self._queue = Queue(order.line, client=client)
        self._grants = Variable(order.line, client=client)
        self._sent: list[float] = []  # when each beat was
        self._told: list[Event] = []
        self.ended: str | None = None

    def close(self) -> None:
        """Let the scheduler forget that we used it."""
        self._queue.close()

    def first(self) -> float:
        """Wait for the first grant: until when it is. Raises Withdrawn where none comes in time."""
        self._say()
        while (until := self._granted()) is None:
            if time.monotonic() > self._sent[0] + self._order.lease:
                raise Withdrawn(" before it began: nobody answered")
            time.sleep(POLL_SECONDS)
        return until

    def beat(self) -> float:
        """Tell what happened, ask to go on: until when. Raises Withdrawn."""
        self._say()
        if (until := self._granted()) is None:
            raise Withdrawn
        return until

    def end(self, why: str) -> None:
        """Tell the rest."""
        self._say(why)

    def gather(self, inbox: SimpleQueue[Event | Exception | None]) -> None:
        """Wait for what happens until the next beat is due."""
        due = time.monotonic() + self._order.lease / BEATS
        while self.ended is None and (wait := due - time.monotonic()) > 0:
            try:
                event = inbox.get(timeout=wait)
            except Empty:
                break
            if not self._told:
                due = min(due, time.monotonic() + GATHER_SECONDS)
            if event is None:
                self.ended = ""
            elif isinstance(event, Exception):
                self.ended = _in_words(event)
            elif not isinstance(event, InventoryEvent):  # the controller has one of its own
                self._told.append(event)

    def _say(self, ended: str | None = None) -> None:
        self._sent.append(time.monotonic())
        word = Word(attempt=self._order.attempt, beat=len(self._sent), events=tuple(self._told), ended=ended)
        self._queue.put(word.model_dump_json(), timeout=self._order.lease)
        self._told.clear()

    def _granted(self) -> float | None:
        """Until when, or None where nothing was granted yet. It counts from when we asked, however long that took."""
        _refuse_where_nobody_waits(self._order.attempt)
        beat = grants(self._grants.get(timeout=self._order.lease)).get(self._order.attempt)
        if beat == WITHDRAWN:
            raise Withdrawn
        return None if beat is None else self._sent[beat - 1] + self._order.lease


def _refuse_where_nobody_waits(attempt: str) -> None:
    """The scheduler cancels the tasks of a controller that is gone. Raises Withdrawn."""
    task = get_worker().state.tasks.get(key(attempt))
    if task is None or task.state == "cancelled":
        raise Withdrawn(": its controller is gone")


def _in_words(error: Exception) -> str:
    """Why pyinfra's process ended. What it printed last stays here: nobody has looked through it for secrets."""
    if isinstance(error, CannotRun):
        return str(error)
    first, *rest = str(error).splitlines() or [repr(error)]
    if isinstance(error, BrokenOff):
        _log.warning("%s", "\n".join([first, *rest]))
        return f"{first}; the worker's log has its last lines"
    return repr(error)
