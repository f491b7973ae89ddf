"""What disturbs the pods of a node: going back to an older containerd, other user ids. A restart does not."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import pytest

from tests import nodes
from userns import disruption, paths
from userns.changes import RestartService, WriteFile
from userns.node import Binary, Node, Unit


def disrupts(node: Node, **settings: Any) -> tuple[str, ...]:
    return disruption.of_plan(nodes.plan(node, **settings))


def test_nothing_runs_on_a_bare_node() -> None:
    assert disrupts(nodes.bare()) == ()


def test_nothing_to_do_disturbs_nobody() -> None:
    assert disrupts(nodes.converged()) == ()


def test_an_upgrade_restarts_containerd_and_disturbs_nobody() -> None:
    node = nodes.converged(containerd_version="2.2.7")
    plan = nodes.plan(node)
    assert any(isinstance(each, RestartService) for each in plan.changes)
    assert disruption.of_plan(plan) == ()


def test_a_patch_release_back_disturbs_nobody() -> None:
    assert disrupts(nodes.converged(containerd_version="2.3.4"), containerd_version="2.3.3") == ()


@pytest.mark.parametrize("version", ["2.2.7", "2.1.5"])
def test_an_older_branch_does(version: str) -> None:
    (why,) = disrupts(nodes.converged(), containerd_version=version)
    assert f"goes back from 2.3.4 to {version}" in why


def test_an_older_branch_on_a_node_where_containerd_does_not_run_does_not() -> None:
    node = nodes.converged()
    stopped = node.model_copy(update={"units": {**node.units, "containerd": Unit(active="inactive")}})
    assert disrupts(stopped, containerd_version="2.2.7") == ()


@pytest.mark.parametrize(("starts", "told"), [("/usr/bin", True), ("/usr/local/bin", False)])
def test_what_counts_is_the_containerd_that_runs_and_not_a_stale_one_beside_it(starts: str, told: bool) -> None:
    node = nodes.bare(
        binaries={
            "/usr/bin/containerd": Binary(version="2.1.9", component="containerd"),
            "/usr/local/bin/containerd": Binary(version="1.7.24", component="containerd"),
        },
        units={"containerd": Unit(load="loaded", active="active", exec_start=f"{starts}/containerd")},
    )
    found = disrupts(node, containerd_version="2.0.7")
    assert ["goes back from 2.1.9 to 2.0.7" in each for each in found] == [True] * told


def test_another_range_of_the_kubelet_does_and_a_first_one_does_not() -> None:
    first: dict[str, Any] = {"kubelet_id_range": (65536, 110 * 65536)}
    assert disrupts(nodes.converged(), **first) == ()
    ranged = nodes.converged(**first)
    assert disrupts(ranged, **first) == ()
    found = disrupts(ranged, kubelet_id_range=(65536 * 200, 110 * 65536))
    assert ["/etc/subuid" in found[0], "/etc/subgid" in found[1]] == [True, True]


def test_a_mode_that_is_mended_disturbs_nobody() -> None:
    settings: dict[str, Any] = {"kubelet_id_range": (65536, 110 * 65536)}
    node = nodes.converged(**settings)
    loose = node.files[paths.SUBUID].model_copy(update={"mode": "600"})
    plan = nodes.plan(node.model_copy(update={"files": {**node.files, paths.SUBUID: loose}}), **settings)
    assert [each.path for each in plan.changes if isinstance(each, WriteFile)] == [paths.SUBUID]
    assert disruption.of_plan(plan) == ()


@pytest.mark.parametrize("changed", ["subuid", "subgid"])
def test_each_of_the_two_files_is_judged_by_its_own_lines(changed: str) -> None:
    settings: dict[str, Any] = {"kubelet_id_range": (65536, 110 * 65536)}
    node = nodes.converged(**settings)
    line, path = "kubelet:13107200:7208960", {"subuid": paths.SUBUID, "subgid": paths.SUBGID}[changed]
    edited = node.files[path].model_copy(update={"sha256": sha256(f"{line}\n".encode()).hexdigest()})
    other = node.model_copy(update={changed: (line,), "files": {**node.files, path: edited}})
    (why,) = disrupts(other, **settings)
    assert path in why


def test_a_first_range_beside_those_of_other_users_disturbs_nobody() -> None:
    node = nodes.converged().model_copy(update={"subuid": ("dev:100000:65536",), "subgid": ("dev:100000:65536",)})
    assert disrupts(node, kubelet_id_range=(65536 * 200, 110 * 65536)) == ()
