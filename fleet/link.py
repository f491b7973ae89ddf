"""A controller's connection to a Dask scheduler: words come in, grants and orders go out.

One connection is one line with a name of its own. Where it is lost it stays so: whoever goes on opens another one, and
what was begun over the old one comes to its end for want of grants.
"""

from __future__ import annotations

import logging
import threading
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any
from uuid import uuid4

from distributed import Client, Queue, Variable
from pydantic import TypeAdapter

from fleet import worker
from fleet.checkout import Checkout, differences
from fleet.child import CannotRun
from fleet.messages import Grants, Order, Seat, Word
from fleet.shards import Leases, Worker

__all__ = ["Link"]

# What waits for it is a worker without work, each time that it has ended a shard.
POLL_SECONDS = 0.05
CENSUS_SECONDS = 2.0
# How long a worker may take to say who it is, and its heartbeats may stay away until it counts as hung.
ANSWER_SECONDS = 5.0
HEARTBEAT_SECONDS = 20.0
CLOSE_SECONDS = 5.0
CONNECT_SECONDS = 10.0
_GRANTS: TypeAdapter[Grants] = TypeAdapter(Grants)

# What happens to a connection is told by us, in words. What Dask says of it are tracebacks.
logging.getLogger("distributed").setLevel(logging.CRITICAL)
# Nor that a controller cannot reach the Internet: Dask looks which of its addresses would lead there.
warnings.filterwarnings("ignore", "Couldn't detect a suitable IP address", RuntimeWarning)


class _Client(Client):
    def __del__(self) -> None:
        with suppress(Exception):  # one that could not connect has told so already
            super().__del__()  # type: ignore[no-untyped-call]


