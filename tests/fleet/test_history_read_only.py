"""Looking at a history writes nothing: it works where nothing can be written, and where it is somebody else's."""

from __future__ import annotations

import os
import resource
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from fleet.cli import main
from fleet.history import History
from fleet.records import Record, Status

NOBODY = 65534
COMMANDS = [["history"], ["show", "1"], ["drift", "1", "1"], ["report", "--json", "-"]]


@pytest.fixture
def path() -> Iterator[Path]:
    """A history that everybody may read, with a run in it, in a directory that everybody can get to."""
    with tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, 0o755)
        made = Path(directory) / "history.db"
        history = History(made)
        run = history.begin("plan", "prod", {})
        history.put(run, [Record(name="n1", status=Status.READY, tier="idmapped")])
        history.finish(run, "done", 0)
        history.close()
        made.chmod(0o644)
        yield made


@contextmanager
def nobody_may_write(directory: Path) -> Iterator[None]:
    """As for another user than the directory's; root may always."""
    user = os.geteuid()
    directory.chmod(0o555)
    os.seteuid(user or NOBODY)
    try:
        yield
    finally:
        os.seteuid(user)
        directory.chmod(0o755)


@contextmanager
def full(_: Path) -> Iterator[None]:
    """No file can be made larger."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda words: words[0])
@pytest.mark.parametrize("spoilt", [nobody_may_write, full])
def test_it_is_looked_at_where_nothing_can_be_written(
    path: Path, capsys: pytest.CaptureFixture[str], spoilt: object, command: list[str]
) -> None:
    with spoilt(path.parent):  # type: ignore[operator]
        code = main([*command, "--history", str(path)])
    told = capsys.readouterr()
    assert code == 0, told.err
    assert "prod" in told.out or "no node is otherwise" in told.out


def test_what_only_its_log_has_is_told_or_it_is_not_looked_at(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file without its log is an older history."""
    with closing(sqlite3.connect(path)) as db:
        db.execute("update runs set kind = 'apply'")
        db.commit()
        log = path.with_name("history.db-wal").read_bytes()
    path.with_name("history.db-wal").write_bytes(log)
    with nobody_may_write(path.parent):
        assert main(["history", "--history", str(path)]) == 1
    assert "cannot be opened (unable to open database file)" in capsys.readouterr().err
    assert main(["history", "--history", str(path)]) == 0


def test_one_of_an_older_version_is_read_as_it_is(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute("pragma user_version = 0")
    assert main(["show", "1", "--history", str(path)]) == 0
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("pragma user_version").fetchone() == (0,)


def test_a_run_that_goes_on_is_seen_to(path: Path) -> None:
    writer = History(path)
    run = writer.begin("plan", "prod", {})
    reader = History(path, reads=True)
    assert reader.run(run).goes_on
    writer.finish(run, "done", 0)
    assert reader.run(run).outcome == "done"
    reader.close()
    writer.close()


def test_where_there_is_none_none_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("USERNS_NODE_HISTORY", str(tmp_path / "state/history.db"))
    assert main(["history"]) == 0
    assert capsys.readouterr().out == "no run yet\n"
    assert not (tmp_path / "state").exists()
