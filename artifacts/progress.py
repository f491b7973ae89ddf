"""What goes to the terminal while downloads or pushes run: one line that is overwritten, and nothing in a pipe."""

from __future__ import annotations

import sys
import threading
import time
from typing import TextIO

__all__ = ["Progress"]

_OFTEN = 0.1
_WIDTH = 16


class Progress:
    """Counts files and bytes; several threads may count. With a size that is to come, it has a bar and a rate."""

    def __init__(
        self, total: int = 0, stream: TextIO | None = None, *, what: str = "assets", draws: bool = True
    ) -> None:
        self._stream = stream or sys.stderr
        self._shown = draws and self._stream.isatty()
        self._what = what
        self._total = total
        self._size = 0
        self._files = 0
        self._bytes = 0
        self._began = 0.0
        self._last = 0.0
        self._lock = threading.Lock()

    def expect(self, size: int) -> None:
        """One file more is to come, of so many bytes."""
        with self._lock:
            self._total += 1
            self._size += size

    def add(self, size: int) -> None:
        """So many bytes more."""
        with self._lock:
            self._began = self._began or time.monotonic()
            self._bytes += size
            if self._shown and time.monotonic() - self._last > _OFTEN:
                self._last = time.monotonic()
                print(f"\r{self.text}\033[K", end="", file=self._stream, flush=True)

    def file(self) -> None:
        """One file more."""
        with self._lock:
            self._files += 1

    @property
    def text(self) -> str:
        """The line."""
        files = f"{self._files}" + (f"/{self._total} {self._what}" if self._total else "")
        if not self._size:
            return f"{files}, {self._bytes >> 20} MB"
        share = min(self._bytes / self._size, 1)
        bar = "#" * int(_WIDTH * share)
        rate = self._bytes / 1e6 / max(time.monotonic() - self._began, 0.001)
        done = f"{self._bytes / 1e6:.0f}/{self._size / 1e6:.0f} MB"
        return f"[{bar:<{_WIDTH}}] {share:4.0%} {done}, {rate:.1f} MB/s, {files}"

    def clear(self) -> None:
        """Leave the line to whatever is printed next."""
        with self._lock:
            if self._shown:
                print("\r\033[K", end="", file=self._stream, flush=True)
