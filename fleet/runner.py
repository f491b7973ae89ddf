"""The process in which pyinfra runs: `python -m fleet.runner`, one for each plan and for each wave.

A request (JSON, one line) comes on standard input, which stays open for as long as the one who asked lives: where that
ends, this process ends too, so that nobody's pyinfra goes on behind the back of the next one. What happens goes to
standard output, one JSON document a line; what pyinfra itself prints goes to standard error.

A process of its own, because pyinfra 3.10 keeps its state in module globals, ends all hosts at an exception that nobody
foresaw, and does not give the memory of a run back.
"""

from __future__ import annotations

import pyinfra_cli  # type: ignore[import-untyped]  # isort: skip  # first: it makes the standard library gevent's

import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

import gevent
from pyinfra import logger
from pyinfra.api import BaseStateCallback, Config, Host, Inventory, State
from pyinfra.api.connect import connect_all, disconnect_all
from pyinfra.api.exceptions import PyinfraError
from pyinfra.api.operations import run_ops
from pyinfra.api.state import StateStage
from pyinfra.context import ctx_config, ctx_host, ctx_inventory, ctx_state
from pyinfra_cli.exceptions import CliError, UnexpectedExternalError  # type: ignore[import-untyped]
from pyinfra_cli.inventory import make_inventory  # type: ignore[import-untyped]
from pyinfra_cli.util import exec_file, load_deploy_file, load_func, parse_cli_arg  # type: ignore[import-untyped]

from artifacts.slip import slip
from fleet.events import Ended, Event, HostEvent, InventoryEvent, Problem, RecordEvent, Request, StepEvent
from fleet.groups import Groups, named_after_files
from fleet.inventory_part import only
from fleet.observed import of_plan, printable
from fleet.options import WAYS
from fleet.records import Record, Status
from fleet.said import Said
from tasks import assess, hosts, verify
from tasks.files import ROOT
from tasks.refusal import NO_HOSTS, contained
from userns.console import plain
from userns.diff import Mask
from userns.planning import Plan
from userns.secret import texts

del pyinfra_cli
# A host's data: its name in Kubernetes, where that is another one, and the region whose Dask workers reach it.
KUBERNETES_NODE, REGION = "kubernetes_node", "fleet_region"
# How lines of a finding or of a plan begin.
_PLANNED = ("tier ", "will ", "warning ", "note ")
# What pyinfra raises at an inventory that is otherwise than it expects.
_SLIPS = (UnexpectedExternalError, PyinfraError, SyntaxError, OSError, ValueError, TypeError, LookupError)


class NothingToRun(Exception):
    """Why there is no run: an inventory that is not there, a limit that nobody matches."""


class Outlet:
    """Standard output for the events alone: whatever else prints to it ends up in standard error."""

    def __init__(self) -> None:
        self._file = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)

    def __call__(self, event: Event) -> None:
        """Write one event. Where nobody reads any more, the run ends."""
        try:
            self._file.write(event.model_dump_json() + "\n")
            self._file.flush()
        except BrokenPipeError:
            os._exit(1)


