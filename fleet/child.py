"""pyinfra in a process of its own, as an iterator of events."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from fleet.events import Ended, Event, InventoryEvent, Problem, Request, parse
from userns.console import plain
from userns.diff import Mask

__all__ = ["FORESEEN", "BrokenOff", "CannotRun", "Child", "Events", "events", "in_words", "running"]

ROOT = Path(__file__).resolve().parent.parent
LAST_LINES = 30


class CannotRun(Exception):
    """There is nothing to run on, and why; for the operator as it is."""


class BrokenOff(Exception):
    """pyinfra's process ended before it had told all, with the last lines that it printed."""


# Errors that say all that there is to say.
FORESEEN = (CannotRun, BrokenOff, OSError, sqlite3.Error)


def in_words(error: BaseException) -> str:
    """What to tell of an error: of one that nobody foresaw its type too, and no secret."""
    return str(error) if isinstance(error, FORESEEN) else f"{type(error).__name__}: {Mask()(str(error))}"


# Who runs a request, here or elsewhere: its events as they come. Raises CannotRun, or BrokenOff, from the iterator.
Events = Callable[[Request, bool], AbstractContextManager[Iterator[Event]]]


@dataclass(frozen=True, slots=True)
class Child:
    """pyinfra's process, while it runs. `events` raises CannotRun, or BrokenOff."""

    events: Iterator[Event]
    _process: subprocess.Popen[bytes]

    def renew(self, until: float) -> None:
        """Let it live until then, by the machine's monotonic clock. Raises OSError where it has ended."""
        assert self._process.stdin
        self._process.stdin.write(f"{until}\n".encode())
        self._process.stdin.flush()


@contextmanager
def events(request: Request, verbose: bool = False) -> Iterator[Iterator[Event]]:
    """The events of a request as they come. The process ends with the context, or with us.

    Raises CannotRun, or BrokenOff, from the iterator.
    """
    with running(request, verbose) as child:
        yield child.events


@contextmanager
def running(request: Request, verbose: bool = False, cwd: Path | None = None) -> Iterator[Child]:
    """pyinfra's process for a request, started in `cwd`. It ends with the context, or with us."""
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "fleet.runner"],  # -P: where the operator stands may be another fleet.py
            cwd=cwd,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=None if verbose else log,
            env={**os.environ, "PYTHONPATH": _path(), "PYINFRA_PROGRESS": "off"},
            start_new_session=True,  # Ctrl-C is ours: what has begun on a node is to come to its end
        )
        assert process.stdin
        assert process.stdout
        try:
            process.stdin.write(request.model_dump_json().encode() + b"\n")
            process.stdin.flush()
            yield Child(_read(process, log.fileno()), process)
        finally:
            process.kill()
            with suppress(BrokenPipeError):  # what it did not read any more
                process.stdin.close()
            process.stdout.close()
            process.wait()


def inventory_of(found: Iterator[Event]) -> InventoryEvent:
    """The first event. Raises CannotRun, or BrokenOff where it is not the inventory's."""
    first = next(found)
    if not isinstance(first, InventoryEvent):
        raise BrokenOff(f"pyinfra began with {first!r}")
    return first


def _read(process: subprocess.Popen[bytes], log: int) -> Iterator[Event]:
    assert process.stdout
    for line in process.stdout:
        if not line.endswith(b"\n"):
            break
        event = parse(line)
        if isinstance(event, Problem):
            raise CannotRun(event.message)
        if isinstance(event, Ended):
            return
        yield event
    raise BrokenOff("\n".join([f"pyinfra's process ended with {process.wait()}", *_last_lines(log)]))


def _last_lines(log: int) -> list[str]:
    size = os.fstat(log).st_size
    lines = os.pread(log, 1 << 14, max(0, size - (1 << 14))).decode(errors="replace").splitlines()[-LAST_LINES:]
    return plain(Mask()("\n".join(lines))).splitlines()  # a traceback shows lines of an inventory, or a node's words


def _path() -> str:
    """So that this package is found from wherever the operator stands."""
    return os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
