"""What the node script reads of the kubelet: its user and range, who else has IDs, its pods and its config."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.deploy.node_trees import ROOT, Tree, kubelet, link
from userns.node import HostIds, PodIds, RunningKubelet

PODS = "var/lib/kubelet/pods"


def test_sub_ids_are_all_there(tree: Tree, shell: list[str]) -> None:
    lines = [
        "# mine",
        "",
        "# caf\u00e9\tau lait",
        "\u00fcser:1:2",
        "  x ",
        "kubelet:65536:7208960",
        *(f"u{n}:{n}:1" for n in range(600)),
    ]
    tree.write("etc/subuid", "\n".join(lines) + "\n")
    tree.write("etc/subgid", "a:1:2")
    link(tree.programs, ["od"])
    node = tree.read(shell)
    assert (node.subuid, node.subgid) == (tuple(lines), ("a:1:2",))
    (tree.programs / "od").unlink()
    assert [line for line in tree.read(["bash"]).subuid if line.isascii()][2:4] == ["# caf???au lait", "??ser:1:2"]


def test_the_kubelet_and_its_user(tree: Tree, shell: list[str]) -> None:
    tree.write("etc/passwd", "root:x:0:0::/:/bin/sh\nkubelet:x:997:997::/:/usr/sbin/nologin\n")
    tree.program("kubelet", 'echo "Kubernetes v1.34.2"')
    node = tree.read(shell)
    assert (node.kubelet_user, node.kubelet_version) == ("997", "1.34.2")
    tree.program("getent", 'echo "$2:x:42:42::/:/bin/false"')
    assert tree.read(shell).kubelet_user == "42"
    tree.program("getent", "exit 2")
    assert tree.read(shell).kubelet_user == ""


@pytest.mark.parametrize("has_timeout", [True, False])
def test_a_kubelet_that_hangs_costs_a_second(tree: Tree, has_timeout: bool) -> None:
    tree.program("kubelet", "exec sleep 30")
    if not has_timeout:
        (tree.programs / "timeout").unlink()
    node = tree.read()
    assert node.kubelet_version == ""
    assert 0.9 < (node.seconds or 0.0) < 25


# --- what getsubids says --------------------------------------------------------------------------------------------


def test_getsubids_is_asked_as_the_kubelet_asks(tree: Tree, shell: list[str]) -> None:
    tree.write("etc/passwd", "kubelet:x:997:997::/:/usr/sbin/nologin\n")
    tree.program(
        "getsubids",
        """
        [ "$*" != "-g kubelet" ] || { echo "0: kubelet 65536 7208960"; exit; }
        [ "$*" = kubelet ] && printf "0: kubelet * 1\\n1: kubelet \\033[1m 2\\n" """,
    )
    assert tree.read(shell).getsubids == {
        "subuid": ("0: kubelet * 1", "1: kubelet ?[1m 2"),
        "subgid": ("0: kubelet 65536 7208960",),
    }


def test_a_user_without_a_range_is_told_from_a_node_that_was_not_asked(tree: Tree, shell: list[str]) -> None:
    tree.program("getsubids", "echo no; exit 1")
    assert tree.read(shell).getsubids == {}
    tree.write("etc/passwd", "kubelet:x:997:997::/:/usr/sbin/nologin\n")
    assert tree.read(shell).getsubids == {"subuid": (), "subgid": ()}
    (tree.programs / "getsubids").unlink()
    assert tree.read(shell).getsubids == {}


# --- who else has IDs -----------------------------------------------------------------------------------------------


def test_users_and_groups_from_65536_on(tree: Tree, shell: list[str]) -> None:
    tree.write(
        "etc/passwd",
        b"root:x:0:0::/:/bin/sh\nnobody:x:65534:65534::/:/x\nalice:x:65536:1::/:/x\n\xffb:x:4294967295:1::/:/x\n"
        b"c:x:many:1\nd:x\n\ne:x:99999999999:1::/:/x\n+::::::\n",
    )
    tree.write("etc/group", "wheel:x:10:\nstaff:x:70000:alice,bob")
    assert tree.read(shell).host_ids == (
        HostIds(kind="user", name="alice", first=65536, last=65536),
        HostIds(kind="user", name="?b", first=4294967295, last=4294967295),
        HostIds(kind="group", name="staff", first=70000, last=70000),
    )


def test_a_directory_full_of_users_is_summed_up(tree: Tree, shell: list[str]) -> None:
    tree.write("etc/passwd", "".join(f"u{n}:x:{70_000 + n}:1::/:/x\n" for n in range(3000)))
    users = tree.read(shell).host_ids
    assert [each.name for each in users[:200]] == [f"u{n}" for n in range(200)]
    assert users[200:] == (HostIds(kind="user", first=70_200, last=72_999, count=2800),)


# --- pods -----------------------------------------------------------------------------------------------------------


def mapping(start: int, length: int = 65536) -> str:
    """As the kubelet writes it, without a newline."""
    line = f'{{"hostId":{start},"containerId":0,"length":{length}}}'
    return f'{{"uidMappings":[{line}],"gidMappings":[{line}]}}'


def test_the_ids_of_every_pod_are_read(tree: Tree, shell: list[str]) -> None:
    tree.write(f"{PODS}/0f6e/userns", mapping(65536 * 7))
    tree.write(f"{PODS}/1a2b/userns", '{ "uidMappings" : [\n{ "length" : 131072, "hostId" : 4294901760 } ] }\n')
    tree.write(f"{PODS}/2c3d/etc-hosts", "a pod without a user namespace")
    tree.write(f"{PODS}/3e4f/userns", "not JSON")
    tree.write(f"{PODS}/5a6b/userns", "")
    (tree.root / PODS / "dangling").symlink_to("/nowhere")
    assert tree.read(shell).pod_ids == (
        PodIds(pod="0f6e", start=65536 * 7, length=65536),
        PodIds(pod="1a2b", start=4294901760, length=131072),
        PodIds(pod="3e4f"),
    )


def test_pods_are_read_under_the_root_that_is_set(tree: Tree, shell: list[str]) -> None:
    tree.write("srv/my kubelet/pods/a/userns", mapping(65536))
    assert tree.read(shell).pod_ids == ()
    assert tree.read(shell, kubelet_root="/srv/my kubelet").pod_ids == (PodIds(pod="a", start=65536, length=65536),)


def test_no_number_of_pods_floods_the_answer(tree: Tree, shell: list[str]) -> None:
    for number in range(600):
        tree.write(f"{PODS}/pod{number:03}/userns", mapping(65536 * number))
    node = tree.read(shell)
    assert (len(node.pod_ids), node.pods_untold) == (500, 100)
    assert node.pod_ids[499] == PodIds(pod="pod499", start=65536 * 499, length=65536)


def test_hostile_names_and_texts_of_pods_break_nothing(tree: Tree, shell: list[str]) -> None:
    names = (b"new\nline", b"-rf", b"a=b", b"tab\there", b"\xff", b"$(touch pwned)", b"`touch pwned`", b"*", b"%s\\")
    for name in names:
        where = Path(os.fsdecode(os.fsencode(tree.root / PODS) + b"/" + name))
        where.mkdir(parents=True)
        (where / "userns").write_bytes(b'\0\xff"hostId":65536 "length":65536 userns-node-end\n\nuserns-node-end\n')
    (tree.root / PODS / "directory/userns").mkdir(parents=True)
    os.mkfifo(tree.write(f"{PODS}/fifo/other").with_name("userns"))
    tree.write(f"{PODS}/huge/userns", "x" * 3_000_000)
    found = {each.pod: each.length for each in tree.read(shell).pod_ids}
    assert len(found) == len(names) + 1
    assert found["tab?here"] == 65536
    assert found["huge"] is None
    assert not list(tree.root.glob("**/pwned"))


# --- its configuration ----------------------------------------------------------------------------------------------

CONFIG = """\
apiVersion: kubelet.config.k8s.io/v1beta1
# maxPods: 9
cgroupDriver: "systemd" # as containerd
tlsPrivateKeyFile: secret
featureGates: {Other: false, UserNamespacesSupport: false}
maxPods: 250
podsPerCore: 10
userNamespaces:
  idsPerPod: 131072\r