class Run(BaseStateCallback):
    """One request, from the inventory to the last record."""

    def __init__(self, request: Request, emit: Callable[[Event], None], said: Said) -> None:
        self.request = request
        self.emit = emit
        self.said = said
        self.state = State(check_for_changes=False)  # the plan says what changes; pyinfra need not find out again
        self.inventory = Inventory.empty()
        self.groups = Groups(self.inventory)
        self.hosts: list[Host] = []
        self.plans: dict[str, Record] = {}
        self.unreachable: dict[str, str] = {}
        self.told: set[str] = set()

    def __call__(self) -> None:
        """Do what is asked for. Raises NothingToRun, also for a slip in an inventory, or whatever pyinfra raises."""
        try:
            self._load()
        except _SLIPS as error:
            raise NothingToRun(slip(error, self.request.inventory)) from error
        if not self.state.initialised:
            return
        self._connect()
        self.state.set_stage(StateStage.Prepare)
        assess.watchers.append(self._planned)
        if self.request.action == "plan":
            load_func(self.state, self._plan)
        else:
            load_deploy_file(self.state, str(ROOT / "deploy.py"))
            self._apply()
        for host in self.hosts:
            self._tell_of(host)
        disconnect_all(self.state)

    # --- who -----------------------------------------------------------------------------------------------------

    def _load(self) -> None:
        request, state = self.request, self.state
        state.cwd = os.getcwd()
        ctx_state.set(state)
        config = Config()
        ctx_config.set(config)
        exec_file(str(ROOT / "config.py"))
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever asked decides about that
        if not request.inventory.replace(",", " ").strip():
            raise NothingToRun("no inventory: name a file, or hosts with commas")
        try:
            is_there = Path(request.inventory).exists()
        except OSError as error:  # longer than a file's name: pyinfra looks for one too
            why = f"these hosts with commas cannot be taken ({error.strerror}): put them into a file"
            raise NothingToRun(why) from error
        if request.inventory.endswith(".py") and not is_there:
            raise NothingToRun(f"no such inventory: {request.inventory}")
        if Path(request.inventory).is_dir():
            raise NothingToRun(f"{request.inventory} is a directory: name an inventory's file, or hosts with commas")
        data = {key: parse_cli_arg(value) for key, value in request.data.items()}
        inventory, wanted = request.inventory, request.hosts if request.until else None  # with a time: a worker's part
        if "," in inventory and not is_there:
            given = [each.strip() for each in inventory.split(",") if each.strip()]
            inventory = ",".join(given) + ("," if len(given) == 1 else "")  # else pyinfra takes it for a file
            wanted = wanted or tuple(given)  # but not for what stands behind that comma
        with only(wanted) if wanted else nullcontext(), named_after_files() as added:
            self.inventory = make_inventory(inventory, cwd=state.cwd, override_data=data)
        if not len(self.inventory):
            raise NothingToRun(hosts.nobody(request.inventory))
        if said := hosts.twice(self.inventory):
            raise NothingToRun(said)
        self.said.names = {plain(host.name): host.name for host in self.inventory}
        self.groups = Groups(self.inventory, added)
        self.hosts = self._chosen()
        ctx_inventory.set(self.inventory)
        if request.action != "inventory" and (request.at_most is None or len(self.hosts) <= request.at_most):
            state.init(self.inventory, config, initial_limit=self.hosts)
            state.add_callback_handler(self)
        members = self.groups.members()
        self.emit(
            InventoryEvent(
                hosts=tuple(self._host(host) for host in self.hosts),
                sizes={name: len(hosts) for name, hosts in members.items()},
                data={name: self.groups.data(name, request.group_data) for name in members},
            )
        )

    def _host(self, host: Host) -> HostEvent:
        node = str(host.data.get(KUBERNETES_NODE) or host.name)
        region = str(host.data.get(REGION) or "")
        return HostEvent(name=host.name, groups=self.groups.of(host), kubernetes_node=node, region=region)

    def _chosen(self) -> list[Host]:
        """The hosts, in the inventory's order."""
        everybody = list(self.inventory)
        if self.request.hosts is not None:
            wanted = set(self.request.hosts)
            return [host for host in everybody if host.name in wanted]
        chosen = set(everybody)
        if self.request.limit:
            chosen = set().union(*(self._matching(pattern, "--limit") for pattern in self.request.limit))
        for pattern in self.request.exclude:
            chosen -= self._matching(pattern, "--exclude")
        if not chosen:
            raise NothingToRun("no host to work on: --limit and --exclude leave none")
        return [host for host in everybody if host in chosen]

    def _matching(self, pattern: str, option: str) -> set[Host]:
        try:
            return set(hosts.matching(self.inventory, pattern, option))
        except hosts.NobodyMatches as error:
            raise NothingToRun(str(error)) from error

    # --- what ----------------------------------------------------------------------------------------------------

    def _connect(self) -> None:
        self.state.set_stage(StateStage.Connect)
        with _even_without_hosts():
            connect_all(self.state)

    @contained()
    def _plan(self) -> None:
        host = ctx_host.get()
        plan = assess.plan()
        if plan is None:
            return
        if self.request.diff and plan.changes and not plan.refused:
            diffs = {path: tuple(lines) for path, lines in assess.diffs(plan).items()}
            self.plans[host.name] = self.plans[host.name].model_copy(update={"diffs": diffs})
        self._tell_of(host)

    def _planned(self, name: str, plan: Plan) -> None:
        host = ctx_host.get()
        self.plans[name] = of_plan(name, self.groups.of(host), plan)
        self.emit(StepEvent(name=name, step="read"))
        disrupts = self.plans[name].disrupts
        if self.request.action == "apply" and disrupts and name not in self.request.may_disturb:
            raise PyinfraError(
                f"nothing was changed: it would now disturb pods ({disrupts[0]}), which the plan did not foresee: "
                f"apply again, with --resume, and say {WAYS}"
            )

    def _apply(self) -> None:
        for host in self.hosts:
            if not host.op_hash_order:
                self._tell_of(host)
            elif host not in self.state.failed_hosts:  # what was planned explains no failure
                self.said.lines.pop(host.name, None)
        self.state.set_stage(StateStage.Execute)
        with _even_without_hosts():
            run_ops(self.state)

    # --- what became of it ---------------------------------------------------------------------------------------

    def _tell_of(self, host: Host) -> None:
        if host.name in self.told:
            return
        self.told.add(host.name)
        self.emit(RecordEvent(record=printable(self._record(host))))
        self.plans.pop(host.name, None)

    def _record(self, host: Host) -> Record:
        name, failed = host.name, host in self.state.failed_hosts
        record = self.plans.get(name)
        said = tuple(self.said.lines.pop(name, ()))
        if record is None:
            empty = Record(name=name, groups=self.groups.of(host), status=Status.FAILED)
            if name in self.unreachable:
                return empty.model_copy(update={"status": Status.UNREACHABLE, "reasons": (self.unreachable[name],)})
            refused = tuple(line.removeprefix("refused: ") for line in said if line.startswith("refused: "))
            if refused:
                return empty.model_copy(update={"status": Status.REFUSED, "reasons": refused})
            return empty.model_copy(update={"reasons": said or ("pyinfra did not say why",)})
        if self.request.action == "plan" and not failed:
            return record
        if record.status is Status.REFUSED:
            return record
        if failed or (host.op_hash_order and name not in verify.proven):
            return record.model_copy(update={"status": Status.FAILED, "reasons": _why_failed(said)})
        if host.op_hash_order:
            # The proof ran with these.
            versions = {component: each.after for component, each in record.versions.items()}
            return record.model_copy(
                update={
                    "status": Status.CHANGED,
                    "proof": verify.proven[name],
                    "proof_allowed": name in verify.allowed,
                    "versions": versions,
                }
            )
        return record

    def host_connect(self, state: State, host: Host) -> None:  # type: ignore[override]
        """It answered."""
        self.emit(StepEvent(name=host.name, step="connected"))

    def host_connect_error(self, state: State, host: Host, error: Exception) -> None:  # type: ignore[override]
        """It did not."""
        said = str(error.args[0] if error.args else error)
        self.unreachable[host.name] = Mask(texts(host.data.dict())).in_sentence(said)

    def operation_host_start(self, state: State, host: Host, op_hash: str) -> None:  # type: ignore[override]
        """Tell what is being done to a node."""
        self.emit(StepEvent(name=host.name, step=", ".join(sorted(state.get_op_meta(op_hash).names))))

    def operation_host_success(  # type: ignore[override]
        self, state: State, host: Host, op_hash: str, retry_count: int = 0
    ) -> None:
        """After its last operation, which is the proof, a node is told of at once."""
        if op_hash == host.op_hash_order[-1]:
            self._tell_of(host)


