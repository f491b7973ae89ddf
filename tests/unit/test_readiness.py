"""Readiness beyond the kernel: the snapshotter, a node and its policy, and what holds for any combination.

What each kernel's answers amount to is in test_readiness_kernels.py.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.readiness_cases import ALL_OK, OLD, blockers, ids, ready
from userns import readiness, requirements, tables
from userns.findings import Severity, apply_allow
from userns.node import Filesystem, Node, Probe
from userns.policy import Policy

# --- snapshotters --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("snapshotter", "given", "rootfs"),
    [
        ("devmapper", {}, "chown"),
        ("native", {}, "chown"),
        ("native", {"remaps": True}, "chown"),
        ("zfs", {}, "chown"),
        ("zfs", {"remaps": True}, "chown"),
        ("erofs", {"containerd": "2.3.0"}, "idmapped"),
        ("erofs", {"containerd": "2.3.0-rc.1"}, "idmapped"),
        ("erofs", {"containerd": "2.2.8"}, "chown"),
        ("stargz", {}, "chown"),
        ("stargz", {"remaps": True}, "idmapped"),
        ("fuse-overlayfs", {}, "chown"),
        ("fuse-overlayfs", {"remaps": True}, "idmapped"),
        ("somebodys", {}, "chown"),
        ("somebodys", {"remaps": True}, "idmapped"),
    ],
)
def test_another_snapshotter_is_told_its_consequence(snapshotter: str, given: dict[str, Any], rootfs: str) -> None:
    found = ready(snapshotter=snapshotter, **given)
    assert found.rootfs == rootfs
    assert ("snapshotter-chowns" in ids(found)) is (rootfs == "chown")
    assert not found.slow_chown


@pytest.mark.parametrize("snapshotter", ["zfs", "native", "erofs"])
def test_one_that_is_built_in_is_not_told_of_a_capability(snapshotter: str) -> None:
    found = ready(snapshotter=snapshotter, containerd="2.2.8")
    (chowns,) = [each for each in found.findings if each.id == "snapshotter-chowns"]
    assert "the image is copied by changing the owner of every file" in chowns.message
    assert "proxy_plugins" not in chowns.message


def test_before_erofs_idmaps_it_is_not_told_what_it_does_since() -> None:
    found = ready(snapshotter="erofs", containerd="2.2.0")
    (chowns,) = [each for each in found.findings if each.id == "snapshotter-chowns"]
    assert chowns.message.startswith("snapshotter erofs, which idmaps from containerd 2.3 on: for each pod")
    assert "it idmaps, and refuses" not in chowns.message


def test_erofs_has_no_slow_chown_to_fall_back_on() -> None:
    assert blockers(ready("5.15", snapshotter="erofs", probes=OLD, kubernetes="1.26")) == {"overlay-cannot-idmap"}


@pytest.mark.parametrize("probes", [OLD, {}], ids=["probed", "unprobed"])
def test_on_a_kernel_that_erofs_is_too_new_for_no_file_system_is_advised(probes: dict[str, Probe]) -> None:
    found = ready("5.15.0-9", snapshotter="erofs", probes=probes, kubernetes="1.26", os_id="ubuntu", os_version="22.04")
    (said,) = [each.message for each in found.findings if each.id == "overlay-cannot-idmap"]
    assert "boot Linux 5.19 or later" in said
    assert "linux-generic-hwe-22.04" in said
    assert "put containerd_root on" not in said
    newer = ready("6.8.0", snapshotter="erofs", probes=ALL_OK | {"overlay": OLD["overlay"]})
    (said,) = [each.message for each in newer.findings if each.id == "overlay-cannot-idmap"]
    assert "put containerd_root on" in said


def test_a_candidate_of_2_0_idmaps_as_2_0_does() -> None:
    assert ready(containerd="2.0.0-rc.1").tier == ready(containerd="2.0.0").tier == "idmapped"


def test_slow_chown_is_overlayfs_alone() -> None:
    found = ready("5.15", snapshotter="devmapper", probes=OLD, kubernetes="1.26", slow_chown=True)
    assert not found.slow_chown
    assert "slow-chown-has-no-effect" in ids(found)


# --- of a node -----------------------------------------------------------------------------------------------------


def policy(**given: Any) -> Policy:
    values: dict[str, Any] = {
        "kubernetes_version": "1.36",
        "containerd_version": "2.3.4",
        "slow_chown": "auto",
        "snapshotter": "overlayfs",
        "containerd_root": "/data/containerd",
        "kubelet_root": "/var/lib/kubelet",
        "containerd_config": {},
        "target_kernel": None,
    }
    return cast(Policy, SimpleNamespace(**(values | given)))


NODE = Node(
    kernel="6.12.5",
    machine="x86_64",
    probes=ALL_OK,
    filesystems={"containerd-root": Filesystem(path="/data/containerd", parent="/data", type="ext4")},
)


def test_a_node_is_judged_by_its_probes() -> None:
    found = readiness.of_node(NODE, policy())
    assert found.tier == "idmapped"
    old = NODE.model_copy(update={"probes": {}, "zfs_version": "2.1.5"})
    zfs = {"containerd-root": NODE.filesystems["containerd-root"].model_copy(update={"type": "zfs"})}
    assert readiness.of_node(old.model_copy(update={"filesystems": zfs}), policy()).tier == "unsupported"
    assert "/data/containerd (ext4) can be idmapped" in dict(found.reasons)


@pytest.mark.parametrize(
    ("config", "rootfs"),
    [
        ({"proxy_plugins": {"nydus": {"capabilities": ["remap-ids"]}}}, "idmapped"),
        ({"proxy_plugins": {"nydus": {"capabilities": []}}}, "chown"),
        ({"proxy_plugins": {"nydus": {}}}, "chown"),
        ({"proxy_plugins": {"nydus": "x"}}, "chown"),
        ({"proxy_plugins": 3}, "chown"),
        ({}, "chown"),
    ],
)
def test_a_proxy_snapshotter_idmaps_where_the_config_says_so(config: dict[str, Any], rootfs: str) -> None:
    assert readiness.of_node(NODE, policy(snapshotter="nydus", containerd_config=config)).rootfs == rootfs


# --- properties ----------------------------------------------------------------------------------------------------

probe = st.builds(
    Probe,
    result=st.sampled_from(["ok", "cannot", "unknown"]),
    step=st.sampled_from(["", "unshare", "open_tree", "mount_setattr", "overlay", "tmpfs", "owner"]),
    errno=st.sampled_from(["", "ENOSYS", "EINVAL", "EPERM", "ENOSPC", "EUSERS", "ENODEV", "EBUSY", "E2BIG"]),
    detail=st.sampled_from(["", "no perl"]),
)
keys = st.sampled_from([*ALL_OK, "containerd-check"])


@given(
    kernel=st.sampled_from(["4.18", "5.10.0", "5.12", "5.15.0-1-amd64", "5.18", "5.19", "6.1", "6.3", "7.2", "?", ""]),
    kubernetes=st.sampled_from(["1.24", "1.25", "1.26.3", "1.27", "1.33", "1.36", "1.40"]),
    containerd=st.sampled_from(["1.6.39", "1.7.0", "1.7.34", "2.0.0", "2.1.9", "2.2.8", "2.3.4", "2.4.2"]),
    slow_chown=st.sampled_from(["auto", True, False]),
    snapshotter=st.sampled_from([*tables.SNAPSHOTTERS, "somebodys"]),
    remaps=st.booleans(),
    probes=st.dictionaries(keys, probe),
    type=st.sampled_from(["", "ext4", "zfs", "nfs", "fuse.x", "overlay", "new"]),
)
def test_any_combination_has_an_answer_that_agrees_with_itself(
    kernel: str,
    kubernetes: str,
    containerd: str,
    slow_chown: bool | str,
    snapshotter: str,
    remaps: bool,
    probes: dict[str, Probe],
    type: str,
) -> None:
    found = readiness.assess(
        kernel=kernel,
        kubernetes=kubernetes,
        containerd=containerd,
        slow_chown=slow_chown,
        snapshotter=snapshotter,
        remaps=remaps,
        probes=probes,
        filesystems={"containerd-root": type, "kubelet-root": type},
    )
    unsupported = found.rootfs == "none" or (found.volumes == "none" and found.idmaps_volumes)
    assert (found.tier == "unsupported") is unsupported
    assert (found.tier == "chown") <= (found.rootfs == "chown")
    assert (found.tier == "idmapped") <= (found.rootfs == "idmapped" and found.volumes == "all")
    assert found.assumed is ("idmap-not-probed" in ids(found))
    assert all(each.id in tables.KNOWN_IDS for each in found.findings)
    assert found.reasons
    assert found.summary
    assert found.slow_chown_reason or not found.slow_chown

    if containerd.startswith("1."):
        assert not found.slow_chown
    if slow_chown is False:
        assert not found.slow_chown
    if slow_chown == "auto" and kernel in ("5.19", "6.1", "6.3", "7.2"):
        assert not found.slow_chown
    if requirements.stack(kubernetes, containerd) is not None:
        assert (found.tier == "unsupported") <= bool(blockers(found))
        if found.idmaps_volumes:
            assert (found.volumes != "all") <= bool(blockers(found))

    allowed = apply_allow(list(found.findings), list(ids(found)))
    assert {each.id for each in allowed} == ids(found)
    assert not any(each.severity is Severity.BLOCKER for each in allowed)
    assert all(each.allowed for each in allowed if each.id in blockers(found))
