"""`fleet.py apply`: change the nodes of an inventory in waves, each proven before the next."""

from __future__ import annotations

import json
import sqlite3
import sys
import time
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import click

from fleet import child, outcome, resume, text
from fleet.away import Away
from fleet.checkout import inputs
from fleet.child import FORESEEN, BrokenOff, CannotRun, Events, in_words
from fleet.drain import Guard
from fleet.events import InventoryEvent, RecordEvent, Request, StepEvent
from fleet.history import SEAL, History, Run, seal
from fleet.interrupt import Interrupt
from fleet.plan import gather, nodes_as_json
from fleet.plan import options as chosen
from fleet.progress import Progress
from fleet.records import ATTENTION, UNAVAILABLE, Record, Status, exit_code, totals
from fleet.terminal import tell
from fleet.waves import DEFAULT_MAX_UNAVAILABLE, LimitError, Rollout, Stop, Wave, limit
from tasks import next_step
from userns.diff import Mask

__all__ = ["GROUP_DATA", "Options", "apply"]

# What a group's data may say to a rollout.
GROUP_DATA = ("max_unavailable",)
_IN_FLIGHT = (
    "the run ended while it was being changed: what had begun there goes on by itself, and finishes or undoes itself"
)

_OTHERWISE = "the inventory, its data or the code is not what was planned with any more"


