"""The digests by which machines, the waves of a run, and a run and its resumption are compared."""

from __future__ import annotations

from pathlib import Path

import pytest

from fleet import checkout

CODE = ("deploy.py", "config.py", "fleet/runner.py", "tasks/scripts/stage.sh", "userns/plan.py", "artifacts/lock.toml")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with an inventory in it, where somebody stands."""
    for name in (*CODE, "inventories/prod.py", "inventories/group_data/all.py", "group_data/all.py"):
        file = tmp_path / "here" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("# as it was\n")
    monkeypatch.setattr(checkout, "ROOT", tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


@pytest.mark.parametrize("name", [*CODE, "inventories/prod.py", "inventories/group_data/all.py", "group_data/all.py"])
def test_whatever_decides_about_nodes_is_an_input(here: Path, name: str) -> None:
    before = checkout.inputs("inventories/prod.py")
    (here / name).write_text("# otherwise\n")
    assert checkout.inputs("inventories/prod.py") != before
    (here / name).write_text("# as it was\n")
    assert checkout.inputs("inventories/prod.py") == before
    (here / name).unlink()
    assert checkout.inputs("inventories/prod.py") != before


def test_so_is_the_version_of_pyinfra(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = checkout.inputs("inventories/prod.py")
    monkeypatch.setattr(checkout, "version", lambda name: f"another {name}")
    assert checkout.inputs("inventories/prod.py") != before


def test_where_the_checkout_lies_is_none(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = checkout.inputs("inventories/prod.py")
    there = here.rename(here.with_name("there"))
    monkeypatch.setattr(checkout, "ROOT", there)
    monkeypatch.chdir(there)
    assert checkout.inputs(str(there / "inventories/prod.py")) == before


def test_nor_from_where_the_same_files_are_named(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "group_data/all.py").unlink()
    before = checkout.inputs("inventories/prod.py")
    monkeypatch.chdir(here / "inventories")
    assert checkout.inputs("prod.py") == before


def test_an_editors_lock_beside_group_data_is_none(here: Path) -> None:
    before = checkout.inputs("inventories/prod.py")
    (here / "inventories/group_data/.#all.py").symlink_to("somebody@somewhere.4711")
    assert checkout.inputs("inventories/prod.py") == before


def test_hosts_that_are_named_are_one_as_they_stand(here: Path) -> None:
    assert checkout.inputs("n1,n2") == checkout.inputs("n1,n2")
    assert checkout.inputs("n1,n2") != checkout.inputs("n1,n2,n3")
