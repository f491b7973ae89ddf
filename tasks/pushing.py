"""Pushing an asset out of the controller's bundle to a node, over the connection that is there anyway."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

import gevent
from gevent.event import Event
from pyinfra import progress
from pyinfra.api import Host, State, StringCommand
from pyinfra.connectors.util import CommandOutput, OutputLine

from artifacts.bundlefile import BundleFile
from artifacts.progress import Progress
from userns.bundles import Bundled

# A node that takes nothing for so long is gone.
STALLED_SECONDS = 120
# For its verifying and unpacking, once it has all.
UNPACK_SECONDS = 600


def su_reads_stdin(arguments: Mapping[str, Any]) -> bool:
    """Whether pyinfra's global arguments leave nothing of a command's standard input to the command."""
    return bool(arguments.get("_su_user") and arguments.get("_su_password"))


class PushCommand(StringCommand):
    """Runs a command with an asset as its standard input.

    Not pyinfra's upload: that goes through a file of the login user's in /tmp wherever sudo is used, and what a cut
    connection leaves there, nobody removes.
    """

    def __init__(self, command: StringCommand, file: BundleFile, asset: Bundled) -> None:
        super().__init__(*command.bits)
        self.file = file
        self.asset = asset

    def execute(self, state: State, host: Host, connector_arguments: Any) -> tuple[bool, CommandOutput]:
        """Run it. A TimeoutError or an OSError is how pyinfra learns that a connection is no good."""
        if su_reads_stdin(connector_arguments):
            why = "an asset cannot be pushed through su with a password, which takes its standard input: use _sudo"
            return False, CommandOutput([OutputLine("stderr", why)])
        pieces = Pieces(self.file, self.asset, shown.progress.add)
        # A terminal in between would change bytes.
        arguments = {**connector_arguments, "_stdin": pieces, "_get_pty": False, "_timeout": UNPACK_SECONDS}
        try:
            with shown.one(pieces):
                status, output = host.run_shell_command(
                    self, print_output=state.print_output, print_input=state.print_input, **arguments
                )
        except gevent.Timeout as timeout:
            if timeout is not pieces.timer:
                raise
            raise OSError(f"the node took nothing of {self.asset} for {STALLED_SECONDS} s") from timeout
        finally:
            pieces.timer.close()
        if status:
            shown.progress.file()
        return bool(status), output


class Pieces(list["Piece"]):
    """An asset as what pyinfra takes for lines of text (connectors.util.write_stdin), read when they are written."""

    def __init__(self, file: BundleFile, asset: Bundled, seen: Callable[[int], None]) -> None:
        super().__init__()
        self.timer = gevent.Timeout(STALLED_SECONDS)
        self.sent = 0
        self._content = file.pieces(asset)
        self._seen = seen

    def __bool__(self) -> bool:
        return True

    def __iter__(self) -> Iterator[Piece]:
        for content in self._content:
            self.timer.cancel()
            self.timer.start()
            yield Piece(content)
            self.sent += len(content)
            self._seen(len(content))
        self.timer.cancel()


class Piece:
    """Bytes that look like a line of text to pyinfra."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def endswith(self, _end: str) -> bool:
        """No end of line is to be added."""
        return True

    def encode(self) -> bytes:
        """The bytes as they are."""
        return self._content


class Pushes:
    """What is being pushed to all hosts of this run, on one line of a terminal."""

    def __init__(self) -> None:
        # Where pyinfra has its own line on the terminal, that line shows it.
        self.progress = Progress(what="assets pushed", draws=not progress.IS_TTY)
        self._running = 0

    @contextmanager
    def one(self, pieces: Pieces) -> Iterator[None]:
        """One of them goes on inside. What was sent in vain does not count."""
        self._running += 1
        try:
            yield
        except BaseException:
            self.progress.add(-pieces.sent)
            raise
        finally:
            self._running -= 1
            if not self._running:
                self.progress.clear()

    @property
    def text(self) -> str:
        """The line, or nothing where nothing is being pushed."""
        return self.progress.text if self._running else ""


shown = Pushes()


class _Line:
    """What pyinfra's spinner reads its text from."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._texts = texts

    def __getitem__(self, number: int) -> str:
        return shown.text or self._texts[number]


_spin: Callable[[Event, Sequence[str]], None] = progress._print_spinner


def install() -> None:
    """Show the line of what is being pushed in the place of pyinfra's spinner, for this process."""

    def spin_with_bar(stop: Event, texts: Sequence[str]) -> None:
        _spin(stop, cast("Sequence[str]", _Line(texts)))

    progress._print_spinner = spin_with_bar