@contextmanager
def _even_without_hosts() -> Iterator[None]:
    """Where the last host fails there is nothing more to do, and that is no error of its own."""
    try:
        yield
    except PyinfraError as error:
        if str(error) != NO_HOSTS:
            raise


def _why_failed(said: Sequence[str]) -> tuple[str, ...]:
    """What refused it, or the lines of the operation that failed."""
    refused = next((number for number, line in enumerate(said) if line.startswith("refused: ")), 0)
    lines = [line.removeprefix("refused: ") for line in said[refused:] if not line.startswith(_PLANNED)]
    return tuple(lines) or ("an operation failed; pyinfra did not say why",)


def _live_while_asked(until: float | None) -> None:
    """End with the process that holds the other end of standard input, or when the time is over that it grants.

    That is the kernel's timer, which kills us whatever we do; each line that comes sets it anew. In a thread of its
    own, because gevent's other work may keep a greenlet from its turn.
    """
    while until is not None and until <= time.monotonic():
        until = _next_grant()  # it took us so long to start that the first one is over
    if until is not None:
        _end_at(until)
    gevent.get_hub().threadpool.spawn(_listen)


def _listen() -> None:
    while True:
        _end_at(_next_grant())


def _next_grant() -> float:
    """The last of those that came, once one has."""
    while said := os.read(0, 4096):
        if lines := said.split():
            return float(lines[-1])
    os._exit(1)


def _end_at(until: float) -> None:
    signal.setitimer(signal.ITIMER_REAL, max(0.001, until - time.monotonic()))  # SIGALRM, whose default is to kill


def main() -> int:
    """Serve one request. The exit code is 0 where all that was asked for was told, whatever it is."""
    outlet, said = Outlet(), Said()
    request = Request.model_validate_json(_first_line())
    _live_while_asked(request.until)
    logger.setLevel(logging.INFO)
    logger.addHandler(said)
    logger.propagate = False
    try:
        Run(request, outlet, said)()
    except (NothingToRun, CliError) as error:
        outlet(Problem(message=str(error) or getattr(error, "message", "")))
        return 1
    outlet(Ended())
    return 0


def _first_line() -> bytes:
    """Byte by byte: the grants that follow are not ours to read."""
    line = bytearray()
    while (byte := os.read(0, 1)) and byte != b"\n":
        line += byte
    return bytes(line)


if __name__ == "__main__":
    sys.path.append(".")  # as pyinfra does, for what an inventory imports
    sys.stderr.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    code = main()
    sys.stderr.flush()
    os._exit(code)  # next_step's advice is for one run; here it is told of all waves at once
