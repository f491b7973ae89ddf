"""Bad input: each row of the table is told clearly, by name, value and what is allowed, and no node is touched."""

from __future__ import annotations

from collections import Counter
from hashlib import sha256
from pathlib import Path

import pytest

from lab.paths import REPO
from tests import nodes
from tests.deploy import bad_input
from tests.deploy.bad_files import ON_NODES, OnNode
from tests.deploy.bad_input import Answer, Inventory, Setting
from tests.deploy.fleet import READ, Fleet, Run, pyinfra
from tests.deploy.node_trees import EVERYDAY, Tree

# What the real script says of files in a tree. The rest is of a node that has booted and can do all that is asked.
OF_FILES = {
    *("os", "file", "stat", "sha256", "binary", "program", "drop-in", "drop-in-version", "table", "modprobe", "sysctl"),
    *("subuid", "subgid", "other-root", "exec-drop-in", "snapshots", "drop-in-key", "drop-in-has"),
    "config-key",
    "cni-plugins",
}


def contents(root: Path) -> dict[str, str]:
    """Everything below, with its mode, and a file's digest and times."""
    found = {}
    for path in sorted(root.rglob("*")):
        now = path.lstat()
        found[str(path)] = f"{now.st_mode:o} {now.st_mtime_ns}"
        if path.is_file():
            found[str(path)] += sha256(path.read_bytes()).hexdigest()
    return found


def answer(directory: Path, case: OnNode) -> str:
    """What the real script answers on a tree with these files, which has to be afterwards as it was before."""
    (directory / "root").mkdir(parents=True)
    (directory / "programs").mkdir()
    tree = Tree(directory / "root", directory / "programs")
    tree.only(*EVERYDAY)
    tree.program("systemd-detect-virt", "echo none; exit 1")
    tree.program("perl", "exit 1")
    for path, content in case.files.items():
        tree.write(path, content)
    before = contents(tree.root)
    read = [line for line in tree.run() if line.partition("\t")[0] in OF_FILES]
    assert contents(tree.root) == before
    bare = [line for line in nodes.answer(nodes.bare()).splitlines() if line.partition("\t")[0] not in OF_FILES]
    return "\n".join([*bare[:-1], *read, bare[-1]]) + "\n"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """All hosts of the table in one real run that tells every command which a node gets."""
    home = tmp_path_factory.mktemp("bad-input")
    fleet = Fleet(home)
    for each in bad_input.SETTINGS:
        fleet.add(each.id, **each.settings)
    for on_node in ON_NODES:
        fleet.add(on_node.id, answer(home / on_node.id, on_node), **on_node.settings)
    for told in bad_input.ANSWERS:
        fleet.add(told.id, told.text.replace("{}", nodes.answer(nodes.bare())))
    fleet.add("good")
    return fleet.deploy("-y", "-vv")


def commands(run: Run, host: str) -> list[str]:
    """What a host was asked to run."""
    return [line for line in run.said(host) if line.startswith(">>> ")]


def test_the_table_has_readable_names_each_once_and_enough_of_them() -> None:
    names = Counter(each.id for each in bad_input.EVERY)
    assert len(names) >= 60
    assert set(names.values()) == {1}
    assert all(name.replace("-", "").replace(".", "").isalnum() for name in names)


@pytest.mark.parametrize("case", bad_input.SETTINGS, ids=lambda case: case.id)
def test_a_bad_setting_is_told_and_its_node_is_not_even_read(run: Run, case: Setting) -> None:
    told = "\n".join(run.refused(f"@fake/{case.id}"))
    for words in case.says:
        assert words in told
    assert next(iter(case.settings)) in told or "containerd_config" in told
    assert commands(run, f"@fake/{case.id}") == []


@pytest.mark.parametrize("case", ON_NODES, ids=lambda case: case.id)
def test_what_lies_on_a_node_is_told_and_a_refused_node_is_only_read(run: Run, case: OnNode) -> None:
    host = f"@fake/{case.id}"
    told = "\n".join(run.said_in_full(host))
    for words in case.says:
        assert words in told
    assert bool(run.refused(host)) == case.refused
    assert all(READ in each for each in commands(run, host)) == case.refused
    assert "\x1b" not in told


@pytest.mark.parametrize("case", bad_input.ANSWERS, ids=lambda case: case.id)
def test_a_shell_that_says_more_or_less_than_it_was_asked_is_understood_or_told(run: Run, case: Answer) -> None:
    host = f"@fake/{case.id}"
    told = "\n".join(run.said_in_full(host))
    for words in case.says:
        assert words in told
    assert (run.will(host) == []) == case.refused
    assert all(READ in each for each in commands(run, host)) == case.refused


def test_the_good_host_among_them_goes_on_and_the_run_fails(run: Run) -> None:
    assert run.code == 1
    assert commands(run, "@fake/good")[1:]
    assert "Traceback" not in run.text
    assert "a bug in userns-node" not in run.text


def test_no_command_that_somebody_wrote_into_a_value_ran(run: Run) -> None:
    assert "touch canary" in run.text
    assert not list(REPO.glob("canary*"))


@pytest.mark.parametrize("case", bad_input.INVENTORIES, ids=lambda case: case.id)
def test_an_inventory_that_is_of_no_use_says_why(tmp_path: Path, case: Inventory) -> None:
    responses = {READ: nodes.answer(nodes.bare())}
    played = {"fake_delay": 0, "fake_delay_jitter": 0, "fake_responses": responses}
    good = f"('@fake/one', {played!r})"
    path = tmp_path / "inventory.py"
    if case.text is not None:
        path.write_text(case.text.replace("{ok}", good))
    if case.group_data:
        (tmp_path / "group_data").mkdir()
        (tmp_path / "group_data" / "all.py").write_text(case.group_data)
    run = pyinfra(path, "deploy.py", "--dry", "-vv", *case.options)
    (REPO / "pyinfra-debug.log").unlink(missing_ok=True)  # pyinfra writes it where it stands
    assert run.code == case.code, run.text
    for words in case.says:
        assert words in run.text
    assert run.text.count(">>> ") <= 1
