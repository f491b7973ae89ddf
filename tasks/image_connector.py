"""The connector `@image/PATH`: a root directory that will boot later, which this machine only writes to.

pyinfra's own `@chroot` is no way to an image that one does not know: it copies files on the build host's side, so that
an absolute link in the image leads to the build host's file, and what it runs sees the build host's kernel. Here every
command, and every file that is put, goes through `image_enter.py`. `register` gives `@chroot` the same class.
"""

from __future__ import annotations

import os
import sys
from base64 import b64decode
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint
from typing import Any

import gevent
from pyinfra.api import QuoteString, StringCommand, connectors
from pyinfra.api.exceptions import ConnectError, InventoryError
from pyinfra.api.host import Host
from pyinfra.api.state import State
from pyinfra.api.util import get_file_io
from pyinfra.connectors.base import BaseConnector
from pyinfra.connectors.local import LocalConnector
from pyinfra.connectors.util import CommandOutput, extract_control_arguments, make_unix_command_for_host

from tasks import image_leash
from tasks.files import ROOT
from tasks.image_tree import refuse_epoch, refuse_unfit, take
from tasks.node import READ_SECONDS, asked

ENTER = ROOT / "tasks" / "image_enter.py"
NAMES = ("image", "chroot")
_entry_points = connectors.entry_points
# Whether what comes first after the connection is this project's deploy, which asks for the whole tree.
_deploys = False

Outcome = tuple[bool, CommandOutput] | Exception


def register(*, deploys: bool = False) -> None:
    """Make pyinfra know the connector: this project is no package that a Python was told of.

    pyinfra asks for all connectors for each host whose name begins with "@", and Python reads what every installed
    package says of itself each time: with many such hosts most of the time went there. `deploys`: the run begins with
    this project's deploy.py.
    """
    global _deploys
    _deploys = deploys

    @cache
    def with_ours(*, group: str) -> Any:
        found: Any = _entry_points(group=group)  # Python's own, or those of its backport where that is installed
        if group != "pyinfra.connectors":
            return found
        ours = (EntryPoint(name, f"{__name__}:{name.title()}Connector", group) for name in NAMES)
        return [*found, *ours]  # a later one takes the place of an earlier one of its name

    connectors.entry_points = with_ours  # type: ignore[assignment, unused-ignore]
    connectors._load_connector = cache(connectors._load_connector)


