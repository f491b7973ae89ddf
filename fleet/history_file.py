"""The history's file, opened by who only looks: also on a file system that is full, read-only, or somebody else's."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from urllib.parse import quote

from sqlite_utils import Database

__all__ = ["read"]

# SQLite cannot make, or make larger, the file by which those who have the history open share its log's index.
_WITHOUT_INDEX = {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY}


def read(path: Path) -> Database:
    """The file, of which nothing is written; an empty history where there is none. Raises sqlite3.Error."""
    if not path.exists():
        return Database(memory=True)
    try:
        return _opened(path, "mode=ro")
    except sqlite3.OperationalError as error:
        log = path.with_name(f"{path.name}-wal")
        # Without the index nothing is read of the log: where it has something, that would be an older history.
        if error.sqlite_errorcode & 0xFF not in _WITHOUT_INDEX or (log.exists() and log.stat().st_size):
            raise
    return _opened(path, "immutable=1")


def _opened(path: Path, how: str) -> Database:
    connection = sqlite3.connect(f"file://{quote(os.path.abspath(path))}?{how}", uri=True)
    try:
        connection.execute("select * from sqlite_master limit 1").fetchone()
    except sqlite3.Error:
        connection.close()
        raise
    return Database(connection)
