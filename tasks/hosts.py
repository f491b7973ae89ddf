"""Which hosts of an inventory are meant, where pyinfra passes over a slip with one line or none."""

from __future__ import annotations

from collections import Counter
from fnmatch import fnmatch
from pathlib import Path

from pyinfra.api import Host, Inventory
from pyinfra.api.exceptions import NoGroupError

from tasks.files import ROOT

__all__ = ["NobodyMatches", "matching", "nobody", "some", "twice"]

_IMAGES = ROOT / "inventories/golden.py"


class NobodyMatches(Exception):
    """A pattern that no group or host of the inventory has for a name."""


def matching(inventory: Inventory, pattern: str, option: str) -> list[Host]:
    """The hosts that `pattern` means as the value of `option`. Raises NobodyMatches.

    pyinfra 3.10 goes on without them: what was to be left out is changed then.
    """
    try:
        found = list(inventory.get_group(pattern))
    except NoGroupError:
        found = [host for host in inventory if host.name == pattern or fnmatch(host.name, pattern)]
    if not found:
        raise NobodyMatches(f"{option} {pattern}: no group or host of this name. Hosts: {some(inventory)}")
    return found


def nobody(inventory: str) -> str:
    """Why there is nobody to work on, where the inventory of this name has no host."""
    if inventory.endswith(_IMAGES.name) and Path(inventory).resolve() == _IMAGES:
        why = "has the images that IMAGE_ROOTS names, and that names none. Name their root directories"
        return f"no image to work on: {inventory} {why}: IMAGE_ROOTS=/a/root:/another pyinfra {inventory} deploy.py"
    return f"no host to work on: {inventory} is neither an inventory with hosts in it nor a host"


def some(inventory: Inventory) -> str:
    """The first of its hosts, for a message."""
    names = [host.name for host in inventory]
    return ", ".join(names[:10]) + (", …" if names[10:] else "")


def twice(inventory: Inventory) -> str:
    """Say which host is in one group twice, or "". In two groups it may be.

    The second one's data would overwrite the first one's: two nodes were meant, and only one would ever be read.
    """
    for host in inventory:
        # pyinfra 3.10 lists the groups of `@connector/name`, which stands for itself, two times.
        once = 2 if host.name.startswith("@") else 1
        for group, times in Counter(host.groups).items():
            if times > once:
                return (
                    f"{host.name} is in the group {group} twice, and pyinfra would take the two for one node: "
                    "give each node a name of its own, or take one out"
                )
    return ""
