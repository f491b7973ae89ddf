"""Programs: which of containerd, runc and crun a node lacks, by the record and the lock and not by what they say."""

from __future__ import annotations

from typing import Any

import pytest

from tests import nodes
from userns import paths, programs
from userns.changes import HoldPackage, InstallArtifact, InstallPackage, RemoveFile
from userns.node import Binary, Node, Package, Unit
from userns.policy import load

RUNC = paths.INSTALLED["runc"]
SHIM = paths.INSTALLED["containerd-shim-runc-v2"]
PACKAGED: dict[str, Any] = {"install_from": "package", "containerd_version": "2.1.9", "runc_version": "1.3.6"}
ONLY_AMD64 = """
[containerd]
path = "/containerd-{version}-{arch}"
source = "a test"
[containerd.sha256."2.3.4"]
amd64 = "0000000000000000000000000000000000000000000000000000000000000000"
[runc]
path = "/runc-{version}.{arch}"
source = "a test"
[runc.sha256."1.4.3"]
amd64 = "1111111111111111111111111111111111111111111111111111111111111111"
arm64 = "2222222222222222222222222222222222222222222222222222222222222222"
"""


def changes(node: Node, **settings: Any) -> list[InstallArtifact | InstallPackage | HoldPackage | RemoveFile]:
    return programs.changes(node, nodes.policy(**settings))


def whys(node: Node, **settings: Any) -> dict[str, str]:
    return {getattr(each, "component", getattr(each, "path", "")): each.why for each in changes(node, **settings)}


def with_binary(path: str, binary: Binary | None) -> Node:
    """A converged node with another program at `path`, or with none."""
    others = {where: each for where, each in nodes.converged().binaries.items() if where != path}
    return nodes.converged().model_copy(update={"binaries": others | ({path: binary} if binary else {})})


def recorded(path: str = RUNC, **changed: Any) -> Binary:
    return nodes.converged().binaries[path].model_copy(update=changed)


# --- from a release ------------------------------------------------------------------------------------------------


def test_a_bare_node_gets_what_is_wanted_and_no_crun() -> None:
    assert whys(nodes.bare()) == {"containerd": "it is not installed", "runc": "it is not installed"}
    assert list(whys(nodes.bare(), crun_version="1.17")) == ["containerd", "runc", "crun"]


def test_an_asset_is_named_by_the_lock_and_fetched_from_the_mirror() -> None:
    containerd, runc = changes(nodes.bare(machine="aarch64"), release_url="https://mirror.example/github/")
    assert isinstance(containerd, InstallArtifact)
    assert containerd.url == (
        "https://mirror.example/github/containerd/containerd/releases/download/v2.3.4/"
        "containerd-2.3.4-linux-arm64.tar.gz"
    )
    assert containerd.sha256 == "a985fbb7e18fc0362d31a055338f5d7b0e087a3e27f14c70d1c5965399a29f95"
    assert containerd.programs == {
        f"bin/{name}": f"/usr/local/bin/{name}" for name in programs.MEMBERS["containerd"].values()
    }
    assert isinstance(runc, InstallArtifact)
    assert runc.programs == {"": "/usr/local/sbin/runc"}


@pytest.mark.parametrize(
    ("path", "binary", "component", "why"),
    [
        (SHIM, None, "containerd", f"{SHIM} is missing"),
        (RUNC, None, "runc", "it is not installed"),
        (RUNC, recorded(version="1.4.2"), "runc", f"{RUNC} is 1.4.2"),
        (RUNC, recorded(asset="5" * 64), "runc", f"{RUNC} came from another asset than the lock now pins"),
        (
            RUNC,
            Binary(sha256="5" * 64, version="1.4.3"),
            "runc",
            f"{RUNC} is not as recorded, in content, mode or owner (it calls itself 1.4.3)",
        ),
        (RUNC, Binary(), "runc", f"{RUNC} is not as recorded, in content, mode or owner"),
    ],
)
def test_a_program_that_is_not_the_pinned_one_is_replaced(
    path: str, binary: Binary | None, component: str, why: str
) -> None:
    assert whys(with_binary(path, binary)) == {component: why}


