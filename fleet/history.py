"""The history: every run and what became of each node, in one SQLite file.

What happens is written down as it happens, each in a transaction of its own, so that a run that breaks off leaves all
that it knew. Each run has rows of its own; several may write at once.
"""

from __future__ import annotations

import getpass
import json
import os
import re
import socket
import sqlite3
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

from sqlite_utils import Database
from sqlite_utils.db import NotFoundError

from fleet import history_file
from fleet.checkout import inputs
from fleet.outcome import BROKEN_OFF, ENDED_BY_HAND
from fleet.records import Record, Status
from fleet.run import Run
from fleet.run_locks import Locks, process
from fleet.seal import SEAL, seal
from userns.commit import commit

__all__ = ["CannotEnd", "History", "NoSuchRun", "absolute", "default_path"]

# Another run's transaction takes milliseconds; a slow disk may make it more.
BUSY_SECONDS = 60
# Of the tables, in the file itself: a later one may hold what is not known here.
_VERSION = 1
_SCHEMA = """
create table if not exists runs (
    id integer primary key, kind text not null, inventory text not null, inputs text not null, commit_id text not null,
    user text not null, host text not null, process text not null, options text not null,
    started text not null, ended text, outcome text, exit_code integer
);
create table if not exists bodies (digest text primary key, body text not null);
create table if not exists nodes (
    run integer not null references runs (id), name text not null, position integer not null, status text not null,
    wave integer, at text not null, groups text not null, reasons text not null, proof text not null,
    body text not null references bodies (digest), primary key (run, name)
);
create index if not exists runs_by_inventory on runs (inventory, kind);
"""
# Whether anything is known of a run's nodes: before they are read they are written down as waiting, with no tier.
_HAS_READ = """
select exists (
    select 1 from nodes join bodies on bodies.digest = nodes.body
    where run = ? and (status != 'waiting' or json_extract(bodies.body, '$.tier') != '')
)
"""
# What runs of apply know of nodes: one that ended before a node's turn knows nothing of it.
_KNOWING = """
with drained as (select digest from bodies where json_extract(body, '$.drained'))
select name, run, body in drained as is_drained from nodes join runs on runs.id = run
where kind = 'apply' and inventory = ? and (status not in ('waiting', 'changes') or body in drained)
"""
# What differs from node to node and from run to run; the rest of a record, its body, is stored once for all of it.
_OWN = {"name", "status", "groups", "reasons", "proof"}


class NoSuchRun(Exception):
    """There is no run of this number, or none that would do."""


class CannotEnd(Exception):
    """A run cannot be marked as ended, and why."""


