"""Where a run's pyinfra processes are: one on this machine, several of them, or some on the workers of a Dask cluster.

Dask is imported only where it is used: a controller that needs none of it need not have it.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from fleet import child
from fleet.child import CannotRun, Events
from fleet.events import Event, InventoryEvent, Request

if TYPE_CHECKING:
    from fleet.cluster import Cluster

__all__ = ["LOCAL", "MANY", "NONE", "Settings", "events_of"]

LOCAL, NONE = "local", "none"
# Another process costs two seconds of CPU to start, Dask as much, and a node ten to thirty milliseconds: below, two
# cores gain nothing. And so many are in one process, where all of them are on this machine.
MANY = 1000
_PROTOCOLS = ("tcp", "tls")


@dataclass(frozen=True, slots=True)
class Settings:
    """`shard` is the most nodes in one (None: whatever fits); the others are seconds.

    `lease`: how long a worker goes on that cannot be heard. `slow`: how long a shard may be without news (None: as long
    as its nodes may be). `patience`: how long a run waits for a scheduler or workers that are gone.
    """

    shard: int | None = None
    lease: float = 20.0
    slow: float | None = None
    patience: float = 120.0


@contextmanager
def events_of(scheduler: str | None, settings: Settings, say: Callable[[str], None]) -> Iterator[Events]:
    """What runs the requests of a run. `scheduler` is an address, LOCAL, NONE, or None for whatever fits.

    Raises CannotRun.
    """
    if scheduler == NONE or (scheduler is None and not _has_dask()):
        yield child.events
        return
    if not _has_dask():
        raise CannotRun(
            f"--scheduler {scheduler} needs Dask, which is not installed: "
            "pip install --require-hashes --no-deps --only-binary=:all: -r requirements/dask.txt"
        )
    with ExitStack() as stack:
        if scheduler is None:
            yield _WhereMany(settings, say, stack).events
        else:
            yield _cluster(scheduler, settings, say, stack).events


def _has_dask() -> bool:
    return importlib.util.find_spec("distributed") is not None


def _cluster(scheduler: str, settings: Settings, say: Callable[[str], None], stack: ExitStack) -> Cluster:
    from fleet.cluster import Cluster

    address: Any = scheduler
    if scheduler == LOCAL:
        from distributed import LocalCluster

        # Its workers are threads of ours: what needs a core are pyinfra's processes, of which each worker has one.
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        address = stack.enter_context(
            LocalCluster(n_workers=cores, threads_per_worker=1, processes=False, dashboard_address=None)
        )
        settings = replace(settings, shard=settings.shard or MANY)
    else:
        _look_at(scheduler, say)
    cluster = Cluster(address, settings, say)
    stack.callback(cluster.close)
    return cluster


def _look_at(scheduler: str, say: Callable[[str], None]) -> None:
    try:
        parts = urlsplit(scheduler)
        right = parts.scheme in _PROTOCOLS and parts.hostname and parts.port
    except ValueError:
        right = False
    if not right:
        raise CannotRun(f"--scheduler {scheduler}: expected tcp://HOST:PORT, tls://HOST:PORT, {LOCAL} or {NONE}")
    if parts.scheme == "tcp" and not (parts.hostname == "localhost" or str(parts.hostname).startswith("127.")):
        say(f"{scheduler} is not encrypted, and whoever reaches it can run anything on its workers: use tls://")


@dataclass
class _WhereMany:
    """Few nodes in one process, as without Dask; many on a LocalCluster, which is begun when it is needed."""

    settings: Settings
    say: Callable[[str], None]
    stack: ExitStack
    cluster: Cluster | None = None

    @contextmanager
    def events(self, request: Request, verbose: bool = False) -> Iterator[Iterator[Event]]:
        """As child.events."""
        with ExitStack() as stack:
            if request.data or request.action == "inventory":
                yield stack.enter_context(child.events(request, verbose))
            elif request.hosts is None:
                asked = request.model_copy(update={"at_most": MANY})
                yield self._asked(stack.enter_context(child.events(asked, verbose)), request, verbose, stack)
            elif len(request.hosts) <= MANY:
                yield stack.enter_context(child.events(request, verbose))
            else:
                yield stack.enter_context(self._many(request, verbose))

    def _asked(self, few: Iterator[Event], request: Request, verbose: bool, stack: ExitStack) -> Iterator[Event]:
        first = child.inventory_of(few)
        if len(first.hosts) <= MANY:
            yield first
            yield from few
        else:
            yield from stack.enter_context(self._many(request, verbose, first))

    def _many(self, request: Request, verbose: bool, inventory: InventoryEvent | None = None) -> Any:
        self.cluster = self.cluster or _cluster(LOCAL, self.settings, self.say, self.stack)
        return self.cluster.events(request, verbose, inventory)
