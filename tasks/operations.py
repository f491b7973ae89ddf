"""The few operations that pyinfra's own can't give: verified fetch and push, staged files, one gated activation.

pyinfra's `files.download` moves a file into place before it looks at its digest, and `files.put` truncates its
target: both may break running containers. Here each operation only fills a stage, a directory on the node that
nobody else reads; `activate` swaps the stage in by renames, in a unit that outlives the connection.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable

from pyinfra.api import HiddenValue, StringCommand, operation

from artifacts.bundlefile import BundleFile
from tasks.files import base64, run, script
from tasks.hiding import hidden
from tasks.pushing import PushCommand
from tasks.telling import WarningCommand
from userns.bundles import Bundled
from userns.settings import mask

# What fetch.sh and receive.sh are made of beside themselves.
UNPACK = ("unpack.sh",)
# The script of the change-over, of the way back from one, and of a rollback.
ACTIVATION = ("previous.sh", "record.sh", "running.sh", "rollback.sh", "swap.sh", "metrics.sh", "activate.sh")


@operation()
def fetch(
    stage: str, url: str, sha256: str, programs: dict[str, str], proxy: str | None = None
) -> Generator[StringCommand, None, None]:
    """Download a release asset into the stage, verified before it is unpacked.

    `programs` maps a member of the archive (empty: the asset itself) to its name in the stage.
    """
    members = (f"{member}={name}" for member, name in programs.items())
    yield run("fetch.sh", stage, mask(hidden(url)), sha256, *members, parts=UNPACK, stdin=asked(url, proxy))


def asked(url: str, proxy: str | None) -> str:
    """What fetch.sh reads: the URL, and the proxy's where it goes through one. Both may hold passwords."""
    return f"{url}\n{proxy}" if proxy else url


@operation()
def push(
    stage: str, bundle: BundleFile, asset: Bundled, programs: dict[str, str]
) -> Generator[StringCommand, None, None]:
    """Send a release asset out of the controller's bundle into the stage, verified there before it is unpacked.

    `programs` as for `fetch`.
    """
    members = (f"{member}={name}" for member, name in programs.items())
    command = run("receive.sh", stage, str(asset), str(asset.size), asset.sha256, *members, parts=UNPACK)
    yield PushCommand(command, bundle, asset)


@operation()
def download_packages(stage: str, packages: Iterable[tuple[str, str]]) -> Generator[StringCommand, None, None]:
    """Find the node's own packages of exact upstream versions and download them without installing."""
    yield run("package.sh", stage, *(word for pair in packages for word in pair))


@operation()
def put(stage: str, filename: str, content: str, keep: tuple[str, ...] = ()) -> Generator[StringCommand, None, None]:
    """Lay a text into the stage; `keep` is a file on the node and where its present text is kept."""
    yield run("put.sh", stage, filename, str(len(content.encode())), *keep, stdin=content)


@operation()
def activate(stage: str, token: str, actions: str, told: tuple[str, ...] = ()) -> Generator[StringCommand, None, None]:
    """Swap the stage in, restart, check health; bring the previous set back if containerd is not healthy.

    `told` are lines for the operator after a success.
    """
    launch = run(
        "launch.sh",
        stage,
        token,
        HiddenValue(base64(activation()), "<activate.sh>"),
        HiddenValue(base64(actions), "<actions>"),
    )
    yield WarningCommand(*launch.bits, told=told)


def activation() -> str:
    """The whole script of the change-over."""
    return "".join(script(name) for name in ACTIVATION)