"""


def test_of_the_kubelets_configuration_only_what_concerns_us(tree: Tree, shell: list[str]) -> None:
    tree.write("var/lib/kubelet/config.yaml", CONFIG)
    assert tree.read(shell).kubelet_config == {
        "cgroupDriver": "systemd",
        "UserNamespacesSupport": "false",
        "maxPods": "250",
        "idsPerPod": "131072",
    }
    assert "secret" not in "".join(tree.run(shell))


def test_a_configuration_in_json(tree: Tree, shell: list[str]) -> None:
    tree.write("var/lib/kubelet/config.yaml", '{"cgroupDriver":"cgroupfs","maxPods": 58, "x":{"idsPerPod" :65536}}')
    assert tree.read(shell).kubelet_config == {"cgroupDriver": "cgroupfs", "maxPods": "58", "idsPerPod": "65536"}


def test_a_kubelet_that_runs_says_where_its_configuration_is(tree: Tree, shell: list[str]) -> None:
    (tree.root / "var/lib/kubelet").mkdir(parents=True)
    tree.write("var/lib/kubelet/config.yaml", "maxPods: 1\n")
    tree.write("etc/kubernetes/my kubelet.json", '{"maxPods": 2, "cgroupDriver": "systemd"}')
    assert tree.read(shell).running_kubelet is None
    kubelet(tree, "--config=/etc/kubernetes/my kubelet.json", "--node-labels", "a=secret")
    node = tree.read(shell)
    assert node.kubelet_config == {"maxPods": "2", "cgroupDriver": "systemd"}
    assert node.running_kubelet == RunningKubelet()
    assert "secret" not in "".join(tree.run(shell))


def test_a_kubelet_without_a_file_has_none(tree: Tree, shell: list[str]) -> None:
    tree.write("var/lib/kubelet/config.yaml", "maxPods: 1\n")
    kubelet(tree, "--kubeconfig=/x")
    assert tree.read(shell).kubelet_config == {}


def test_drop_ins_come_after_it_in_the_order_of_their_names(tree: Tree, shell: list[str]) -> None:
    tree.write("etc/k.yaml", "maxPods: 1\nidsPerPod: 65536\ncgroupDriver: cgroupfs\n")
    tree.write("etc/k.d/20-b/x.conf", "maxPods: 4\n")
    tree.write("etc/k.d/20-b/y.yaml", "maxPods: 99\n")
    tree.write("etc/k.d/10-a.conf", "maxPods: 2\nfeatureGates:\n  UserNamespacesSupport: true\n")
    tree.write("etc/k.d/20-a b.conf", "maxPods: 3\nidsPerPod: 131072\n")
    tree.write("etc/k.d/.hidden.conf", "cgroupDriver: systemd\nmaxPods: 0\nfailCgroupV1: false # for now\n")
    kubelet(tree, "--config", "/etc/k.yaml", "--config-dir", "/etc/k.d")
    assert tree.read(shell).kubelet_config == {
        "maxPods": "4",
        "idsPerPod": "131072",
        "cgroupDriver": "systemd",
        "failCgroupV1": "false",
        "UserNamespacesSupport": "true",
    }


def test_flags_win_however_they_are_written(tree: Tree, shell: list[str]) -> None:
    kubelet(
        tree,
        "--config=/etc/k.yaml",
        "--fail-swap-on",
        "--max_pods",
        "58",
        "--register-node",
        "--feature-gates=A=true,UserNamespacesSupport=true",
        "--container-runtime-endpoint=unix:///run/crio/crio.sock",
        "--bootstrap-kubeconfig=*",
        "--cgroup-driver=",
        "--fail-cgroupv1=F",
        "--root-dir=/srv/kubelet",
        "--feature-gates=B=1,UserNamespacesSupport=F",
        "--feature-gates=A=false",
    )
    (tree.root / "srv/kubelet").mkdir(parents=True)
    tree.write("etc/k.yaml", "maxPods: 1\nfailCgroupV1: true\nUserNamespacesSupport: true\n")
    node = tree.read(shell)
    assert node.running_kubelet == RunningKubelet(root="/srv/kubelet", uses_root=False)
    assert node.kubelet_config == {
        "maxPods": "58",
        "UserNamespacesSupport": "false",
        "failCgroupV1": "false",
        "containerRuntimeEndpoint": "unix:///run/crio/crio.sock",
    }


def test_drop_ins_alone_and_by_a_link_and_relative(tree: Tree, shell: list[str]) -> None:
    tree.write("srv/k.d/a.conf", "maxPods: 5\n")
    (tree.root / "srv/link").symlink_to("k.d")
    kubelet(tree, "--config-dir=/srv/k.d")
    assert tree.read(shell).kubelet_config == {"maxPods": "5"}
    kubelet(tree, "--config-dir=/srv/link")  # the kubelet does not follow it
    assert tree.read(shell).kubelet_config == {}
    kubelet(tree, "--config-dir=k.d")
    (tree.root / "proc/700/cwd").symlink_to(tree.root / "srv")
    assert tree.read(shell).kubelet_config == {"maxPods": "5"}


def test_a_kubelet_with_a_root_directory_of_its_own(tree: Tree, shell: list[str]) -> None:
    tree.write("etc/k.yaml", "maxPods: 1\n")
    tree.write("container/etc/k.yaml", "maxPods: 2\n")
    (tree.root / "var/lib/kubelet").mkdir(parents=True)
    (tree.root / "container/var/lib/kubelet").mkdir(parents=True)
    kubelet(tree, "--config=/etc/k.yaml")
    (tree.root / "proc/700/root").symlink_to(tree.root / "container")
    node = tree.read(shell)
    assert node.kubelet_config == {"maxPods": "2"}
    assert node.running_kubelet == RunningKubelet(uses_root=False)


def test_a_root_that_is_not_made_yet_is_the_one_of_its_name(tree: Tree, shell: list[str]) -> None:
    kubelet(tree, "--root-dir=/var/lib/kubelet/")
    assert tree.read(shell).running_kubelet == RunningKubelet(root="/var/lib/kubelet/")
    assert tree.read(shell, kubelet_root="/srv/kubelet").running_kubelet == RunningKubelet(
        root="/var/lib/kubelet/", uses_root=False
    )


def test_what_is_only_called_so_is_not_the_kubelet(tree: Tree, shell: list[str]) -> None:
    for pid, flag in enumerate(("--version", "--version=raw", "--help", "-h"), 10):
        kubelet(tree, flag, pid=pid)
    kubelet(tree, "--max-pods=1", pid=20, cgroup="/user.slice/user-1000.slice/session-1.scope")
    kubelet(tree, pid=21)
    (tree.root / "proc/21/cmdline").write_text("")  # it has just ended
    assert tree.read(shell).running_kubelet is None
    kubelet(tree, "--max-pods=2", pid=812)
    assert tree.read(shell).kubelet_config == {"maxPods": "2"}
    kubelet(tree, "--max-pods=3", pid=813)
    assert tree.read(shell).running_kubelet is None  # who knows
    kubelet(tree, "--max-pods=4", pid=814, cgroup="/system.slice/kubelet.service")
    assert tree.read(shell).kubelet_config == {"maxPods": "4"}
    if ROOT:
        for name in ("812", "813", "814"):
            os.chown(tree.root / "proc" / name, 1000, 1000)
        assert tree.read(shell).running_kubelet is None


def test_a_root_by_another_name_is_the_same_root(tree: Tree, shell: list[str]) -> None:
    (tree.root / "srv/kubelet").mkdir(parents=True)
    (tree.root / "var/lib").mkdir(parents=True, exist_ok=True)
    (tree.root / "var/lib/kubelet").symlink_to("../../srv/kubelet")
    kubelet(tree, "--root-dir=/srv/kubelet/")
    node = tree.read(shell)
    assert node.running_kubelet is not None
    assert node.running_kubelet.uses_root


@pytest.mark.parametrize(
    "line",
    [
        "containerRuntimeEndpoint: unix:///run/crio/crio.sock # CRI-O",
        'containerRuntimeEndpoint: "unix:///run/crio/crio.sock"\r',
        '{"a":1,"containerRuntimeEndpoint":"unix:///run/crio/crio.sock","b":2}',
    ],
)
def test_the_runtime_of_a_kubelet_is_in_its_files_too(tree: Tree, shell: list[str], line: str) -> None:
    tree.write("var/lib/kubelet/config.yaml", f"{line}\n")
    assert tree.read(shell).kubelet_config == {"containerRuntimeEndpoint": "unix:///run/crio/crio.sock"}
