"""Tests that send signals do so under nohup, too, where all that is started ignores a hang-up."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator

import pytest


@pytest.fixture
def as_under_nohup() -> Iterator[None]:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    yield
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN  # the run itself goes on ignoring it
    signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("as_under_nohup", "signals_are_heard")
def test_a_shell_can_trap_what_this_run_ignores() -> None:
    script = 'trap "exit 7" HUP; kill -HUP $$; exit 0'
    assert subprocess.run(["sh", "-c", script], check=False).returncode == 7
