"""`fleet.py apply`: change the nodes of an inventory in waves, each proven before the next."""

from __future__ import annotations

import sqlite3
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from fleet import child, consent, other_runs, outcome, resume, text
from fleet.apply_report import Ended
from fleet.canary import canary
from fleet.checkout import inputs
from fleet.child import FORESEEN, BrokenOff, CannotRun, Events, in_words
from fleet.drain import Guard
from fleet.drained import LOOK, Away, look, untold
from fleet.events import InventoryEvent, RecordEvent, Request, StepEvent
from fleet.history import History
from fleet.interrupt import Interrupt, Late
from fleet.limits import look_at_limits
from fleet.options import Options
from fleet.plan import gather
from fleet.plan import options as chosen
from fleet.progress import Progress
from fleet.records import ATTENTION, UNAVAILABLE, Record, Status, exit_code, totals
from fleet.run import Run
from fleet.terminal import interject, say, tell
from fleet.waves import MAX_UNAVAILABLE, Rollout, Stop, Wave
from userns.diff import Mask

__all__ = ["apply"]

# What somebody has to look at where the guard has no words for it: it may be another one than the earlier run's.
_MOVED = f"its pods were moved away, and not let back: {LOOK}"
_GONE = "nothing was changed: the inventory has it no more"
_OTHERWISE = "the inventory, its data or this checkout changed since the plan: --resume plans anew"


