"""The groups that the fleet goes by: it tells of nodes by them, and limits a rollout by them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyinfra_cli.inventory  # type: ignore[import-untyped]
from pyinfra.api import Host, Inventory

from fleet.waves import MAX_UNAVAILABLE

__all__ = ["Groups", "named_after_files"]


@contextmanager
def named_after_files() -> Iterator[set[str]]:
    """While it lasts, inventories are loaded; in the set are the groups that pyinfra 3.10 names after their files.

    It adds one of all hosts to a file that has no group of that name. Afterwards the two cannot be told apart.
    """
    added: set[str] = set()
    read = pyinfra_cli.inventory._get_groups_from_filename

    def noted(path: str) -> Any:
        groups = read(path)
        added.update({Path(path).name.rsplit(".", 1)[0]} - groups.keys())
        return groups

    pyinfra_cli.inventory._get_groups_from_filename = noted
    try:
        yield added
    finally:
        pyinfra_cli.inventory._get_groups_from_filename = read


@dataclass(frozen=True, slots=True)
class Groups:
    """The groups of an inventory. `added` are those that pyinfra named after a file."""

    inventory: Inventory
    added: Collection[str] = ()

    def of(self, host: Host) -> tuple[str, ...]:
        """The groups that the inventory has for it, and those that pyinfra added where their data limits a rollout."""
        named = [group for group in dict.fromkeys(host.groups) if group != "all" and not group.startswith("@")]
        return tuple([group for group in named if group not in self.added or self._limits(group)] or named or ["all"])

    def _limits(self, group: str) -> bool:
        return MAX_UNAVAILABLE in self.inventory.get_group_data(group)

    def members(self) -> Mapping[str, Sequence[Host]]:
        """The hosts of each of them."""
        members = defaultdict(list)
        for host in self.inventory:
            for group in self.of(host):
                members[group].append(host)
        return members

    def data(self, group: str, names: Iterable[str]) -> dict[str, Any]:
        """What a group's data says of these names: of `all`, of the group, of the command line."""
        data = {
            **self.inventory.get_data(),
            **self.inventory.get_group_data(group),
            **self.inventory.get_override_data(),
        }
        return {name: data[name] for name in names if name in data}
