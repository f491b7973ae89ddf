"""What goes to the terminal while downloads run: one line that is overwritten, and nothing in a pipe."""

from __future__ import annotations

import sys
import threading
import time
from typing import TextIO

__all__ = ["Progress"]

_OFTEN = 0.1


class Progress:
    """Counts files and bytes; several threads may count."""

    def __init__(self, total: int = 0, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._shown = self._stream.isatty()
        self._total = total
        self._files = 0
        self._bytes = 0
        self._last = 0.0
        self._lock = threading.Lock()

    def add(self, size: int) -> None:
        """So many bytes more."""
        with self._lock:
            self._bytes += size
            if self._shown and time.monotonic() - self._last > _OFTEN:
                self._last = time.monotonic()
                of = f"/{self._total} assets" if self._total else ""
                print(f"\r{self._files}{of}, {self._bytes >> 20} MB\033[K", end="", file=self._stream, flush=True)

    def file(self) -> None:
        """One file more."""
        with self._lock:
            self._files += 1

    def clear(self) -> None:
        """Leave the line to whatever is printed next."""
        with self._lock:
            if self._shown:
                print("\r\033[K", end="", file=self._stream, flush=True)
