"""Workers side by side, each a process with a lab of its own."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from multiprocessing import get_context, parent_process, util
from pathlib import Path
from threading import Thread
from types import TracebackType

from lab import Lab
from lab import mirror as mirrors
from tests.faults.catalogue import Case
from tests.faults.running import Outcome, Worker
from tests.node import releases as made

_worker: Worker


class Crew:
    """A context manager."""

    def __init__(self, workers: int) -> None:
        made.build(mirrors.build("testing"))  # here and once; the workers find it in the cache
        self._pool = ProcessPoolExecutor(workers, get_context("spawn"), initializer=_begin)

    def __enter__(self) -> Crew:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(cancel_futures=True)

    def lengths(self, changes: Sequence[str]) -> Mapping[str, int]:
        """How many steps each change has."""
        return dict(zip(changes, self._pool.map(_length, changes), strict=True))

    def run(self, cases: Sequence[Case], seed: int) -> Iterator[Outcome]:
        """Run the cases, and yield what came of each as it ends."""
        futures: list[Future[Outcome]] = [self._pool.submit(_run, case, seed) for case in cases]
        for future in as_completed(futures):
            yield future.result()


def _begin() -> None:
    global _worker
    os.setsid()  # a Ctrl-C is for the one who gives out the cases: a worker ends when its case has
    Thread(target=_die_with_parent, daemon=True).start()
    lab = Lab()
    directory = tempfile.TemporaryDirectory()
    _worker = Worker(lab, made.build(mirrors.build("testing")), Path(directory.name))

    def end() -> None:
        lab.close()
        directory.cleanup()

    util.Finalize(None, end, exitpriority=10)


def _die_with_parent() -> None:
    parent = parent_process()
    assert parent
    parent.join()
    os._exit(1)  # the lab's keeper sees that, and ends the lab


def _length(change: str) -> int:
    return _worker.length(change)


def _run(case: Case, seed: int) -> Outcome:
    return _worker.run(case, seed)
