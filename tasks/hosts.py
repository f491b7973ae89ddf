"""Which hosts of an inventory are meant, where pyinfra passes over a slip with one line or none."""

from __future__ import annotations

from collections import Counter
from collections.abc import ItemsView, KeysView, ValuesView
from fnmatch import fnmatch
from itertools import chain, islice
from pathlib import Path
from types import GeneratorType
from typing import Any

from pyinfra.api import Host, Inventory
from pyinfra.api.exceptions import NoGroupError

from tasks.files import ROOT

__all__ = ["NobodyMatches", "leave_none_out", "left_out", "matching", "nobody", "some", "twice"]

_IMAGES = ROOT / "inventories/golden.py"

# What gives its elements one time only, and what else somebody may take for a list.
_ONCE = (GeneratorType, map, filter, zip, reversed, chain)
_NO_LIST = (set, frozenset, KeysView, ValuesView, ItemsView, *_ONCE)


class NobodyMatches(Exception):
    """A pattern that no group or host of the inventory has for a name."""


def left_out(name: str, value: object) -> str:
    """Say why pyinfra would not take this variable of an inventory for a group, though it looks like hosts, or "".

    pyinfra 3.10 passes over it with a line in its log or none, and goes on without the hosts. A tuple that begins with
    a string it takes for a group of that string's characters. A constant of another kind is nobody's group.
    """
    if name.startswith("_"):
        return ""
    in_tuple = isinstance(value, tuple) and bool(value)
    hosts = value[0] if isinstance(value, tuple) and value else value
    wrong = "it is an empty tuple" if value == () else ""
    if in_tuple and isinstance(hosts, str) and hosts:
        wrong = "it is a tuple that begins with a string"
    elif isinstance(hosts, list | tuple):
        odd = {number: each for number, each in enumerate(hosts, 1) if not isinstance(each, str | tuple)}
        if odd and any(map(_is_like_a_host, hosts)):
            number = min(odd)
            wrong = f"of its hosts, number {number} is of the type {type(odd[number]).__name__}"
    elif isinstance(hosts, _ONCE if in_tuple else _NO_LIST) and _begins_with_a_host(hosts):
        wrong = f"{'its hosts are' if in_tuple else 'it is'} of the type {type(hosts).__name__}"
    return wrong and (
        f"{name} is no group of hosts as pyinfra takes it, which would go on without them: {wrong}. A group is a list, "
        "or a tuple (list, data); a host is a string, or a tuple (string, data). What is no group has a name that "
        "begins with _"
    )


def leave_none_out() -> None:
    """For this process: an inventory with such a variable is a slip, for which loading it raises CliError."""
    # Not above: whoever imports it first of all gets gevent's modules in place of Python's own.
    import pyinfra_cli.inventory  # type: ignore[import-untyped]
    from pyinfra_cli.exceptions import CliError  # type: ignore[import-untyped]

    is_group = pyinfra_cli.inventory._is_inventory_group

    def is_group_or_none(name: str, value: object) -> bool:
        if said := left_out(name, value):
            raise CliError(said)
        return bool(is_group(name, value))

    pyinfra_cli.inventory._is_inventory_group = is_group_or_none


def _is_like_a_host(value: object) -> bool:
    return isinstance(value, str) or (isinstance(value, list | tuple) and bool(value) and isinstance(value[0], str))


def _begins_with_a_host(values: Any) -> bool:
    try:
        return any(map(_is_like_a_host, islice(values, 1)))
    except Exception:  # such as one that reads a file, which is closed by now
        return False


def matching(inventory: Inventory, pattern: str, option: str) -> list[Host]:
    """The hosts that `pattern` means as the value of `option`. Raises NobodyMatches.

    pyinfra 3.10 goes on without them: what was to be left out is changed then. It knows no group without hosts, which
    may well be left out.
    """
    try:
        found = list(inventory.get_group(pattern))
    except NoGroupError:
        found = [host for host in inventory if host.name == pattern or fnmatch(host.name, pattern)]
    if not found and pattern in inventory.group_data:
        if option == "--exclude":
            return []
        raise NobodyMatches(f"{option} {pattern}: this group is empty. Hosts: {some(inventory)}")
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
