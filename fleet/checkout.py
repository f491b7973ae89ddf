"""What decides about nodes: this project's code, and the inventory.

It has to be equal on all machines that work on one fleet, from a plan to its last wave, and between a run and the one
that resumes it. Digests without the paths at which machines keep the two. The values that they are of never leave their
machine.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from fleet.child import ROOT
from fleet.imports import imported, read

if TYPE_CHECKING:
    from hashlib import _Hash

__all__ = ["MISSING", "Checkout", "differences", "here", "inputs", "portable"]

MISSING = "missing"
_CODE = ("fleet", "tasks", "userns", "templates", "artifacts")
_SUFFIXES = (".py", ".sh", ".j2", ".toml", ".yaml")


class Checkout(BaseModel):
    """Digests of the code (with pyinfra's version) and of the inventory.

    That is its file, the groups' data beside it, and what they import.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    code: str
    inventory: str


def portable(inventory: str) -> str:
    """The inventory's name for other machines: from the checkout's root where it lies in it, else its whole path.

    What is no file, such as hosts with commas, stays as it is.
    """
    if not _is_file(inventory):
        return inventory
    file = Path(inventory).resolve()
    return str(file.relative_to(ROOT) if file.is_relative_to(ROOT) else file)


def here(inventory: str, directory: Path = ROOT) -> Checkout:
    """What this machine has. `directory` is where pyinfra stands, for it takes groups' data from there too.

    Raises CannotRun where something of it cannot be read.
    """
    code = {str(each.relative_to(ROOT)): each for each in _code()}
    digest = sha256(version("pyinfra").encode())
    _add(digest, code)
    return Checkout(code=digest.hexdigest(), inventory=_inventory(inventory, directory))


def inputs(inventory: str) -> str:
    """Both digests for who stands here, in one string by which runs are compared."""
    found = here(inventory, Path.cwd())
    return f"{found.code} {found.inventory}"


def differences(wanted: Checkout, found: Checkout, inventory: str) -> str:
    """What of another machine's is not as it is wanted, in words; "" where all is."""
    if found.code != wanted.code:
        return "other code: its checkout, or its pyinfra, is not the controller's"
    if found.inventory == MISSING:
        return f"no inventory {inventory}"
    if found.inventory != wanted.inventory:
        return f"another inventory: {inventory}, groups' data beside it or what they import is not the controller's"
    return ""


def _code() -> Iterator[Path]:
    yield from (ROOT / name for name in ("deploy.py", "config.py"))
    for name in _CODE:
        yield from (each for each in (ROOT / name).rglob("*") if each.suffix in _SUFFIXES)


def _inventory(inventory: str, directory: Path) -> str:
    file = directory / inventory
    is_file = _is_file(file)
    if not is_file and inventory.endswith(".py"):
        return MISSING
    digest = sha256(b"" if is_file else inventory.encode())
    beside = file.parent if is_file else directory
    files = {f"beside/{each.name}": each for each in beside.glob("group_data/*.py")}
    if directory.resolve() != beside.resolve():
        files |= {f"here/{each.name}": each for each in directory.glob("group_data/*.py")}
    if is_file:
        files[file.name] = file
    _add(digest, files)
    is_module = not is_file and not {",", "@"} & {*inventory}  # or one host's name, or nothing: no module has that
    names = [inventory.replace(":", ".")] if is_module else []
    places = [*_places(directory), beside]
    modules = imported(filter(_is_file, files.values()), names, places, but=_CODE)
    _add(digest, {f"imports/{name}": module for name, module in modules.items()})
    return digest.hexdigest()


def _places(directory: Path) -> Iterator[Path]:
    """Where pyinfra's process finds modules that nobody installed, in its order."""
    yield ROOT
    for place in filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep)):
        if Path(place).name not in ("site-packages", "dist-packages"):
            yield directory / place
    yield directory


def _is_file(path: Path | str) -> bool:
    """Not by Path: hosts with commas may be longer than a file's name can be, which is an error there."""
    return os.path.isfile(path)


def _add(digest: _Hash, files: dict[str, Path]) -> None:
    for name, file in sorted(files.items()):
        if not file.is_file():  # an editor's lock beside group_data is a link to nowhere
            continue
        digest.update(f"{name}\0{sha256(read(file)).hexdigest()}\0".encode())
