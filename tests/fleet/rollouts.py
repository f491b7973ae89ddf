"""A rollout that is played whole: its nodes, kubectl, and a process that is gone in the middle of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fleet import history as histories
from fleet import history_commands, plan
from fleet.apply import apply
from fleet.drain import Guard, Kubectl
from fleet.events import Event, HostEvent, InventoryEvent, RecordEvent, Request
from fleet.history import History
from fleet.options import Options
from fleet.records import Record, Status


class Killed(BaseException):
    """Stands for SIGKILL: nobody catches it."""


@dataclass
class Nodes(Kubectl):
    """A kubectl that is played. `broken` are verbs that fail for a node; `hook` is called at each call."""

    cordoned: set[str] = field(default_factory=set)
    broken: set[tuple[str, str]] = field(default_factory=set)
    hook: Callable[[str, str], None] = lambda *_: None

    def _kubectl(self, *arguments: str, seconds: float = 0) -> tuple[str, str]:
        verb, node = arguments[0], arguments[2 if arguments[0] == "get" else 1]
        self.hook(verb, node)
        if verb == "drain":
            self.cordoned.add(node)
        if (verb, node) in self.broken:
            return "", f"{verb} is broken"
        if verb == "uncordon":
            self.cordoned.discard(node)
        return json.dumps({"spec": {"unschedulable": node in self.cordoned}}), ""


@dataclass
class Played:
    """Nodes n1 to n3, and the runs over them. `becomes` is what a wave makes of a node, or raises.

    `refused` are nodes that nobody may change. `loading` is called while a run's inventory is loaded; `reading` is
    raised while its nodes are read.
    """

    directory: Path
    names: tuple[str, ...] = ("n1", "n2", "n3")
    inventory: str = "hosts.py"
    becomes: dict[str, Status | BaseException | Callable[[], None]] = field(default_factory=dict)
    done: set[str] = field(default_factory=set)
    refused: set[str] = field(default_factory=set)
    cordoned: set[str] = field(default_factory=set)
    broken: set[tuple[str, str]] = field(default_factory=set)
    hook: Callable[[str, str], None] = lambda *_: None
    reading: BaseException | None = None
    loading: Callable[[], object] = lambda: None

    def __call__(
        self, *, guard: Guard | None = None, exclude: tuple[str, ...] = (), drain: bool = True, **how: object
    ) -> int:
        """One run of apply, in waves of up to three after the canary, as a process of its own would make it."""
        history = History(self.directory / "history.db")
        request = Request(action="plan", inventory=str(self.directory / self.inventory), exclude=exclude)
        mine = guard or (Nodes(cordoned=self.cordoned, broken=self.broken, hook=self.hook) if drain else Guard())
        options = {"yes": True, "drain": drain, "max_unavailable": "3", "max_failures": 0} | how
        try:
            return apply(request, Options(**options), history, mine, self.events)  # type: ignore[arg-type]
        finally:
            history.close()

    def plan(self, exclude: tuple[str, ...] = ()) -> int:
        """One run of plan."""
        history = History(self.directory / "history.db")
        request = Request(action="plan", inventory=str(self.directory / self.inventory), exclude=exclude)
        try:
            return plan.run(request, history, as_json_=False, verbose=False, events_of=self.events)
        finally:
            history.close()

    def prune(self) -> list[int]:
        """Forget what can be forgotten; the runs that are left."""
        history = History(self.directory / "history.db")
        try:
            history_commands.prune(history, None, 90, datetime.now(UTC) + timedelta(days=91))
            return sorted(each.id for each in history.runs())
        finally:
            history.close()

    @contextmanager
    def events(self, request: Request, verbose: bool) -> Iterator[Iterator[Event]]:
        yield self._events(request)

    def _events(self, request: Request) -> Iterator[Event]:
        chosen = self.names if request.hosts is None else request.hosts
        left = [each for each in chosen if each in self.names and each not in request.exclude]
        hosts = tuple(HostEvent(name=each, groups=("all",), kubernetes_node=each) for each in left)
        self.loading()
        yield InventoryEvent(hosts=hosts, sizes={"all": 3}, data={"all": {}})
        if request.action == "plan" and self.reading:
            raise self.reading
        for host in hosts if request.action != "inventory" else ():
            status = Status.READY if host.name in self.done else Status.CHANGES
            status = Status.REFUSED if host.name in self.refused else status
            if request.action == "apply":
                what = self.becomes.get(host.name, Status.CHANGED)
                if isinstance(what, BaseException):
                    raise what
                if not isinstance(what, Status):
                    what()
                    what = Status.CHANGED
                status = what
                self.done |= {host.name} if status is Status.CHANGED else set()
            yield RecordEvent(
                record=Record(name=host.name, groups=("all",), status=status, tier="idmapped", disrupts=("it stops",))
            )

    def records(self) -> dict[str, Record]:
        history = History(self.directory / "history.db")
        try:
            return {each.name: each for each in history.records(next(history.runs()).id)}
        finally:
            history.close()


def killed(played: Played, monkeypatch: pytest.MonkeyPatch, **how: object) -> None:
    """A run whose process is gone in the middle, as far as the history can tell."""
    with monkeypatch.context() as gone:
        gone.setattr(History, "finish", lambda *_: None)
        gone.setattr(histories, "process", lambda pid: f"{pid} killed")
        with pytest.raises(Killed):
            played(**how)  # type: ignore[arg-type]
