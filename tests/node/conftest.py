"""Real nodes for the tests below: fresh ones for each test that asks for one, or one for all that only look."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest

from lab import Lab, LabNode, idmap
from tests.conftest import unavailable

BootNode = Callable[..., LabNode]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Every test in this directory is marked `node`."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker("node")


@pytest.fixture(scope="session", autouse=True)
def kernel() -> None:
    """Nodes share this machine's kernel: where it is too old, every deploy here ends in a refusal."""
    if reason := idmap.lacking():
        unavailable(reason)


_numbers = count(1)


@pytest.fixture
def fresh_node(lab: Lab) -> Iterator[BootNode]:
    """A function that boots a node which nothing was done to. The nodes end with the test."""
    nodes: list[LabNode] = []

    def boot(suite: str = "testing", *, wait: bool = True) -> LabNode:
        nodes.append(lab.node(f"node{next(_numbers)}", suite, wait=wait))
        return nodes[-1]

    yield boot
    for node in nodes:
        node.stop()


@pytest.fixture(scope="module")
def shared_node(lab: Lab) -> Iterator[LabNode]:
    """One node for the tests of a file that leave it as it is."""
    node = lab.node(f"node{next(_numbers)}")
    yield node
    node.stop()
