"""An inventory with only some of its hosts, as a shard needs it.

pyinfra 3.10 makes an object for each host of its inventory, and for each name searches a list of those before it. So
the others are left out before it begins.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

import pyinfra_cli.inventory  # type: ignore[import-untyped]
from pyinfra.api import Inventory
from pyinfra.api.connectors import get_execution_connectors

__all__ = ["only"]


@contextmanager
def only(names: Collection[str]) -> Iterator[None]:
    """While it lasts, inventories are made with these hosts alone; the groups and their data stay.

    What may stand for more than one host, such as a connector that finds hosts elsewhere, stays whole.
    """
    wanted = frozenset(names)

    def made(hosts: Any, /, **groups: Any) -> Inventory:
        override = groups.pop("override_data", None)
        kept = {name: _kept(group, wanted) for name, group in groups.items()}
        return Inventory(_kept(hosts, wanted), override_data=override, **kept)

    pyinfra_cli.inventory.Inventory = made
    try:
        yield
    finally:
        pyinfra_cli.inventory.Inventory = Inventory


def _kept(group: Any, wanted: Collection[str]) -> Any:
    hosts, data = group
    one_each = get_execution_connectors()

    def is_kept(name: str) -> bool:
        if name in wanted:
            return True
        connector = name[1:].partition("/")[0] if name.startswith("@") else "ssh"
        return connector not in one_each or (name.startswith("@") and "," in name)

    return [each for each in hosts if is_kept(each if isinstance(each, str) else each[0])], data
