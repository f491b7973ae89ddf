"""A node whose everyday tools are not GNU's, and whose sudo is not the usual one: Ubuntu's since 25.10."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from lab import Lab, LabNode, debs
from lab.mirror import Mirror
from tests.node import releases as made
from tests.node import there_and_back
from tests.node.releases import Releases
from tests.node.runs import Operator, must

# As Ubuntu has them: each name a link to the one program, which goes by the name that it was called by.
REPLACE = """
    set -e
    dpkg --install /root/debs/*.deb
    for name in $(coreutils --list); do
        for directory in /usr/bin /usr/sbin; do
            [ ! -e "$directory/$name" ] || ln -sf ../bin/coreutils "$directory/$name"
        done
    done
    ln -sf ../lib/cargo/bin/sudo /usr/bin/sudo
    cp -r /root/.ssh /home/ops/
    chown -R ops: /home/ops/.ssh
    echo 'ops ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/ops
"""


@dataclass(frozen=True)
class Other:
    """Such a node, somebody who comes to it as a user with sudo, and what there is to install."""

    node: LabNode
    operator: Operator
    releases: Releases
    facts_before: dict[str, Any]


def facts(operator: Operator, node: LabNode) -> dict[str, Any]:
    """What is read of the node, without what is another each time."""
    run = must(operator.pyinfra(operator.inventory({"nodes": {node: {}}}), "--json", "fact", "tasks.node.Node"))
    (by_host,) = run.json.values()
    found: dict[str, Any] = by_host[node.name]
    del found["seconds"]
    for filesystem in found["filesystems"].values():
        del filesystem["free_kib"]
    return found


@pytest.fixture(scope="module")
def other(lab: Lab, mirror: Mirror, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Other]:
    releases = made.build(mirror)
    served = lab.serve(releases.mirror)
    operator = Operator(
        lab,
        tmp_path_factory.mktemp("other"),
        **releases.settings(served.url),
        crun_version=releases.mirror.versions("crun")[0],
    )
    node = lab.node("other")
    node.ssh("useradd --create-home ops")
    before = facts(operator, node)
    shutil.copytree(debs.for_a_node("rust-coreutils", "sudo-rs"), node.root / "root/debs")
    node.ssh(REPLACE)
    yield Other(node, operator, releases, before)
    node.stop()
    served.stop()


def test_what_is_read_of_it_is_what_gnus_tools_say(other: Other) -> None:
    node = other.node
    assert "uutils" in node.ssh("stat --version").stdout
    assert facts(other.operator, node) == other.facts_before


def test_a_change_an_undone_one_and_a_rollback_are_those_of_any_node(other: Other) -> None:
    assert "sudo-rs" in other.node.ssh("sudo --version").stdout
    there_and_back.run(other.operator, other.node, other.releases, ssh_user="ops", _sudo=True)