@dataclass
class Applying:
    """One rollout, from the plan to the report."""

    request: Request
    options: Options
    history: History
    guard: Guard
    events_of: Events
    run: int = 0
    records: dict[str, Record] = field(default_factory=dict)
    waves: list[dict[str, Any]] = field(default_factory=list)
    outcome: str = ""
    inputs: str = ""
    begun: bool = False
    limits: Mapping[str, int] = field(default_factory=dict)
    drained: Mapping[str, int] = field(default_factory=dict)  # by earlier runs, which did not give these nodes back
    unwritten: str = ""

    def __post_init__(self) -> None:
        """Whose pods are away is the guard's business."""
        self.away = Away(self.guard, say)

    def __call__(self) -> int:
        """Do it; the result is the exit code. Raises CannotRun where there is nothing to run on."""
        self.inputs = inputs(self.request.inventory)
        if self.options.resume:
            resume.accepted(self._latest(), self.request, self._chosen(), lambda _: None)
        with self._written_down():
            inventory, done = self._read()
            rollout = self._rollout(
                inventory, passed_canary=any(each.status is Status.CHANGED for each in done.values())
            )
            idle, waiting = self._idle() if self.options.drain else [], [*rollout.waiting]
            if not waiting and not idle:
                self.outcome = outcome.DONE
            elif consent.agreed([*self.records.values()], idle, self.options, diff=self.request.diff):
                self._roll_out(rollout, idle)
            else:
                self.outcome = outcome.DECLINED
            bad = [each.name for each in self.records.values() if each.status in ATTENTION]
            if not waiting and bad and self.outcome == outcome.DONE:
                why = "there was nothing to change but what needs attention"
                self.outcome = f"{outcome.STOPPED}: {why}: {text.names(bad)}"
        try:
            return self._report()
        except KeyboardInterrupt:
            raise (Late if self.begun else KeyboardInterrupt) from None

    @contextmanager
    def _written_down(self) -> Iterator[None]:
        """The run's row in the history: begun with the context, and ended with it, whatever happens."""
        self.run = self.history.begin("apply", self.request.inventory, self._chosen(), self.request.data)
        try:
            yield
        except KeyboardInterrupt:
            self.outcome = self.outcome or outcome.INTERRUPTED_BEFORE
            raise
        except BaseException as error:
            self.outcome = self.outcome or f"{outcome.NOT_BEGUN}: {in_words(error)}"
            raise
        finally:
            try:
                self.history.finish(self.run, self.outcome, self._exit_code())
            except sqlite3.Error as error:  # a full disk must not cost the report of what was changed
                say(f"the history {self.history.path} cannot be written ({error}): --resume knows less than this")

    def _chosen(self) -> dict[str, Any]:
        names = ("max_unavailable", "max_failures", "canary", "resume")
        return {name: getattr(self.options, name) for name in names} | chosen(self.request)

    def _exit_code(self) -> int:
        if self.outcome.startswith(outcome.INTERRUPTED):
            return outcome.EXIT_INTERRUPTED
        if self.outcome.startswith((outcome.NOT_BEGUN, outcome.STOPPED)):
            return 1
        return exit_code(self._ended())

    def _ended(self) -> list[Record]:
        """The records as they are where no wave follows."""
        return [each.at_the_end for each in self.records.values()]

    # --- before --------------------------------------------------------------------------------------------------

    def _read(self) -> tuple[InventoryEvent, dict[str, Record]]:
        """Plan for all nodes but those that are done with, which are told too, and write it down."""
        inventory, done = self._plan_for_what_is_left() if self.options.resume else (self._plan_for_all(), {})
        if gone := [each.name for each in inventory.hosts if each.name not in self.records]:
            raise CannotRun(f"{', '.join(gone)}: the inventory named it, and no more when it was to be read")
        self.records = {each.name: self.records[each.name] for each in inventory.hosts}
        self.away.nodes = {each.name: each.kubernetes_node for each in inventory.hosts}
        self._look_for_drained()
        self.history.put(self.run, self._ended())
        return inventory, done

    def _plan_for_all(self) -> InventoryEvent:
        """Name the nodes and read them, in one process: our seat is taken in between."""
        return self._gather(self.request, self._take_seat)

    def _plan_for_what_is_left(self) -> tuple[InventoryEvent, dict[str, Record]]:
        """Name the nodes, take our seat, and read those with which the earlier run is not done."""
        with self.events_of(self.request.model_copy(update={"action": "inventory"}), self.options.verbose) as events:
            inventory = child.inventory_of(events)
        self._take_seat(inventory)
        # Again: until we had our seat, another run may have gone on with it, or may have been at its end.
        earlier = resume.accepted(self._latest(), self.request, self._chosen(), say)
        done = resume.done_in(self.history, earlier, self.inputs, say)
        self.records = {each.name: done[each.name] for each in inventory.hosts if each.name in done}
        if left := tuple(each.name for each in inventory.hosts if each.name not in done):
            self._gather(self.request.model_copy(update={"hosts": left}), lambda _: None)
        return inventory, done

    def _gather(self, request: Request, begun: Callable[[InventoryEvent], object]) -> InventoryEvent:
        inventory, records = gather(request, Progress("reading"), self.options.verbose, begun, self.events_of)
        self.records |= {each.name: each for each in records}
        return inventory

    def _latest(self) -> Run | None:
        return resume.latest(self.history, self.request, self._chosen(), self.run)

    def _look_for_drained(self) -> None:
        """What earlier runs have drained, and not given back. Each record says so until it is."""
        self.away.found(name for name in self.drained if name in self.records)
        for name in sorted(self.away.hosts):
            record = self.records[name].model_copy(update={"drained": True})
            self.records[name] = self._told(record.with_status(record.status, () if record.is_well else record.reasons))
            if not self.options.drain:
                say(f"{name}: {look(self.drained[name])}")
        for line in untold(self.history, self.request.inventory, self.run, self.drained, self.records):
            say(line)

    def _idle(self) -> list[str]:
        """Of those, the nodes that are well and need no change any more: they have no wave."""
        return [name for name in sorted(self.away.hosts) if self.records[name].is_well]

    def _give_idle_back(self, idle: Sequence[str]) -> set[str]:
        """Let pods back to them; those where that worked."""
        failed = self.away.back(idle) if idle else {}
        for name in idle:
            record = self.records[name].model_copy(update={"drained": name in failed})
            status, why = (Status.FAILED, [failed[name]]) if name in failed else (record.status, [])
            self.records[name] = record.with_status(status, why)
        if idle:
            self._write(lambda: self.history.put(self.run, self._ended()))
        return set(idle) - failed.keys()

    def _take_seat(self, inventory: InventoryEvent) -> None:
        """See that nobody else is at these nodes; only then what earlier runs have left there is known.

        Ours are written down before the others' are looked at: of two that begin at once, one sees the other.
        """
        self.limits = look_at_limits(inventory, self.options.max_unavailable, self.options.canary)
        ours = [Record(name=each.name, groups=each.groups, status=Status.WAITING) for each in inventory.hosts]
        self.history.put(self.run, ours)
        other_runs.refuse(self.history, self.run, self.request.inventory, inventory.hosts)
        self.drained = self.history.drained(self.request.inventory)
        ours = [each.model_copy(update={"drained": each.name in self.drained}) for each in ours]
        self.history.put(self.run, ours)

    def _rollout(self, inventory: InventoryEvent, passed_canary: bool) -> Rollout:
        waiting = [each.name for each in self.records.values() if each.status is Status.CHANGES]
        away = {each.name for each in self.records.values() if each.status in UNAVAILABLE} | self.away.hosts
        return Rollout(
            waiting=waiting,
            groups={each.name: each.groups for each in inventory.hosts},
            limits=self.limits,
            unavailable=away,
            max_failures=self.options.max_failures,
            canary=None
            if passed_canary or not waiting
            else canary(self.options.canary, waiting, self.records.values(), say),
        )

    # --- the waves -----------------------------------------------------------------------------------------------

    def _roll_out(self, rollout: Rollout, idle: Sequence[str]) -> None:
        self.begun = True
        progress = Progress("changing")
        progress.begin(len(rollout.waiting))
        with Interrupt(interject) as interrupt:
            try:
                rollout.unavailable -= self._give_idle_back(idle)
                while not interrupt.wanted:
                    wave = rollout.next()
                    if isinstance(wave, Stop):
                        self.outcome = f"{outcome.STOPPED}: {wave.reason}" if wave.reason else outcome.DONE
                        return
                    if self.unwritten or inputs(self.request.inventory) != self.inputs:
                        self.outcome = f"{outcome.STOPPED}: {self.unwritten or _OTHERWISE}"
                        return
                    results = self._wave(wave, progress)
                    rollout.settle(results)
                    rollout.unavailable |= self.away.hosts
                self.outcome = f"{outcome.INTERRUPTED}: the nodes in flight were finished"
            except KeyboardInterrupt:
                self.outcome = f"{outcome.INTERRUPTED}: nodes were left in flight"
            except Exception as error:  # whatever it is, nodes were changed, and somebody has to know of them
                if not isinstance(error, FORESEEN):
                    tell(Mask()(traceback.format_exc()))
                self.outcome = f"{outcome.STOPPED}: {in_words(error)}"
            finally:
                progress.end()

    def _wave(self, wave: Wave, progress: Progress) -> dict[str, Status]:
        began = time.monotonic()
        self._begin(wave)
        try:
            if ready := self._make_way(wave):
                self._change(ready, wave, progress)
            self._give_back(wave)
        except BaseException:
            self._tell_of_drained(wave.nodes, wave)
            raise
        results = {name: self.records[name].status for name in wave.nodes}
        self.waves.append(
            {
                "number": wave.number,
                "canary": wave.canary,
                "nodes": list(wave.nodes),
                "seconds": round(time.monotonic() - began, 1),
            }
        )
        say(f"{wave}: " + ", ".join(f"{n} {status}" for status, n in totals(self._of(wave.nodes)).items()))
        return results

    def _begin(self, wave: Wave) -> None:
        planned = self._of(wave.nodes)
        for each in planned:  # first: from here on they are no more waiting, whenever somebody leaves
            self.records[each.name] = each.with_status(Status.UNKNOWN, [outcome.IN_FLIGHT])
        say(f"{wave}: {text.names(wave.nodes)}")
        try:
            self.history.in_flight(self.run, wave.nodes, wave.number)
        except sqlite3.Error:  # it ends here
            self.records |= {each.name: each for each in planned}
            raise

    def _change(self, names: Sequence[str], wave: Wave, progress: Progress) -> None:
        request = self.request.model_copy(
            update={"action": "apply", "hosts": tuple(names), "diff": False, "may_disturb": self._may_disturb(names)}
        )
        there: set[str] | None = None
        try:
            with self.events_of(request, self.options.verbose) as events:
                there = {each.name for each in child.inventory_of(events).hosts}
                for event in events:
                    match event:
                        case RecordEvent(record=record):
                            self._settle(record.with_what_is_known(self.records[record.name]), wave)
                            progress.advance()
                        case StepEvent(name=name, step=step):
                            progress.say(f"{name}: {step}")
        except (BrokenOff, CannotRun, OSError) as error:
            if there is None:
                self._take_back(names, wave, Status.WAITING)
                raise
            for record in self._of(each for each in names if each in there):
                if record.status is Status.UNKNOWN:
                    why = [outcome.IN_FLIGHT, *str(error).splitlines()]
                    self._settle(record.with_status(Status.UNKNOWN, why), wave)
        self._take_back([each for each in names if each not in there], wave, Status.FAILED, _GONE)

    def _take_back(self, names: Sequence[str], wave: Wave, status: Status, *why: str) -> None:
        """Nothing was begun on these: the pods that were moved away for it come back."""
        self.away.undo(names)
        for record in self._of(names):
            self._settle(record.with_status(status, why), wave)

    def _may_disturb(self, names: Iterable[str]) -> tuple[str, ...]:
        """Those whose pods are away, or may be disturbed: a node may be otherwise now than when it was planned."""
        if self.options.drain:
            names = filter(self._moves, names)
        return () if self.options.drain is None else tuple(names)

    def _moves(self, name: str) -> bool:
        return bool(self.records[name].disrupts) or name in self.away.hosts

    def _make_way(self, wave: Wave) -> list[str]:
        """Move the pods away where they would be disturbed; the nodes that are ready for their change."""
        if not self.options.drain:
            return list(wave.nodes)
        moving = [name for name in wave.nodes if self._moves(name)]
        # Whatever comes: a run that goes on from here knows of those that are ours, and of no other.
        failed = self.away.leave(moving, lambda hosts: self._settle_all(hosts, wave))
        for name, why in failed.items():
            self._settle(self.records[name].with_status(Status.FAILED, [f"nothing was changed: {why}"]), wave)
        ready = [name for name in wave.nodes if name not in failed]
        if moving and ready and inputs(self.request.inventory) != self.inputs:  # a drain takes its time
            self._take_back(ready, wave, Status.WAITING)
            raise CannotRun(_OTHERWISE)
        return ready

    def _give_back(self, wave: Wave) -> None:
        """Let pods back onto the nodes that are proven; on the others nobody's pods would start."""
        away = [name for name in wave.nodes if name in self.away.hosts]
        good = [name for name in away if self.options.drain and self.records[name].is_well]
        failed = self.away.back(good)
        for name in good:
            well = name not in failed
            why = [] if well else [f"changed and proven, but {failed[name]}"]
            self._settle(self.records[name] if well else self.records[name].with_status(Status.FAILED, why), wave)
        self._tell_of_drained([name for name in away if name not in good], wave)

    def _tell_of_drained(self, names: Iterable[str], wave: Wave) -> None:
        """Whoever repairs a node has to let its pods back."""
        for record in self._of(name for name in names if name in self.away.hosts):
            self._settle(self._told(record), wave)

    def _told(self, record: Record) -> Record:
        told = self.away.told(record.name) or _MOVED
        return record.with_status(record.status, dict.fromkeys([*record.reasons, told]))

    def _settle(self, record: Record, wave: Wave) -> None:
        record = record.model_copy(update={"drained": record.name in self.away.hosts})
        self.records[record.name] = record
        self._write(lambda: self.history.settle(self.run, record, wave.number))

    def _settle_all(self, names: Iterable[str], wave: Wave) -> None:
        for record in self._of(names):
            self._settle(record, wave)

    def _write(self, work: Callable[[], None]) -> None:
        """A full disk ends the rollout after its wave, and not the wave: its nodes are to be given back."""
        try:
            work()
        except sqlite3.Error as error:
            if not self.unwritten:
                self.unwritten = f"the history {self.history.path} cannot be written ({error})"
                say(f"{self.unwritten}: no other wave is begun")

    # --- after ---------------------------------------------------------------------------------------------------

    def _report(self) -> int:
        ended = Ended(
            run=self.run,
            inventory=self.request.inventory,
            outcome=self.outcome,
            exit_code=self._exit_code(),
            records=self._ended(),
            waves=self.waves,
            nodes=self.away.nodes,
            begun=self.begun,
        )
        ended.print_json() if self.options.json else ended.print_text()
        return ended.exit_code

    def _of(self, names: Iterable[str]) -> list[Record]:
        return [self.records[name] for name in names]


def apply(
    request: Request, options: Options, history: History, guard: Guard | None = None, events_of: Events = child.events
) -> int:
    """Roll out; the result is the exit code. `events_of` runs pyinfra, here or elsewhere."""
    request = request.model_copy(update={"group_data": (MAX_UNAVAILABLE,)})
    return Applying(request, options, history, guard or Guard(), events_of)()
