"""Mounts below the kubelet's root: which of them no pod with a user namespace can have, one by one."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given

from tests import nodes
from tests.strategies import any_node
from userns import tables
from userns.findings import Finding, Severity
from userns.kubelet.mounts import findings
from userns.node import Mounts, Node, Probe

POD = "/var/lib/kubelet/pods/0f6e/volumes"


def found(kernel: str = "6.12.5", **mounts: Mounts) -> dict[str, Finding]:
    some = nodes.bare(kernel=kernel, kubelet_mounts={name.replace("_", "."): each for name, each in mounts.items()})
    return {each.id: each for each in findings(some)}


def one(path: str = f"{POD}/a") -> Mounts:
    return Mounts(count=1, paths=(path,))


def test_a_node_without_any_says_nothing() -> None:
    assert found() == {}


def test_every_mount_is_named_with_its_file_system() -> None:
    nfs = Mounts(count=2, paths=("/var/lib/kubelet/plugins/x/globalmount", f"{POD}/pvc"))
    told = found(nfs4=nfs, cifs=one())["volumes-cannot-idmap"]
    assert told.severity is Severity.WARNING
    assert f"/var/lib/kubelet/plugins/x/globalmount, {POD}/pvc (nfs4: never)" in told.message
    assert f"{POD}/a (cifs: never)" in told.message


def test_those_that_were_too_many_are_counted() -> None:
    assert (
        f"{POD}/a and 99 more (nfs: never)"
        in found(nfs=Mounts(count=100, paths=(f"{POD}/a",)))["volumes-cannot-idmap"].message
    )


@pytest.mark.parametrize(
    ("type_", "kernel", "id", "said"),
    [
        ("nfs", "6.12.5", "volumes-cannot-idmap", "never"),
        ("overlay", "7.2.12", "volumes-cannot-idmap", "from Linux 7.3 on, and this is 7.2"),
        ("overlay", "7.3.4", "", ""),
        ("hugetlbfs", "6.8.0", "volumes-cannot-idmap", "from Linux 6.9 on, and this is 6.8"),
        ("hugetlbfs", "6.9.0", "", ""),
        ("fuse", "6.11.9", "volumes-cannot-idmap", "from Linux 6.12 on"),
        ("fuse_sshfs", "6.8.1", "volumes-cannot-idmap", "(fuse.sshfs: from Linux 6.12 on"),
        ("fuse_sshfs", "6.12.1", "volumes-may-not-idmap", "FUSE_ALLOW_IDMAP"),
        ("ceph", "6.6.1", "volumes-cannot-idmap", "from Linux 6.7 on"),
        ("ceph", "6.8.1", "volumes-may-not-idmap", "HAS_OWNER_UIDGID"),
        ("btrfs", "5.14.0-570.el9", "volumes-cannot-idmap", "from Linux 5.15 on"),
        ("xfs", "5.14.0-570.el9", "", ""),
        ("zfs", "6.8.0", "volumes-may-not-idmap", "OpenZFS 2.2"),
        ("new-fs", "6.12.5", "volumes-may-not-idmap", "the tables do not know it"),
        ("fuse_new-fs", "6.11.1", "volumes-cannot-idmap", "(fuse.new-fs: from Linux 6.12 on"),
        ("nfs", "5.10.0", "", ""),  # nothing can be idmapped there, which is told already
        ("nfs", "", "", ""),
    ],
)
def test_the_tables_decide_by_file_system_and_kernel(type_: str, kernel: str, id: str, said: str) -> None:
    told = found(kernel, **{type_: one()})
    assert set(told) == ({id} if id else set())
    assert not id or said in told[id].message


def test_what_depends_on_an_option_of_the_mount_stays_open_whatever_version_zfs_has() -> None:
    some = nodes.bare(kernel="6.8.1", zfs_version="2.3.1", kubelet_mounts={"ceph": one()})
    assert [each.id for each in findings(some)] == ["volumes-may-not-idmap"]


@pytest.mark.parametrize(("zfs", "id"), [("2.1.11", "volumes-cannot-idmap"), ("2.2.0", ""), ("2.3.1", "")])
def test_zfs_is_judged_by_its_own_version(zfs: str, id: str) -> None:
    some = nodes.bare(zfs_version=zfs, kubelet_mounts={"zfs": one()})
    assert [each.id for each in findings(some)] == ([id] if id else [])


def test_what_this_very_kernel_has_idmapped_it_can_idmap() -> None:
    place = nodes.bare().filesystems["kubelet-root"].model_copy(update={"type": "btrfs"})
    fields: dict[str, Any] = {"kernel": "5.14.0-570.el9", "kubelet_mounts": {"btrfs": one()}}
    proven = nodes.bare(filesystems={"kubelet-root": place}, **fields)
    assert list(findings(proven)) == []
    failed = nodes.bare(
        filesystems={"kubelet-root": place}, probes={"kubelet-root": Probe(result="cannot", errno="EINVAL")}, **fields
    )
    assert [each.id for each in findings(failed)] == ["volumes-cannot-idmap"]


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"kubernetes_version": "1.36"}, True),
        ({"kubernetes_version": "1.26", "containerd_version": "1.7.34", "runc_version": "1.1.14"}, False),
    ],
)
def test_only_where_kubernetes_idmaps_volumes(settings: dict[str, Any], told: bool) -> None:
    plan = nodes.plan(nodes.bare(kubelet_mounts={"nfs4": one()}), **settings)
    assert ("volumes-cannot-idmap" in {each.id for each in plan.findings}) is told


@given(some=any_node())
def test_any_node_is_judged(some: Node) -> None:
    assert all(each.id in tables.KNOWN_IDS and each.message for each in findings(some))
