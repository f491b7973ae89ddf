"""The groups of an inventory that a rollout is limited by: as pyinfra's process names them."""

from __future__ import annotations

from pathlib import Path

import pytest

from fleet import child
from fleet.events import InventoryEvent, Request
from fleet.waves import MAX_UNAVAILABLE, limits

ZONES = 'zone_a = ["a", "b", "c"]\nzone_b = ["d"]\n'
LIMITED = 'max_unavailable = "1"\n'


def inventory(directory: Path, name: str, text: str, **data: str) -> InventoryEvent:
    """What is told of a file of this name, as an inventory, with the data of groups beside it."""
    (directory / "group_data").mkdir()
    for group, said in data.items():
        (directory / f"group_data/{group}.py").write_text(said)
    (directory / name).write_text(text)
    request = Request(action="inventory", inventory=str(directory / name), group_data=(MAX_UNAVAILABLE,))
    with child.events(request) as events:
        return child.inventory_of(events)


def limits_of(found: InventoryEvent) -> dict[str, int]:
    """The limits of its groups, which are those of its hosts."""
    assert found.sizes.keys() == {group for each in found.hosts for group in each.groups}
    return limits(found.sizes, found.data)


def test_a_group_that_pyinfra_names_after_the_file_is_none(tmp_path: Path) -> None:
    assert limits_of(inventory(tmp_path, "prod.py", ZONES, zone_a='max_unavailable = "67%"\n')) == {
        "zone_a": 2,
        "zone_b": 1,
    }


def test_a_group_of_the_inventory_that_is_named_like_its_file_limits_its_nodes(tmp_path: Path) -> None:
    text = f'{ZONES}workers = (["a", "b", "c", "d"], {{"max_unavailable": "2"}})\n'
    found = inventory(tmp_path, "workers.py", text, zone_a='max_unavailable = "3"\n')
    assert limits_of(found) == {"workers": 2, "zone_a": 3, "zone_b": 1}


def test_also_where_it_says_nothing_of_its_own(tmp_path: Path) -> None:
    found = inventory(tmp_path, "workers.py", f'{ZONES}workers = ["a", "b", "c", "d"]\n')
    assert limits_of(found) == {"workers": 1, "zone_a": 1, "zone_b": 1}


@pytest.mark.parametrize("name", ["prod.py", "prod"])
def test_so_does_the_one_that_pyinfra_adds_where_data_beside_the_inventory_says_so(tmp_path: Path, name: str) -> None:
    found = inventory(tmp_path, name, ZONES, prod=LIMITED, zone_a='max_unavailable = "3"\n')
    assert limits_of(found) == {"prod": 1, "zone_a": 3, "zone_b": 1}
