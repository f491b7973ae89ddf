"""What Python files import from the places of an operator's own modules, found without running them."""

from __future__ import annotations

import ast
import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path

from fleet.child import CannotRun

__all__ = ["imported", "read"]

# A module's name, or a package's, in its parts.
_Name = tuple[str, ...]


def imported(
    files: Iterable[Path], names: Iterable[str], places: Sequence[Path], but: Collection[str] = ()
) -> dict[str, Path]:
    """The modules of these names, those that these files import, and those that they import in turn.

    By their paths from the first of the places that has them. What none has (the standard library's, an installed one)
    is left out, and so are the packages `but`. Raises CannotRun where one cannot be read.
    """
    wanted: list[_Name] = [tuple(name.split(".")) for name in names]
    wanted += [name for file in files for name in _imports(file)]
    found: dict[_Name, Path | None] = {}
    while wanted:
        name = wanted.pop()
        if name[0] in but:
            continue
        for end in range(1, len(name) + 1):  # the packages that it is in are run, too
            if (part := name[:end]) in found:
                continue
            file = found[part] = _file(part, places)
            if file:
                wanted += _imports(file, part if file.name == "__init__.py" else part[:-1])
    return {"/".join(name): file for name, file in found.items() if file}


def read(file: Path) -> bytes:
    """What is in a file that a fleet depends on. Raises CannotRun."""
    try:
        return file.read_bytes()
    except OSError as error:
        raise CannotRun(f"{file} cannot be read: {error.strerror or error}") from error


def _file(name: _Name, places: Sequence[Path]) -> Path | None:
    for place in places:
        for file in (place.joinpath(*name, "__init__.py"), place.joinpath(*name[:-1], f"{name[-1]}.py")):
            if os.path.isfile(file):  # not by Path: a host's name may be too long for a file's, which is an error there
                return file
    return None


def _imports(file: Path, package: _Name = ()) -> Iterator[_Name]:
    """The names in the imports of a file, wherever in it they stand; it may be in a package."""
    try:
        tree = ast.parse(read(file))
    except (SyntaxError, ValueError):  # pyinfra tells of it
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (tuple(each.name.split(".")) for each in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: max(0, len(package) + 1 - node.level)] if node.level else ()
            module = (*above, *(node.module.split(".") if node.module else ()))
            yield from ((*module, each.name) for each in node.names)  # which may be modules of a package