def test_what_the_lock_pins_stays() -> None:
    assert changes(nodes.converged()) == []
    assert changes(nodes.converged(crun_version="1.17"), crun_version="1.17") == []


def test_a_crun_that_is_no_longer_wanted_stays() -> None:
    """Shims of running containers still call it by its path."""
    assert changes(nodes.converged(crun_version="1.17")) == []


def test_a_packages_own_program_elsewhere_is_no_reason_to_change() -> None:
    node = nodes.converged()
    elsewhere = {**node.binaries, "/usr/bin/containerd": Binary(sha256="6" * 64, version="1.6.20")}
    assert changes(node.model_copy(update={"binaries": elsewhere})) == []


@pytest.mark.parametrize(
    ("machine", "installed", "missing"),
    [
        ("x86_64", ["containerd", "runc"], []),
        ("aarch64", ["runc"], ["containerd 2.3.4 on arm64"]),
        ("ppc64le", [], ["containerd 2.3.4 on ppc64le", "runc 1.4.3 on ppc64le"]),
        ("mips64", [], []),
        ("", [], []),
    ],
)
def test_what_is_not_locked_for_an_architecture_refuses_the_node_and_no_other(
    machine: str, installed: list[str], missing: list[str]
) -> None:
    policy, node = load({}, ONLY_AMD64), nodes.bare(machine=machine)
    assert [getattr(each, "component", "") for each in programs.changes(node, policy)] == installed
    found = programs.missing(node, policy)
    assert [(each.id, each.severity.value) for each in found] == [("artifact-not-locked", "blocker")] * len(missing)
    for finding, what in zip(found, missing, strict=True):
        assert f"the lock file has no digest for {what}" in finding.message
        assert "python -m artifacts add" in finding.message


def test_packages_need_no_lock() -> None:
    policy = load(PACKAGED, ONLY_AMD64)
    assert programs.missing(nodes.bare(machine="ppc64le"), policy) == []


# --- from a package ------------------------------------------------------------------------------------------------


def packaged(**changed: Any) -> Node:
    return nodes.converged(**PACKAGED).model_copy(update=changed)


def packages(**runc: Any) -> dict[str, Package]:
    return {**packaged().packages, "runc": Package.model_validate({"version": "1.3.6+ds1-1", "held": True} | runc)}


def test_a_bare_node_gets_packages_of_exact_versions() -> None:
    assert [each.summary for each in changes(nodes.bare(), **PACKAGED)] == [
        "install package containerd, upstream version 2.1.9, and hold it: it is not installed",
        "install package runc, upstream version 1.3.6, and hold it: it is not installed",
    ]


@pytest.mark.parametrize("version", ["1.3.6", "1.3.6-1", "1.3.6+ds1-1", "1.3.6+ds1-1ubuntu0~24.04.1", "5:1.3.6-1"])
def test_a_held_package_of_the_wanted_upstream_version_stays(version: str) -> None:
    assert changes(packaged(packages=packages(version=version)), **PACKAGED) == []


@pytest.mark.parametrize(
    ("runc", "why"),
    [
        ({"version": "1.3.5+ds1-1"}, "1.3.5+ds1-1 is installed"),
        ({"version": "5:1.3.7-1"}, "5:1.3.7-1 is installed"),
    ],
)
def test_another_package_is_replaced(runc: dict[str, Any], why: str) -> None:
    assert whys(packaged(packages=packages(**runc)), **PACKAGED) == {"runc": why}


def test_a_package_that_is_free_is_held_without_a_new_installation_or_a_restart() -> None:
    free = packaged(packages=packages(held=False))
    why = "1.3.6+ds1-1 is not held, so an upgrade of the node would replace it"
    assert [each.summary for each in changes(free, **PACKAGED)] == [f"hold package runc: {why}"]
    assert [each.summary for each in nodes.plan(free, **PACKAGED).changes] == [f"hold package runc: {why}"]


