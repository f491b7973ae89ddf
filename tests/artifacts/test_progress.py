"""The line of progress."""

from __future__ import annotations

import io

from artifacts.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_sees_one_line_that_goes_away() -> None:
    terminal = Terminal()
    progress = Progress(9, terminal)
    progress.file()
    progress.add(5 << 20)
    progress.clear()
    assert terminal.getvalue() == "\r1/9 assets, 5 MB\033[K\r\033[K"


def test_a_pipe_sees_nothing() -> None:
    pipe = io.StringIO()
    progress = Progress(9, pipe)
    progress.add(1)
    progress.clear()
    assert pipe.getvalue() == ""