class ImageConnector(BaseConnector):
    """Runs commands inside an image, and never on the build host."""

    handles_execution = True
    name = "image"

    def __init__(self, state: State, host: Host) -> None:
        super().__init__(state, host)
        self.local = LocalConnector(state, host)
        self._lock: int | None = None
        self._ahead: tuple[str, gevent.Greenlet[Any, Outcome]] | None = None

    @classmethod
    def make_names_data(cls, name: str | None = None) -> Iterator[tuple[str, dict[str, Any], list[str]]]:
        """One image, by the path of its root directory."""
        if not name or not name.startswith("/"):
            raise InventoryError(
                f"@{cls.name}/{name or ''}: write the absolute path of an image's root: @image//a/root"
            )
        yield f"@{cls.name}/{name}", {"image_root": name}, ["@image"]

    @property
    def root(self) -> str:
        """The image's root directory, without links in its path."""
        return os.path.realpath(str(self.host.data.image_root))

    def connect(self) -> None:
        """Look at the tree from outside and try a command in it, changing nothing. ConnectError says what is wrong."""
        named = str(self.host.data.image_root)
        refuse_epoch(os.environ.get("SOURCE_DATE_EPOCH", ""))
        refuse_unfit(self.root, named)
        self._lock = take(self.root, named)
        try:
            trial = self._begin(StringCommand("sh", "-c", ":"))
            if _deploys:
                import_module("tasks.assess")  # what comes next takes as long
            entered, output = _result(trial)
            if not entered:
                raise ConnectError(f"{named}: {output.stderr or 'its shell does not run'}")
            if _deploys and len(self.state.inventory) == 1:  # more are read as many at a time as was asked for
                self._read_ahead()
        except BaseException:
            self.disconnect()
            raise

    def _read_ahead(self) -> None:
        """Begin to read the tree: a deploy asks for that first, and until it does Python loads what decides.

        Reading takes as long as loading, a quarter of a second, and is another process's work.
        """
        command = self._for_a_shell(asked(self.host.data.dict()))
        self._ahead = command.get_raw_value(), self._begin(command, _timeout=READ_SECONDS)

    def _begin(self, command: StringCommand, **arguments: Any) -> gevent.Greenlet[Any, Outcome]:
        def outcome() -> Outcome:
            try:
                return self._inside(command, **arguments)
            except Exception as error:  # for whoever asks for it, and for nobody else
                return error

        begun = gevent.spawn(outcome)
        gevent.sleep(0)  # now
        return begun

    def disconnect(self) -> None:
        """Let another run have the image."""
        self._ahead = None  # it ends by itself, and changes nothing
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def run_shell_command(
        self, command: StringCommand, print_output: bool = False, print_input: bool = False, **arguments: Any
    ) -> tuple[bool, CommandOutput]:
        """Run a command inside the image, as its root: who pyinfra was told to become is not asked for."""
        control = extract_control_arguments(arguments)  # type: ignore[arg-type]
        unix_command = self._for_a_shell(command, **arguments)
        ahead, self._ahead = self._ahead, None
        if ahead and ahead[0] == unix_command.get_raw_value() and not (print_output or print_input):
            return _result(ahead[1])
        return self._inside(unix_command, print_output=print_output, print_input=print_input, **control)

    def _for_a_shell(self, command: StringCommand, **arguments: Any) -> StringCommand:
        kept = {key: arguments[key] for key in ("_env", "_chdir", "_shell_executable") if key in arguments}
        return make_unix_command_for_host(self.state, self.host, command, **kept)

    def _inside(self, command: StringCommand, **arguments: Any) -> tuple[bool, CommandOutput]:
        words = StringCommand(*self._enter(), "sh", "-c", QuoteString(command))
        if seconds := arguments.get("_timeout"):
            words = StringCommand("timeout", "-k", "5", str(seconds), *words.bits)  # pyinfra only stops listening
        done, output = self.local.run_shell_command(words, **arguments)
        return done, output

    def _enter(self) -> tuple[str | QuoteString, ...]:
        return QuoteString(sys.executable), "-IS", QuoteString(str(ENTER)), image_leash.word(), QuoteString(self.root)

    def push(self, path: str, target: str) -> None:
        """Copy a file of the build host into the image, at a path there. Raises OSError where that fails."""
        self._feed(StringCommand("cat", ">", QuoteString(target)), path)

    def feed(self, command: str, content: bytes) -> None:
        """Run a shell command inside the image with `content` as its standard input. Raises OSError where it fails."""
        # In memory: it may hold a password, and who is killed removes no file.
        with os.fdopen(os.memfd_create("userns-node"), "wb") as spool:
            spool.write(content)
            spool.flush()
            self._feed(StringCommand(command), f"/proc/{os.getpid()}/fd/{spool.fileno()}")

    def _feed(self, command: StringCommand, path: str) -> None:
        self._ahead = None  # it is old from here on
        words = StringCommand(*self._enter(), "sh", "-c", QuoteString(command), "<", QuoteString(path))
        done, output = self.local.run_shell_command(words)
        if not done:
            raise OSError(output.stderr)

    def put_file(
        self,
        filename_or_io: Any,
        remote_filename: str,
        remote_temp_filename: str | None = None,
        print_output: bool = False,
        print_input: bool = False,
        **arguments: Any,
    ) -> bool:
        """Write a file inside the image, where a link leads to what it names inside the image."""
        with get_file_io(filename_or_io) as file:
            content = file.read()
        data = content.encode() if isinstance(content, str) else content
        self.feed(str(StringCommand("cat", ">", QuoteString(remote_filename))), data)
        return True

    def get_file(
        self,
        remote_filename: str,
        filename_or_io: Any,
        remote_temp_filename: str | None = None,
        print_output: bool = False,
        print_input: bool = False,
        **arguments: Any,
    ) -> bool:
        """Read a file of the image."""
        done, output = self._inside(StringCommand("base64", QuoteString(remote_filename)))
        if not done:
            raise OSError(output.stderr)
        with get_file_io(filename_or_io, "wb") as file:
            file.write(b64decode(output.stdout))
        return True


def _result(begun: gevent.Greenlet[Any, Outcome]) -> tuple[bool, CommandOutput]:
    outcome: Outcome = begun.get()
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


class ChrootConnector(ImageConnector):
    """pyinfra's name for the same thing, made as safe: `pyinfra @chroot//a/root deploy.py`."""

    name = "chroot"

    @classmethod
    def make_names_data(cls, name: str | None = None) -> Iterator[tuple[str, dict[str, Any], list[str]]]:
        """As pyinfra takes it: the path may lack its first slash."""
        yield from super().make_names_data(f"/{name.lstrip('/')}" if name else None)