def test_a_package_whose_programs_went_back_without_it_is_installed_again() -> None:
    """dpkg says one version, and the record another one that is really there."""
    binaries = {path: each.model_copy(update={"version": "2.1.8"}) for path, each in packaged().binaries.items()}
    why = "its programs are 2.1.8, and "
    assert all(each.startswith(why) for each in whys(packaged(binaries=binaries), **PACKAGED).values())
    assert set(whys(packaged(binaries=binaries), **PACKAGED)) == {"containerd", "runc"}


def test_a_packages_program_that_somebody_replaced_is_installed_again() -> None:
    binaries = {**packaged().binaries, paths.PACKAGED["runc"]: Binary(sha256="7" * 64, version="1.3.6")}
    why = "its files are not the ones that the record names"
    assert whys(packaged(binaries=binaries), **PACKAGED) == {"runc": why}


def test_what_came_from_a_release_makes_room_for_the_package_but_for_runtimes_in_use() -> None:
    found = changes(nodes.converged(crun_version="1.17"), **PACKAGED)
    removed = [each.path for each in found if isinstance(each, RemoveFile)]
    assert removed == [f"/usr/local/bin/{name}" for name in programs.MEMBERS["containerd"].values()] + [paths.UNIT]
    assert all(each.restarts for each in found if isinstance(each, RemoveFile))


@pytest.mark.parametrize(("kind", "removed"), [("file", True), ("link", False), ("absent", False)])
def test_a_unit_that_is_a_link_is_somebodys_will_and_makes_no_room(kind: str, removed: bool) -> None:
    node = nodes.converged()
    unit = node.files[paths.UNIT].model_copy(update={"kind": kind})
    found = changes(node.model_copy(update={"files": {**node.files, paths.UNIT: unit}}), **PACKAGED)
    assert (paths.UNIT in [each.path for each in found if isinstance(each, RemoveFile)]) is removed


def test_somebody_elses_program_in_usr_local_is_not_removed() -> None:
    node = nodes.bare(binaries={paths.INSTALLED["containerd"]: Binary(sha256="8" * 64, version="2.0.0")})
    assert not [each for each in changes(node, **PACKAGED) if isinstance(each, RemoveFile)]


# --- where they are ------------------------------------------------------------------------------------------------


def test_paths_and_handlers_follow_where_programs_come_from() -> None:
    release, package = nodes.policy(crun_version="1.17"), nodes.policy(**PACKAGED)
    assert programs.paths(release)["ctr"] == "/usr/local/bin/ctr"
    assert programs.paths(package)["ctr"] == "/usr/bin/ctr"
    assert programs.handlers(release) == {"runc": "/usr/local/sbin/runc", "crun": "/usr/local/bin/crun"}
    assert programs.handlers(package) == {"runc": "/usr/sbin/runc"}


def test_a_change_shows_no_password_of_the_mirror() -> None:
    (change, _) = changes(nodes.bare(), release_url="https://user:hunter2@mirror.example")
    assert isinstance(change, InstallArtifact)
    assert "hunter2" in change.url
    assert "hunter2" not in repr(change)
    assert "hunter2" not in change.summary
    assert "hunter2" not in repr(nodes.plan(nodes.bare(), release_url="https://user:hunter2@mirror.example"))


@pytest.mark.parametrize(
    ("starts", "version", "package"),
    [
        ("/usr/bin/containerd", "2.1.9", True),
        ("/usr/local/bin/containerd", "1.7.24", False),
        ("/opt/containerd", "1.7.24", False),  # nobody asked that one for its version
        ("", "1.7.24", False),
    ],
)
def test_the_containerd_in_use_is_the_one_that_its_unit_starts(starts: str, version: str, package: bool) -> None:
    node = nodes.bare(
        binaries={
            "/usr/bin/containerd": Binary(version="2.1.9~ds1", component="containerd"),
            "/usr/local/bin/containerd": Binary(version="1.7.24", component="containerd"),
        },
        packages={"containerd": Package(version="2.1.9~ds1-1")},
        units={"containerd": Unit(load="loaded", active="active", exec_start=f"{starts} --log-level=info")},
    )
    policy = nodes.policy()
    assert programs.in_use(node, policy, "containerd") == version
    assert programs.packaged(node, policy, "containerd") is package