class History:
    """The file, opened."""

    def __init__(self, path: Path, *, reads: bool = False) -> None:
        """Where it only `reads`, nothing is made or written; one that is not there yet is empty."""
        self.path = path
        if not reads:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch(mode=0o600)
        self._locks = Locks(path.with_name(f"{path.name}.lock"), None if reads else path.stat().st_mode & 0o777)
        self._db = history_file.read(path) if reads else Database(path)
        self._db.conn.execute(f"pragma busy_timeout = {BUSY_SECONDS * 1000}")
        if (written := self._db.conn.execute("pragma user_version").fetchone()[0]) > _VERSION:
            self.close()
            raise sqlite3.DatabaseError(f"it was written by a newer userns-node (version {written} of its tables)")
        if not reads:
            self._db.enable_wal()
        if written < _VERSION and (not reads or self._db.memory):
            self._db.conn.executescript(f"{_SCHEMA}; pragma user_version = {_VERSION};")

    def close(self) -> None:
        """Close the file. The runs that were begun here live no longer."""
        self._db.close()
        self._locks.close()

    # --- writing -------------------------------------------------------------------------------------------------

    def begin(
        self, kind: str, inventory: str, options: Mapping[str, Any], data: Mapping[str, object] | None = None
    ) -> int:
        """A new run, and its number. Of its --data only a seal is kept."""
        row = {
            "kind": kind,
            "inventory": absolute(inventory),
            "inputs": inputs(inventory),
            "commit_id": commit(),
            "user": _user(),
            "host": socket.gethostname(),
            "process": process(os.getpid()),
            "options": json.dumps({**options, SEAL: seal(data or {})}),
            "started": _now(),
        }
        with self._db.conn:
            run = int(self._db.table("runs").insert(row).last_pk)  # type: ignore[arg-type]
        self._locks.hold(run)
        return run

    def put(self, run: int, records: Iterable[Record]) -> None:
        """The nodes of a run in its order, with what is known of them now. What was known before is replaced."""
        bodies, rows = {}, []
        for position, record in enumerate(records):
            body, columns = _stored(record)
            bodies[body["digest"]] = body
            rows.append({"run": run, "name": record.name, "position": position, "wave": None, **columns})
        with self._transaction():
            self._keep(bodies.values())
            self._db.table("nodes").insert_all(rows, pk=("run", "name"), replace=True)

    def settle(self, run: int, record: Record, wave: int) -> None:
        """What became of a node of the run in its wave. It keeps its place in the order."""
        body, columns = _stored(record)
        with self._transaction():
            self._keep([body])
            self._db.table("nodes").update((run, record.name), {"wave": wave, **columns})

    def in_flight(self, run: int, names: Iterable[str], wave: int) -> None:
        """These nodes are being changed: from now on, until more is known, nobody knows what they are."""
        with self._db.conn:
            self._db.conn.executemany(
                "update nodes set status = ?, wave = ?, at = ? where run = ? and name = ?",
                [(str(Status.UNKNOWN), wave, _now(), run, name) for name in names],
            )

    def finish(self, run: int, outcome: str, exit_code: int) -> None:
        """The run has ended."""
        with self._db.conn:
            self._db.table("runs").update(run, {"ended": _now(), "outcome": outcome, "exit_code": exit_code})

    def end(self, number: int) -> Run:
        """Mark a run as ended that did not say so itself. Where it lives after all, it says more when it ends.

        Raises NoSuchRun, and CannotEnd where it has ended, or its process lives on this host.
        """
        run, here = self.run(number), socket.gethostname()
        if run.goes_on and run.host == here:
            raise CannotEnd(f"run {number} goes on, and its process lives on this host: stop that")
        was = "going on, as far as could be seen" if run.goes_on else run.outcome
        row = {"ended": _now(), "outcome": f"{ENDED_BY_HAND} by {_user()} on {here}, it was {was}", "exit_code": 1}
        with self._db.conn:
            changed = self._db.conn.execute(
                "update runs set ended = :ended, outcome = :outcome, exit_code = :exit_code "
                "where id = :id and outcome is null",
                row | {"id": number},
            )
        run = self.run(number)
        if not changed.rowcount:
            raise CannotEnd(f"run {number} has ended: {run.outcome}")
        return run

    def forget(self, runs: Iterable[int]) -> None:
        """Leave these runs out, with what became of their nodes, and make the file smaller by that."""
        with self._db.conn:
            for run in runs:
                self._db.conn.execute("delete from nodes where run = ?", [run])
                self._db.conn.execute("delete from runs where id = ?", [run])
            self._db.conn.execute("delete from bodies where digest not in (select body from nodes)")
        with suppress(sqlite3.OperationalError):  # somebody else is at it: the next time
            self._db.conn.execute("vacuum")

    # --- reading -------------------------------------------------------------------------------------------------

    def runs(self, inventory: str | None = None, kind: str | None = None, count: int = -1) -> Iterator[Run]:
        """The runs, the latest first. The nodes of a run are counted when it is asked for."""
        where, values = ["1"], []
        for column, value in (("inventory", inventory and absolute(inventory)), ("kind", kind)):
            if value:
                where.append(f"{column} = ?")
                values.append(value)
        found = self._db.table("runs").rows_where(" and ".join(where), values, order_by="id desc", limit=count)
        return map(self._run, [*found])  # all rows at once: no transaction is left open

    def run(self, number: int) -> Run:
        """The run of this number. Raises NoSuchRun."""
        try:
            return self._run(self._db.table("runs").get(number))
        except NotFoundError:
            raise NoSuchRun(f"there is no run {number} in {self.path}") from None

    def records(self, run: int) -> list[Record]:
        """What became of its nodes, in its order."""
        rows = self._db.query(
            "select nodes.*, bodies.body as text from nodes join bodies on bodies.digest = nodes.body "
            "where run = ? order by position",
            [run],
        )
        return [
            Record(
                name=row["name"],
                status=Status(row["status"]),
                groups=tuple(json.loads(row["groups"])),
                reasons=tuple(json.loads(row["reasons"])),
                proof=tuple(json.loads(row["proof"])),
                **json.loads(row["text"]),
            )
            for row in rows
        ]

    def names(self, run: int) -> set[str]:
        """Whom it is over, as far as it had come to know that."""
        return {row["name"] for row in self._db.query("select name from nodes where run = ?", [run])}

    def waves(self, run: int) -> dict[str, int]:
        """The wave of each node that had its turn."""
        return {row["name"]: row["wave"] for row in self._turns(run)}

    def settled(self, run: int) -> dict[str, str]:
        """When it was last written down what became of each node that had its turn."""
        return {row["name"]: row["at"] for row in self._turns(run)}

    def _turns(self, run: int) -> Iterator[dict[str, Any]]:
        return self._db.query("select name, wave, at from nodes where run = ? and wave is not null", [run])

    def still_at_it(self, run: Run) -> list[Run]:
        """The rollouts over its inventory that began before it, and that a node had its turn in when it had begun."""
        rows = self._db.query(
            "select distinct run from nodes join runs on runs.id = run "
            "where kind = 'apply' and inventory = ? and run < ? and wave is not null and at > ? order by run desc",
            [run.inventory, run.id, run.span[0]],
        )
        return [self.run(row["run"]) for row in [*rows]]

    def drained(self, inventory: str) -> dict[str, int]:
        """The nodes that apply has drained and not given back, each with the run that knows: the latest that had it."""
        return {name: run for name, (run, is_drained) in self._last_known(inventory).items() if is_drained}

    def drained_elsewhere(self, inventory: str) -> dict[str, Run]:
        """The same of all other inventories, but for what is older than an apply that had a node of that name here."""
        here = self._last_known(inventory)
        others = self._db.query("select distinct inventory from runs where inventory != ?", [absolute(inventory)])
        found = dict[str, int]()
        for other in [each["inventory"] for each in others]:
            for name, run in self.drained(other).items():
                if run > max(found.get(name, 0), here.get(name, (0,))[0]):
                    found[name] = run
        return {name: self.run(run) for name, run in found.items()}

    def _last_known(self, inventory: str) -> dict[str, tuple[int, bool]]:
        """Of each node the latest apply that knows of it, and whether it is drained there."""
        rows = self._db.query(
            f"select name, max(run) as run, is_drained from ({_KNOWING}) group by name", [absolute(inventory)]
        )
        return {row["name"]: (row["run"], bool(row["is_drained"])) for row in rows}

    def last_words(self, inventory: str, runs: Collection[int]) -> set[int]:
        """The runs to keep with these: for each node that one of them drained, the latest that mentions it.

        Where a node was given back since, that run alone says so: without it the node would count as drained for ever.
        """
        claimed, latest = set[str](), dict[str, int]()
        for row in self._db.query(f"{_KNOWING} order by run", [absolute(inventory)]):
            latest[row["name"]] = row["run"]
            if row["is_drained"] and row["run"] in runs:
                claimed.add(row["name"])
        return {latest[name] for name in claimed}

    def going_on(self, kind: str) -> list[Run]:
        """The runs of this kind that have not ended, as far as can be seen from here."""
        unfinished = self._db.table("runs").rows_where("kind = ? and outcome is null", [kind], order_by="id desc")
        return [each for each in map(self._run, [*unfinished]) if each.goes_on]

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """All or nothing of what is written in it. sqlite-utils by itself commits each hundred rows.

        Immediate: one that reads first fails at once where another one writes.
        """
        self._db.conn.execute("begin immediate")
        try:
            yield
            self._db.conn.commit()
        except BaseException:
            self._db.conn.rollback()
            raise

    def _lives(self, row: Mapping[str, Any]) -> bool:
        return self._locks.is_alive(row["id"], row["host"], row["process"])

    def _keep(self, bodies: Iterable[dict[str, Any]]) -> None:
        self._db.table("bodies").insert_all(bodies, pk="digest", ignore=True)

    def _run(self, row: Mapping[str, Any]) -> Run:
        counted = self._db.query("select status, count(*) as n from nodes where run = ? group by status", [row["id"]])
        [(has_read,)] = self._db.conn.execute(_HAS_READ, [row["id"]])
        return Run(
            id=row["id"],
            kind=row["kind"],
            inventory=row["inventory"],
            inputs=row["inputs"],
            commit=row["commit_id"],
            user=row["user"],
            host=row["host"],
            options=json.loads(row["options"]),
            started=_to_the_second(row["started"]),
            ended=_to_the_second(row["ended"] or ""),
            span=(row["started"], row["ended"] or ""),
            outcome=row["outcome"] or ("" if self._lives(row) else BROKEN_OFF),
            exit_code=row["exit_code"],
            totals={each["status"]: each["n"] for each in counted},
            has_read=bool(has_read),
        )


