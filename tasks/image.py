"""Images: what a deploy does for a root directory that boots later, in the place of what it does on a node that runs.

Everything is fetched and unpacked on the build host, and pushed: nothing in an image reaches the network. The change
itself is the node's own (activate.sh), with the steps left out that start something.
"""

from __future__ import annotations

import atexit
import shlex
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
from gevent.lock import RLock
from pyinfra import logger
from pyinfra.api import HiddenValue, Host, QuoteString, State, StringCommand, operation
from pyinfra.api.command import PyinfraCommand
from pyinfra.api.exceptions import PyinfraError
from pyinfra.context import ctx_host

from tasks import operations
from tasks.files import base64, run, script
from tasks.hiding import hidden
from tasks.image_connector import ImageConnector
from tasks.refusal import contained, refuse
from tasks.telling import WarningCommand
from userns.settings import mask

SEAL_SECONDS = 300
# What seal.sh is made of beside itself.
SEALING = ("running.sh",)
# The node's own, with what an image answers in the place of a running system between.
ACTIVATION = (operations.ACTIVATION[0], "image.sh", *operations.ACTIVATION[1:])
# Fetched once for all images of a run, by digest; a directory that the run takes with it.
_downloads: dict[str, Path] = {}
_fetching = RLock()


class BuildHostCommand(PyinfraCommand):
    """A function that works on the build host and in the image. Where it raises PyinfraError, that is told once.

    pyinfra's FunctionCommand would tell it as a traceback, and then as the error's `repr`.
    """

    def __init__(self, function: Callable[..., None], *arguments: object) -> None:
        super().__init__()
        self._function, self._arguments = function, arguments

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._function.__name__})"

    def execute(self, state: State, host: Host, connector_arguments: Any) -> bool:
        """Call it. Whether it succeeded."""
        try:
            self._function(*self._arguments)
        except PyinfraError as error:
            for line in str(error).splitlines():
                logger.error(f"{host.print_prefix}{click.style(line, fg='red')}")
            return False
        return True


@operation()
def fetch(
    stage: str, url: str, sha256: str, programs: Mapping[str, str], proxy: str | None = None
) -> Generator[BuildHostCommand, None, None]:
    """Fetch a release asset on the build host, verified as on a node, and push its programs into the image's stage."""
    yield BuildHostCommand(_fetch_and_push, stage, url, sha256, programs, proxy)


def _fetch_and_push(stage: str, url: str, sha256: str, programs: Mapping[str, str], proxy: str | None) -> None:
    connector, directory = _connector(), QuoteString(stage)
    try:
        with _fetching:
            if sha256 not in _downloads:
                _downloads[sha256] = _fetch(connector, url, sha256, programs, proxy)
        made, output = connector.run_shell_command(StringCommand("umask", "077", "&&", "mkdir", "-p", directory))
        if not made:
            raise OSError(output.stderr)
        for name in programs.values():
            connector.push(str(_downloads[sha256] / name), f"{stage}/{name}")
    except (OSError, PyinfraError) as error:  # the stage may have the programs of another asset
        _abandon(connector, stage)
        if isinstance(error, PyinfraError):
            raise
        raise PyinfraError(f"the programs could not be written into the image: {error}") from error


def _abandon(connector: ImageConnector, stage: str) -> None:
    """Leave nothing of this run in the image, nor a directory that it made."""
    staged, state = (QuoteString(str(above)) for above in list(Path(stage).parents)[:2])
    connector.run_shell_command(StringCommand("rm", "-rf", QuoteString(stage), "&&", "rmdir", staged, state))


def _fetch(connector: ImageConnector, url: str, sha256: str, programs: Mapping[str, str], proxy: str | None) -> Path:
    home = TemporaryDirectory(prefix="userns-node-")
    atexit.register(home.cleanup)
    into = Path(home.name) / "fetched" / sha256
    members = [f"{member}={name}" for member, name in programs.items()]
    command = run("fetch.sh", str(into), mask(hidden(url)), sha256, *members, parts=operations.UNPACK)
    fetched, output = connector.local.run_shell_command(command, _stdin=operations.asked(url, proxy))
    if not fetched:
        raise PyinfraError("on this build host: " + "\n".join(dict.fromkeys(output.stderr_lines)))
    return into


@operation()
def put(stage: str, texts: Mapping[str, str]) -> Generator[BuildHostCommand, None, None]:
    """Lay texts into the stage, by their names there, in one command: no limit on an argument's length applies."""
    yield BuildHostCommand(_put, stage, texts)


def _put(stage: str, texts: Mapping[str, str]) -> None:
    directory = shlex.quote(stage)
    lines = ["set -e", "umask 077", f"mkdir -p {directory}"]
    lines += [f"printf %s {base64(text)} | base64 -d >{directory}/{name}" for name, text in texts.items()]
    connector = _connector()
    try:
        connector.feed("sh -s", "\n".join([*lines, ""]).encode())
    except OSError as error:
        _abandon(connector, stage)
        raise PyinfraError(f"the files could not be written into the image: {error}") from error


def _connector() -> ImageConnector:
    connector = ctx_host.get().connector
    assert isinstance(connector, ImageConnector)
    return connector


@operation()
def activate(stage: str, actions: str) -> Generator[StringCommand, None, None]:
    """Put the stage in place, enable the units, and leave nothing of this run; nothing is started."""
    launch = run(
        "image-launch.sh",
        stage,
        HiddenValue(base64(activation()), "<activate.sh>"),
        HiddenValue(base64(actions), "<actions>"),
    )
    yield WarningCommand(*launch.bits)


def activation() -> str:
    """The whole script of the change of an image."""
    return "".join(script(name) for name in ACTIVATION)


@operation()
def _seal() -> Generator[StringCommand, None, None]:
    """Take away what must not be cloned."""
    yield WarningCommand(*run("seal.sh", parts=SEALING).bits, news="sealed:")


@contained("tasks.image.seal --dry")
def seal() -> None:
    """Before a running machine's disk is copied: `pyinfra INVENTORY tasks.image.seal`. It takes away who it is."""
    if isinstance(ctx_host.get().connector, ImageConnector):
        refuse(["refused: a bake leaves nothing in an image that has to be taken away"])
        return
    _seal(
        name="Take away machine-id, SSH host keys, logs and other things of this machine alone", _timeout=SEAL_SECONDS
    )
