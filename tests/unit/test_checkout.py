"""The digests by which machines, the waves of a run, and a run and its resumption are compared."""

from __future__ import annotations

from pathlib import Path

import pytest

from fleet import checkout
from fleet.child import CannotRun

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


@pytest.mark.parametrize("name", ["inventories/prod.py", "inventories/group_data/all.py", "common.py"])
def test_one_that_cannot_be_read_is_named(here: Path, name: str) -> None:
    (here / "inventories/prod.py").write_text("import common\n")
    (here / name).unlink(missing_ok=True)
    (here / name).symlink_to("/proc/self/mem")  # root may read any other file
    with pytest.raises(CannotRun, match=rf"/{name} cannot be read: Input/output error$"):
        checkout.inputs("inventories/prod.py")


def test_an_editors_lock_beside_group_data_is_none(here: Path) -> None:
    before = checkout.inputs("inventories/prod.py")
    (here / "inventories/group_data/.#all.py").symlink_to("somebody@somewhere.4711")
    assert checkout.inputs("inventories/prod.py") == before


def test_hosts_that_are_named_are_one_as_they_stand(here: Path) -> None:
    assert checkout.inputs("n1,n2") == checkout.inputs("n1,n2")
    assert checkout.inputs("n1,n2") != checkout.inputs("n1,n2,n3")


@pytest.mark.parametrize(
    ("importing", "line", "module"),
    [
        ("inventories/prod.py", "from versions import CONTAINERD", "versions.py"),
        ("inventories/prod.py", "from inventories import versions", "inventories/versions.py"),
        (
            "inventories/prod.py",
            "import sys; sys.path.append('inventories'); import versions",
            "inventories/versions.py",
        ),
        ("inventories/prod.py", "import pins.now.versions", "pins/__init__.py"),
        ("inventories/group_data/all.py", "def _read():\n    from pins import *", "pins/__init__.py"),
        ("group_data/all.py", "from elsewhere import CONTAINERD", "../path/elsewhere.py"),
    ],
)
def test_so_is_what_an_inventory_and_its_data_import(
    here: Path, monkeypatch: pytest.MonkeyPatch, importing: str, line: str, module: str
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(here.parent / "path"))
    (here / importing).write_text(f"{line}\n")
    (here / module).parent.mkdir(exist_ok=True)
    (here / module).write_text("CONTAINERD = '2.1.8'\n")
    before = checkout.inputs("inventories/prod.py")
    (here / module).write_text("CONTAINERD = '2.1.9'\n")
    assert checkout.inputs("inventories/prod.py") != before


def test_and_what_that_imports_in_turn(here: Path) -> None:
    package = here / "pins"
    package.mkdir()
    for name, text in {"__init__": "from .a import A", "a": "from . import b", "b": "from .c import C"}.items():
        (package / f"{name}.py").write_text(text)
    (here / "inventories/prod.py").write_text("import pins")
    before = checkout.inputs("inventories/prod.py")
    (package / "c.py").write_text("C = 1")
    after = checkout.inputs("inventories/prod.py")
    assert after != before
    (package / "d.py").write_text("nobody imports it")
    assert checkout.inputs("inventories/prod.py") == after


@pytest.mark.parametrize("inventory", ["cloud.hosts", "cloud:hosts"])
def test_so_is_the_module_whose_function_is_an_inventory(here: Path, inventory: str) -> None:
    (here / "cloud.py").write_text("import pins")
    (here / "pins.py").write_text("A = 1")
    before = checkout.inputs(inventory)
    (here / "pins.py").write_text("A = 2")
    assert checkout.inputs(inventory) != before


@pytest.mark.parametrize(
    "text", ["import (", "\0", "from ... import a", "from ....b import *", "import json, fleet.runner"]
)
def test_an_import_that_leads_nowhere_is_none(here: Path, text: str) -> None:
    (here / "inventories/prod.py").write_text(text)
    before = checkout.inputs("inventories/prod.py")
    (here / "fleet/events.py").write_text("of our own code, whose digest has it")
    assert before.split()[1] == checkout.inputs("inventories/prod.py").split()[1]


@pytest.mark.parametrize(
    "inventory", [".", "..", "/", "2001:db8::1", "@docker/debian:13", pytest.param("n" * 5000, id="long")]
)
def test_what_is_no_module_s_name_is_none(here: Path, inventory: str) -> None:
    assert checkout.inputs(inventory) == checkout.inputs(inventory)