def _stored(record: Record) -> tuple[dict[str, Any], Mapping[str, Any]]:
    """A record as the row of its body, and the columns of a node's row that say what became of it."""
    body = record.model_dump_json(exclude={*_OWN, "diffs"})
    digest = sha256(body.encode()).hexdigest()[:32]
    columns = {
        "status": str(record.status),
        "at": _now(),
        "groups": json.dumps(record.groups),
        "reasons": json.dumps(record.reasons),
        "proof": json.dumps(record.proof),
        "body": digest,
    }
    return {"digest": digest, "body": body}, columns


def default_path() -> Path:
    """Where the history is, where nobody says otherwise. Raises RuntimeError where nobody has a home."""
    if named := os.environ.get("USERNS_NODE_HISTORY"):
        return Path(named)
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "userns-node" / "history.db"


def _user() -> str:
    try:
        return os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):  # as in a container with a user id that nobody gave a name
        return str(os.getuid())


def absolute(inventory: str) -> str:
    """An inventory as the history names it: a link keeps its name, which may lead to another release tomorrow."""
    # Not by Path: hosts with commas may be longer than a file's name can be, which is an error there.
    return os.path.abspath(inventory) if os.path.exists(inventory) else inventory


def _to_the_second(time: str) -> str:
    return re.sub(r"\.\d+", "", time)


def _now() -> str:
    """As text it can be compared, also with the whole seconds that older histories have."""
    return datetime.now(UTC).isoformat(timespec="microseconds")
