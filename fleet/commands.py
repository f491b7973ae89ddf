"""The operator's own commands around a change: they have a limit, and end with all that they began."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from threading import Lock

__all__ = ["Commands"]


class Commands:
    """Commands that may run side by side, in threads; once somebody has `left`, none runs, and none is begun."""

    def __init__(self) -> None:
        self._running: set[subprocess.Popen[str]] = set()
        self.left = False
        self._lock = Lock()

    def run(self, argv: Sequence[str], seconds: float, more: Mapping[str, str] | None = None) -> tuple[str, str]:
        """What a command printed, and why it failed, or "". `more` is added to its environment."""
        try:
            process = self._begin(argv, more or {})
        except FileNotFoundError:
            return "", f"there is no program {argv[0]}"
        except OSError as error:
            return "", f"{argv[0]} could not be run: {error.strerror}"
        if process is None:
            return "", f"{argv[0]} was not begun: somebody has left this run"
        with process:
            try:
                stdout, stderr = process.communicate(timeout=seconds)
            except BaseException as error:
                _end(process)
                if isinstance(error, subprocess.TimeoutExpired):
                    return "", f"no end within {seconds:.0f} s"
                raise
            finally:
                self._running.discard(process)
        if process.returncode:
            return stdout, "; ".join(_lines(stderr or stdout)) or f"exit code {process.returncode}"
        return stdout, ""

    def leave(self) -> None:
        """End what runs."""
        with self._lock:
            self.left = True
            for process in list(self._running):
                _end(process)

    def _begin(self, argv: Sequence[str], more: Mapping[str, str]) -> subprocess.Popen[str] | None:
        with self._lock:
            if self.left:
                return None
            process = subprocess.Popen(
                argv,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                stdin=subprocess.DEVNULL,
                env={**os.environ, **more},
                start_new_session=True,
            )
            self._running.add(process)
            return process


def _end(process: subprocess.Popen[str]) -> None:
    # All of it: what a shell has begun would go on draining. The number is its own until somebody has waited for it.
    if process.returncode is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def _lines(text: str) -> list[str]:
    return list(dict.fromkeys(line.strip() for line in text.splitlines() if line.strip()))
