"""One tree of Debian testing, from which each test takes copies, and a mirror on this machine's loopback."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from secrets import token_hex

import pytest

from lab import loopback
from lab.mirror import Mirror
from lab.paths import BUILD
from tests.image import trees
from tests.image.trees import Builder

Copied = Callable[[], Path]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Every test in this directory is marked `image`."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker("image")


@pytest.fixture(scope="session")
def builder(machine: None, mirror: Mirror) -> Iterator[Builder]:
    """Somebody who bakes with the mirror's newest versions."""
    with loopback.served(mirror.root) as url:
        yield Builder(url, mirror.lock)


@pytest.fixture(scope="session")
def home(machine: None) -> Iterator[Path]:
    """Where the trees are: under the build directory, for a temporary one may be small."""
    home = BUILD / "images" / token_hex(4)
    home.mkdir(parents=True)
    yield home
    trees.remove(home)


@pytest.fixture(scope="session")
def pristine(home: Path) -> Iterator[Path]:
    """A tree as its builder left it. All others are copies of it, and nothing that is done to them shows in it."""
    root = trees.build(home / "pristine", "testing", trees.KERNEL)
    before = trees.look(root)
    yield root
    assert trees.changed(before, trees.look(root)) == set()


_numbers = count(1)


@pytest.fixture(scope="session")
def copied(pristine: Path, home: Path) -> Copied:
    """A function that gives a new copy of the tree."""
    return lambda: trees.copy(pristine, home / f"root{next(_numbers)}")