@dataclass(frozen=True, slots=True)
class Options:
    """How to roll out. `max_unavailable` overrides the groups' data; `canary` is a host or a group.

    `drain` is None where the operator has not decided: then nothing that disturbs pods is done.
    """

    yes: bool = False
    json: bool = False
    verbose: bool = False
    resume: bool = False
    max_unavailable: str | None = None
    max_failures: int = 0
    canary: str | None = None
    drain: bool | None = None


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

    def __post_init__(self) -> None:
        """Whose pods are away is the guard's business."""
        self.away = Away(self.guard, self._say)

    def __call__(self) -> int:
        """Do it; the result is the exit code. Raises CannotRun where there is nothing to run on."""
        self.inputs = inputs(self.request.inventory)
        latest, done = resume.latest(self.history, self.request.inventory), {}
        if self.options.resume:
            earlier = resume.accepted(latest, self.request, self._chosen(), self._say)
            done = resume.done_in(self.history, earlier, self.inputs, self._say)
        with self._written_down():
            inventory = self._read(done, latest)
            rollout = self._rollout(
                inventory, passed_canary=any(each.status is Status.CHANGED for each in done.values())
            )
            if not rollout.waiting:
                bad = [each.name for each in self.records.values() if each.status in ATTENTION]
                why = f"{outcome.STOPPED}: there was nothing to change but what needs attention: {text.names(bad)}"
                self.outcome = why if bad else outcome.DONE
            elif self._agreed():
                self._roll_out(rollout)
            else:
                self.outcome = outcome.DECLINED
        return self._report()

    @contextmanager
    def _written_down(self) -> Iterator[None]:
        """The run's row in the history: begun with the context, and ended with it, whatever happens."""
        options = self._chosen() | {SEAL: seal(self.request.data)}
        self.run = self.history.begin("apply", self.request.inventory, options)
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
                self._say(f"the history {self.history.path} cannot be written ({error}): --resume knows less than this")

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
        return [_waiting(each) for each in self.records.values()]

    # --- before --------------------------------------------------------------------------------------------------

    def _read(self, done: Mapping[str, Record], earlier: Run | None) -> InventoryEvent:
        """Plan for all nodes but those that are done with, and write it down."""
        request = self.request
        if done:
            naming = request.model_copy(update={"action": "inventory"})
            with self.events_of(naming, self.options.verbose) as events:
                everybody = child.inventory_of(events)
            left = tuple(each.name for each in everybody.hosts if each.name not in done)
            request = request.model_copy(update={"hosts": left})
            self.records = {each.name: done[each.name] for each in everybody.hosts if each.name in done}
        if request.hosts != ():
            inventory, records = gather(
                request, Progress("reading"), self.options.verbose, self._refuse_company, self.events_of
            )
            self.records |= {each.name: each for each in records}
        inventory = everybody if done else inventory
        self.records = {each.name: self.records[each.name] for each in inventory.hosts}
        self.away.nodes = {each.name: each.kubernetes_node for each in inventory.hosts}
        if earlier:
            self._look_for_drained(earlier)
        self.history.put(self.run, self._ended())
        return inventory

    def _look_for_drained(self, earlier: Run) -> None:
        """What that run has drained, and not given back: a node that needs no change any more has no wave."""
        drained = (each.name for each in self.history.records(earlier.id) if each.drained)
        self.away.found(name for name in drained if name in self.records)
        idle = [name for name in sorted(self.away.hosts) if self.records[name].status is not Status.CHANGES]
        well = [name for name in idle if self.records[name].status is Status.READY]
        if not self.options.drain:
            for name in sorted(self.away.hosts):
                self._say(
                    f"{name}: run {earlier.id} moved its pods away, and let none back: look whether it is cordoned"
                )
        failed = self.away.back(well) if self.options.drain else {}
        for name in idle:
            if name in self.away.hosts:
                why = [*self.records[name].reasons, *filter(None, [failed.get(name) or self.away.told(name)])]
                status = Status.FAILED if name in failed else self.records[name].status
                self.records[name] = _with(self.records[name], status, why).model_copy(update={"drained": True})

    def _refuse_company(self, inventory: InventoryEvent) -> None:
        """Never two rollouts on one node: its lock would keep it whole, but each would spoil the other's waves.

        Our nodes are written down before the others' are looked at: of two that begin at once, one sees the other.
        """
        ours = [Record(name=each.name, groups=each.groups, status=Status.WAITING) for each in inventory.hosts]
        self.history.put(self.run, ours)
        for other in self.history.going_on("apply"):
            theirs = {each.name for each in self.history.records(other.id)} if other.id != self.run else set()
            if shared := sorted(theirs & {each.name for each in ours}):
                raise CannotRun(
                    f"run {other.id} of {other.user} on {other.host}, since {other.started}, goes on over "
                    f"{text.names(shared)}: {other.way_out}"
                )

    def _rollout(self, inventory: InventoryEvent, passed_canary: bool) -> Rollout:
        waiting = [each.name for each in self.records.values() if each.status is Status.CHANGES]
        limits = {}
        for group, size in inventory.sizes.items():
            wanted = self.options.max_unavailable or inventory.data[group].get(
                "max_unavailable", DEFAULT_MAX_UNAVAILABLE
            )
            try:
                limits[group] = limit(wanted, size)
            except LimitError as error:
                raise CannotRun(f"max_unavailable of {group}: {error}") from error
        away = {each.name for each in self.records.values() if each.status in UNAVAILABLE}
        return Rollout(
            waiting=waiting,
            groups={each.name: each.groups for each in inventory.hosts},
            limits=limits,
            unavailable=away,
            max_failures=self.options.max_failures,
            canary=None if passed_canary or not waiting else self._canary(waiting),
        )

    def _canary(self, waiting: Sequence[str]) -> str:
        wanted = self.options.canary
        if wanted is None:
            return waiting[0]
        for name in waiting:
            if wanted == name or wanted in self.records[name].groups:
                return name
        raise CannotRun(f"--canary {wanted}: no node that would change has this name or is in a group of this name")

    def _agreed(self) -> bool:
        """Whether somebody wants it, after the plan was told."""
        if not self.options.json:
            print(text.plan(list(self.records.values()), diff=self.request.diff, verbose=self.options.verbose))
        self._refuse_undecided()
        if self.options.yes:
            return True
        if sys.stdin is None or sys.stdin.closed or not sys.stdin.isatty():
            raise CannotRun("nobody is there to agree: pass -y to change nodes without a question, or use plan to look")
        try:
            return click.confirm("Change these nodes?", err=True)
        except click.Abort:  # Ctrl-C, or Ctrl-D
            raise KeyboardInterrupt from None

    def _refuse_undecided(self) -> None:
        disturbed = [each.name for each in self.records.values() if each.status is Status.CHANGES and each.disrupts]
        if disturbed and self.options.drain is None:
            why = self.records[disturbed[0]].disrupts[0]
            raise CannotRun(
                f"the pods of {text.names(disturbed)} would be disturbed ({why}): say --drain to move them away first, "
                "--before and --after for commands of your own, or --no-drain"
            )

    # --- the waves -----------------------------------------------------------------------------------------------

    def _roll_out(self, rollout: Rollout) -> None:
        progress = Progress("changing")
        progress.begin(len(rollout.waiting))
        with Interrupt(self._say) as interrupt:
            try:
                while not interrupt.wanted:
                    wave = rollout.next()
                    if isinstance(wave, Stop):
                        self.outcome = f"{outcome.STOPPED}: {wave.reason}" if wave.reason else outcome.DONE
                        return
                    if inputs(self.request.inventory) != self.inputs:
                        self.outcome = f"{outcome.STOPPED}: {_OTHERWISE}"
                        return
                    results = self._wave(wave, progress)
                    rollout.settle(results)
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
        self._say(f"{wave}: {text.names(wave.nodes)}")
        self.history.in_flight(self.run, wave.nodes, wave.number)
        for name in wave.nodes:
            self.records[name] = _with(self.records[name], Status.UNKNOWN, [_IN_FLIGHT])
        try:
            if ready := self._make_way(wave):
                self._change(ready, wave, progress)
        except BaseException:
            self._tell_of_drained(wave.nodes, wave)
            raise
        self._give_back(wave)
        results = {name: self.records[name].status for name in wave.nodes}
        self.waves.append(
            {
                "number": wave.number,
                "canary": wave.canary,
                "nodes": list(wave.nodes),
                "seconds": round(time.monotonic() - began, 1),
            }
        )
        self._say(f"{wave}: " + ", ".join(f"{n} {status}" for status, n in totals(self._of(wave.nodes)).items()))
        return results

    def _change(self, names: Sequence[str], wave: Wave, progress: Progress) -> None:
        request = self.request.model_copy(update={"action": "apply", "hosts": tuple(names), "diff": False})
        try:
            with self.events_of(request, self.options.verbose) as events:
                child.inventory_of(events)
                for event in events:
                    match event:
                        case RecordEvent(record=record):
                            self._settle(_kept(record, self.records[record.name]), wave)
                            progress.advance()
                        case StepEvent(name=name, step=step):
                            progress.say(f"{name}: {step}")
        except (BrokenOff, CannotRun) as error:
            for record in self._of(names):
                if record.status is Status.UNKNOWN:
                    self._settle(_with(record, Status.UNKNOWN, [_IN_FLIGHT, *str(error).splitlines()]), wave)

    def _make_way(self, wave: Wave) -> list[str]:
        """Move the pods away where they would be disturbed; the nodes that are ready for their change."""
        if not self.options.drain:
            return list(wave.nodes)
        moving = [name for name in wave.nodes if self.records[name].disrupts or name in self.away.hosts]
        self.away.hosts |= set(moving)
        for name in moving:  # whatever comes: a run that goes on from here knows
            self._settle(self.records[name], wave)
        failed = self.away.leave(moving)
        for name, why in failed.items():
            self._settle(_with(self.records[name], Status.FAILED, [f"nothing was changed: {why}"]), wave)
        return [name for name in wave.nodes if name not in failed]

    def _give_back(self, wave: Wave) -> None:
        """Let pods back onto the nodes that are proven; on the others nobody's pods would start."""
        away = [name for name in wave.nodes if name in self.away.hosts]
        good = [name for name in away if self.records[name].status in (Status.CHANGED, Status.READY)]
        failed = self.away.back(good) if self.options.drain else {}
        for name in good:
            well = name not in failed
            why = [] if well else [f"changed and proven, but {failed[name]}"]
            self._settle(self.records[name] if well else _with(self.records[name], Status.FAILED, why), wave)
        self._tell_of_drained([name for name in away if name not in good], wave)

    def _tell_of_drained(self, names: Iterable[str], wave: Wave) -> None:
        """Whoever repairs a node has to let its pods back."""
        for record in self._of(name for name in names if name in self.away.hosts):
            told = [each for each in (self.away.told(record.name),) if each]
            self._settle(_with(record, record.status, [*record.reasons, *told]), wave)

    def _settle(self, record: Record, wave: Wave) -> None:
        record = record.model_copy(update={"drained": record.name in self.away.hosts})
        self.records[record.name] = record
        self.history.settle(self.run, record, wave.number)

    # --- after ---------------------------------------------------------------------------------------------------

    def _report(self) -> int:
        records, code = self._ended(), self._exit_code()
        if self.options.json:
            told = {"run": self.run, "inventory": self.request.inventory, "outcome": self.outcome, "exit_code": code}
            told |= {"totals": totals(records), "waves": self.waves, "nodes": nodes_as_json(records)}
            print(json.dumps(told, indent=1, ensure_ascii=False))
            return code
        print("\n\n".join([*text.attention(records), f"{self.outcome}\n{text.summary(records)}"]))
        if proven := {self.away.nodes[each.name]: each.tier for each in records if each.status is Status.CHANGED}:
            tell("\n".join(next_step.steps(proven)))
        if any(each.status is Status.WAITING for each in records):
            self._say("go on with the same command and --resume")
        return code

    def _of(self, names: Iterable[str]) -> list[Record]:
        return [self.records[name] for name in names]

    def _say(self, line: str) -> None:
        tell(f"fleet: {line}")


def apply(
    request: Request, options: Options, history: History, guard: Guard | None = None, events_of: Events = child.events
) -> int:
    """Roll out; the result is the exit code. `events_of` runs pyinfra, here or elsewhere."""
    request = request.model_copy(update={"group_data": GROUP_DATA})
    return Applying(request, options, history, guard or Guard(), events_of)()


def _waiting(record: Record) -> Record:
    return _with(record, Status.WAITING, []) if record.status is Status.CHANGES else record


def _with(record: Record, status: Status, reasons: Iterable[str]) -> Record:
    return record.model_copy(update={"status": status, "reasons": tuple(reasons)})


def _kept(record: Record, planned: Record) -> Record:
    """A record of a wave, with what the plan knew where the wave could not even read the node."""
    if record.tier:
        return record
    return planned.model_copy(update={"status": record.status, "reasons": record.reasons})