class Link:
    """Open connection to the scheduler at `address`. Raises OSError where there is none.

    `workers` are those that may be used, `refused` why others may not, by address. `lost` is why there is no connection
    any more, or "". All of them change by themselves.
    """

    def __init__(self, address: Any, leases: Leases, checkout: Checkout, inventory: str) -> None:
        self.name = f"fleet-{uuid4().hex}"
        self.leases = leases
        self.workers: Mapping[str, Worker] = {}
        self.refused: Mapping[str, str] = {}
        self._lost = ""
        self._checkout, self._inventory = checkout, inventory
        self._client: Any = _Client(  # type: ignore[no-untyped-call]
            address, timeout=CONNECT_SECONDS, set_as_default=False
        )
        self._queue = Queue(self.name, client=self._client)
        self._variable = Variable(self.name, client=self._client)
        self._variable.set("{}")
        self._published: Grants = {}
        self._publishing = threading.Lock()
        self._inbox: SimpleQueue[Word] = SimpleQueue()
        self._futures: dict[str, Any] = {}
        self._seats: dict[str, Seat] = {}
        self._directories: dict[str, str] = {}
        self._heartbeats: dict[str, tuple[float | None, float]] = {}
        self._closed = threading.Event()
        self._alive = time.monotonic()
        self.counted = threading.Event()  # once the workers were looked at for the first time
        for work, seconds in ((self._pump, POLL_SECONDS), (self._census, CENSUS_SECONDS)):
            threading.Thread(target=self._repeat, args=(work, seconds), daemon=True).start()

    @property
    def lost(self) -> str:
        """Why there is no connection any more; "" where there is."""
        if not self._lost and time.monotonic() - self._alive > self.leases.seconds:
            self._lost = f"the scheduler has not answered for {self.leases.seconds:.0f} s"
        return self._lost

    def words(self, seconds: float) -> Iterator[Word]:
        """What came, waiting for it for so long."""
        with suppress(Empty):
            yield self._inbox.get(timeout=seconds)
            while True:
                yield self._inbox.get_nowait()

    def order(self, order: Order, address: str) -> None:
        """Send an order to one worker. It is for that one alone: Dask must not give it to another one in our place."""
        self._futures[order.attempt] = self._client.submit(
            worker.serve,
            order.model_dump_json(),
            key=worker.key(order.attempt),
            workers=[address],
            allow_other_workers=False,
            pure=False,
            retries=0,
        )

    def forget(self, attempt: str) -> None:
        """It is over: the scheduler need not keep it."""
        if future := self._futures.pop(attempt, None):
            with suppress(Exception):  # a connection that is lost has nothing to keep
                future.cancel()

    def close(self) -> None:
        """Leave, within seconds, also where nobody answers."""
        self._closed.set()
        closing = threading.Thread(target=self._close, daemon=True)
        closing.start()
        closing.join(CLOSE_SECONDS)

    def publish(self) -> None:
        """Let the workers see the grants as they stand."""
        with self._publishing:
            if (now := self.leases.grants()) != self._published:
                self._variable.set(_GRANTS.dump_json(now).decode(), timeout=self.leases.seconds)
                self._published = now

    # --- in threads of their own ---------------------------------------------------------------------------------

    def _repeat(self, work: Any, seconds: float) -> None:
        while not self._closed.is_set():
            try:
                work()
                self._closed.wait(seconds)
            except Exception as error:
                if not self._closed.is_set():
                    self._lost = self._lost or f"the connection to the scheduler was lost ({_short(error)})"
                return

    def _pump(self) -> None:
        if self._client.status != "running":
            raise ConnectionError(f"it is {self._client.status}")
        for text in self._queue.get(batch=True):
            word = Word.model_validate_json(text)
            if word.ended is None:
                self.leases.grant(word.attempt, word.beat, time.monotonic())
            self._inbox.put(word)
        self.publish()
        self._alive = time.monotonic()

    def _census(self) -> None:
        # Not scheduler_info(), which a thread of Dask's own sets to one without workers every now and then.
        there = self._client.sync(self._client.scheduler.identity, n_workers=-1)["workers"]
        # A worker that comes back under its address is another one, and has another directory for its own use.
        known = {address for address in there if self._directories.get(address) == there[address]["local_directory"]}
        self._directories = {address: there[address]["local_directory"] for address in there}
        self._seats = {address: seat for address, seat in self._seats.items() if address in known}
        refused = {address: why for address, why in self.refused.items() if address in known}
        if new := [address for address in there if address not in self._seats and address not in refused]:
            for address, answer in self._ask(new):
                if isinstance(answer, OSError | TimeoutError):
                    continue  # it hangs, or has just gone: it is asked again, and the others need not wait for it
                if isinstance(answer, CannotRun):
                    refused[address] = str(answer)
                    continue
                if isinstance(answer, Exception):
                    refused[address] = f"it has no checkout of this project on its PYTHONPATH ({_short(answer)})"
                    continue
                seat = Seat.model_validate_json(answer)
                if why := differences(self._checkout, seat.checkout, self._inventory):
                    refused[address] = why
                else:
                    self._seats[address] = seat
        self.workers = {
            address: Worker(
                address,
                seat.token,
                there[address]["nthreads"],
                frozenset(there[address]["resources"]),
                self._is_busy(address, there[address]),
            )
            for address, seat in self._seats.items()
        }
        self.refused = refused
        self.counted.set()

    def _ask(self, addresses: Sequence[str]) -> Iterator[tuple[str, Any]]:
        """Who each of them is, or the error. All at once, and each by itself: Dask's own broadcast waits for all."""

        def ask(address: str) -> Any:
            try:
                return self._client.sync(
                    self._client._run,
                    worker.identify,
                    self._inventory,
                    workers=[address],
                    on_error="return",
                    callback_timeout=ANSWER_SECONDS,
                )[address]
            except Exception as error:
                return error

        with ThreadPoolExecutor(min(32, len(addresses))) as threads:
            yield from zip(addresses, threads.map(ask, addresses), strict=True)

    def _is_busy(self, address: str, told: Mapping[str, Any]) -> bool:
        """Whether all its threads work. By its own heartbeats, which are told in the scheduler's time."""
        now = time.monotonic()
        seen, when = self._heartbeats.get(address, (None, now))
        if seen != told["last_seen"]:
            when = now
        self._heartbeats[address] = (told["last_seen"], when)
        working = told["metrics"].get("task_counts", {}).get("executing", 0)
        return bool(working >= told["nthreads"] and now - when < HEARTBEAT_SECONDS)

    def _close(self) -> None:
        with suppress(Exception):
            self._variable.delete()
            self._queue.close()
        with suppress(Exception):
            self._client.close(timeout=CLOSE_SECONDS)


def _short(error: BaseException) -> str:
    return (str(error) or repr(error)).splitlines()[0]
