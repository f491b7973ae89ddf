"""What the node script reads of the mounts below the kubelet's root."""

from __future__ import annotations

import pytest

from tests.conftest import program
from tests.deploy.node_trees import Tree
from tests.deploy.test_node_script_kubelet import CONFIG, PODS, mapping
from userns.node import Mounts


def mountinfo(*mounts: tuple[str, str]) -> str:
    """Lines of mountinfo for these mount points, as the kernel escapes them, and their file systems."""
    shared = ("", "master:7 ", "shared:1 master:2 ")
    return "".join(
        f"{number + 20} 19 0:{number} / {path} rw,relatime {shared[number % 3]}- {type_} server:/x - rw\n"
        for number, (path, type_) in enumerate(mounts)
    )


def test_mounts_below_the_kubelets_root_are_named_by_file_system(tree: Tree, shell: list[str]) -> None:
    (tree.root / PODS).mkdir(parents=True)
    tree.write(
        "proc/self/mountinfo",
        mountinfo(
            ("/", "ext4"),
            ("/var/lib/kubelet", "xfs"),
            ("/var/lib/kubelet/pods", "xfs"),
            ("/var/lib/kubelet/pods/a/volumes/kubernetes.io~secret/t", "tmpfs"),
            ("/var/lib/kubelet/pods/a/volumes/kubernetes.io~nfs/data", "nfs4"),
            (r"/var/lib/kubelet/plugins/x/with\040blank\134and\011tab", "fuse.sshfs"),
            ("/var/lib/kubelet/pods/b/volumes/over", "tmpfs"),
            ("/var/lib/kubelet/pods/b/volumes/over", "nfs4"),
            ("/var/lib/kubelet2/pods/c", "nfs4"),
            ("/srv/var/lib/kubelet/x", "nfs4"),
        ),
    )
    assert tree.read(shell).kubelet_mounts == {
        "fuse.sshfs": Mounts(count=1, paths=("/var/lib/kubelet/plugins/x/with blank\\and?tab",)),
        "nfs4": Mounts(
            count=2,
            paths=(
                "/var/lib/kubelet/pods/a/volumes/kubernetes.io~nfs/data",
                "/var/lib/kubelet/pods/b/volumes/over",
            ),
        ),
    }


def test_mounts_below_a_root_that_is_a_link(tree: Tree, shell: list[str]) -> None:
    (tree.root / "data/kubelet").mkdir(parents=True)
    (tree.root / "var/lib").mkdir(parents=True)
    (tree.root / "var/lib/kubelet").symlink_to("../../data/kubelet")
    tree.write("proc/self/mountinfo", mountinfo(("/data/kubelet/pods/a/v", "cifs")))
    assert tree.read(shell).kubelet_mounts == {"cifs": Mounts(count=1, paths=("/data/kubelet/pods/a/v",))}


def test_no_number_of_mounts_floods_the_answer(tree: Tree, shell: list[str]) -> None:
    volumes = [(f"/var/lib/kubelet/pods/p{n}/volumes/v", "nfs4" if n % 2 else "ext4") for n in range(2000)]
    tree.write("proc/self/mountinfo", mountinfo(*volumes))
    mounts = tree.read(shell).kubelet_mounts
    assert {name: (each.count, len(each.paths)) for name, each in mounts.items()} == {
        "nfs4": (1000, 200),
        "ext4": (1000, 200),
    }
    assert mounts["nfs4"].paths[0] == volumes[1][0]


def test_without_awk_nothing_is_known_of_them(tree: Tree) -> None:
    tree.write(f"{PODS}/a/userns", mapping(65536))
    (tree.programs / "awk").unlink(missing_ok=True)
    assert tree.read().pod_ids == ()


@pytest.mark.parametrize("awk", ["mawk", "busybox"])
def test_every_awk_says_the_same(tree: Tree, awk: str) -> None:
    tree.write("etc/group", "big:x:70000:\n")
    tree.write(f"{PODS}/a/userns", mapping(65536))
    tree.write("var/lib/kubelet/config.yaml", CONFIG)
    tree.write("proc/self/mountinfo", mountinfo((r"/var/lib/kubelet/pods/a/with\040blank", "nfs4")))
    before = tree.run()
    found = program(awk)
    (tree.programs / "awk").unlink()
    (tree.programs / "awk").symlink_to(found)
    told = ("host-ids", "pod-ids", "kubelet-")
    assert [line for line in tree.run() if line.startswith(told)] == [each for each in before if each.startswith(told)]


def test_the_version_of_zfs(tree: Tree, shell: list[str]) -> None:
    assert tree.read(shell).zfs_version == ""
    tree.write("sys/module/zfs/version", "2.1.11-1\n")
    assert tree.read(shell).zfs_version == "2.1.11"
