"""The node script, run by real shells: its cost, missing tools, the machine, and its file systems.

What it reads of files is in test_node_script_configuration.py and test_node_script_installed.py, its probes are in
test_probe_script.py. All of them run it with node_trees.py, against trees that we make up.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import resource
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tasks.files import script
from tasks.node import Node as Fact
from tasks.node import text
from tests.deploy.node_trees import EVERYDAY, ROOT, Tree, link, run
from tests.selinux import RUNTIME, enforce
from userns import paths
from userns.node import ConfLine, FileState, Node, Overlay, SelinuxDomain
from userns.reading import read
from userns.reading.records import ReadingError

# --- what every shell must read ----------------------------------------------------------------------------------


def test_every_shell_reads_the_same_node(shell: list[str]) -> None:
    def lasting(node: Node) -> Node:
        same = {name: each.model_copy(update={"free_kib": None}) for name, each in node.filesystems.items()}
        return node.model_copy(update={"seconds": None, "tools": (), "filesystems": same})

    assert lasting(read(run(shell))) == lasting(read(run(["sh"])))


def test_this_machine_is_what_the_kernel_says() -> None:
    node = read(run(["sh"]))
    assert node.kernel == os.uname().release
    assert node.machine == os.uname().machine
    assert node.root == ROOT
    assert node.sysctls["user.max_user_namespaces"] == int(Path("/proc/sys/user/max_user_namespaces").read_text())
    state = os.statvfs("/usr/local/bin")
    free = node.filesystems["install"].free_kib
    assert free is not None
    assert abs(free - state.f_bavail * state.f_frsize // 1024) < 1024 * 1024


def test_it_costs_little() -> None:
    """30 ms of CPU on two slow cores; wall time would measure who else is at work, and so does one run in three."""
    costs = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        run(["sh"])
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        costs.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(costs) < 0.3


def test_the_command_fits_into_one_argument_however_often_it_is_quoted() -> None:
    """A connector quotes the command up to three times; Linux takes 128 KiB an argument."""
    command = Fact().command().get_raw_value()
    for _ in range(3):
        command = "'" + command.replace("'", "'\"'\"'") + "'"
    assert len(command) < 100_000
    assert len(text()) < 64_000
    assert text().isascii()


def test_an_answer_that_was_killed_on_its_way_is_refused(tree: Tree) -> None:
    lines = tree.run()
    for cut in range(len(lines)):
        with pytest.raises(ReadingError):
            read(lines[:cut])


# --- missing tools -----------------------------------------------------------------------------------------------


def test_a_node_with_no_program_at_all_still_answers(tree: Tree) -> None:
    tree.write(paths.CONFIG[1:])
    tree.only()
    node = tree.read(["dash"] if shutil.which("dash") else ["bash", "--posix"])
    assert node.kernel == os.uname().release
    assert node.tools == ()
    assert node.files[paths.CONFIG] == FileState(kind="file")
    assert {probe.result for probe in node.probes.values()} == {"unknown"}


@pytest.mark.parametrize("missing", EVERYDAY)
def test_no_tool_is_necessary(tree: Tree, shell: list[str], missing: str) -> None:
    tree.write(paths.CONFIG[1:], "version = 3\n", 0o600)
    tree.write("etc/modprobe.d/x.conf", "blacklist overlay\n")
    (tree.programs / missing).unlink(missing_ok=True)
    if (shell, missing) == (["mksh"], "printf"):  # the one shell that has none of its own
        with pytest.raises(AssertionError, match="printf: inaccessible or not found"):
            tree.read(shell)
        return
    node = tree.read(shell)
    digest = hashlib.sha256(b"version = 3\n").hexdigest()
    assert node.files[paths.CONFIG] == FileState(
        kind="file", sha256=digest, mode="600", owner=f"{os.geteuid()}:{os.getegid()}"
    )
    assert node.modprobe_lines == (ConfLine(file="/etc/modprobe.d/x.conf", line="blacklist overlay"),)


def test_without_any_digest_tool_the_digest_is_unknown(tree: Tree) -> None:
    tree.write(paths.CONFIG[1:])
    for name in ("sha256sum", "busybox"):
        (tree.programs / name).unlink(missing_ok=True)
    assert tree.read().files[paths.CONFIG].sha256 == ""
    if shutil.which("openssl"):
        link(tree.programs, ["openssl"])
        assert tree.read().files[paths.CONFIG].sha256 == hashlib.sha256(b"").hexdigest()


def test_the_tools_are_those_on_path(tree: Tree) -> None:
    tree.only("tr", "uname")
    tree.program("curl", "exit 0")
    tree.program("flock", "exit 0")
    assert tree.read(["dash"] if shutil.which("dash") else ["bash"]).tools == ("curl", "flock")


# --- the machine -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ('NAME="Debian"\nVERSION_ID="13"\nID=debian\n', ("debian", "13")),
        ("ID='arch'", ("arch", "")),
        ("", ("", "")),
        (b"ID=\xff\xfe\tx\nVERSION_ID=$(touch pwned)\n", ("???x", "$(touch pwned)")),
    ],
)
def test_the_distribution(tree: Tree, shell: list[str], content: str | bytes, expected: tuple[str, str]) -> None:
    tree.write("etc/os-release", content)
    node = tree.read(shell)
    assert (node.os_id, node.os_version) == expected
    assert not (tree.root / "pwned").exists()


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, "none"),
        ({"proc/1/environ": b"PATH=/bin\0container=lxc\0container_uuid=1\0A=* [a-z]\0"}, "lxc"),
        ({"proc/1/environ": b"A=b container=lxc\0"}, "none"),
        ({".dockerenv": b""}, "docker"),
        ({"run/.containerenv": b""}, "podman"),
    ],
)
def test_a_container_is_recognised_without_systemd(tree: Tree, files: dict[str, bytes], expected: str) -> None:
    (tree.programs / "systemd-detect-virt").unlink()
    for path, content in files.items():
        tree.write(path, content)
    assert tree.read().container == expected


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("sys/fs/cgroup/cgroup.controllers", "v2"),
        ("sys/fs/cgroup/unified/cgroup.controllers", "hybrid"),
        ("sys/fs/cgroup/memory/tasks", "v1"),
        ("sys/fs/other", "unknown"),
    ],
)
def test_the_kind_of_cgroups(tree: Tree, path: str, expected: str) -> None:
    tree.write(path)
    assert tree.read().cgroup == expected


@pytest.mark.parametrize(
    ("files", "state", "metacopy"),
    [
        ({"sys/module/overlay/initstate": "live\n", "sys/module/overlay/parameters/metacopy": "Y\n"}, "loaded", "Y"),
        ({"sys/module/overlay/parameters/metacopy": "N\n"}, "builtin", "N"),
        ({"proc/filesystems": "nodev\ttmpfs\nnodev\toverlay\n"}, "builtin", ""),
        (
            {"proc/filesystems": "", f"lib/modules/{os.uname().release}/kernel/fs/overlayfs/overlay.ko.xz": ""},
            "module",
            "",
        ),
        ({"proc/filesystems": "nodev\tnotoverlay\n"}, "absent", ""),
        ({}, "unknown", ""),
    ],
)
def test_the_state_of_overlay(tree: Tree, shell: list[str], files: dict[str, str], state: str, metacopy: str) -> None:
    for path, content in files.items():
        tree.write(path, content)
    overlay = tree.read(shell).overlay
    assert (overlay.state, overlay.metacopy) == (state, metacopy)


@pytest.mark.parametrize(
    ("place", "content", "default"),
    [
        ("boot/config-{kernel}", "CONFIG_OVERLAY_FS=m\nCONFIG_OVERLAY_FS_METACOPY=y\n", "Y"),
        ("lib/modules/{kernel}/config", "CONFIG_OVERLAY_FS_METACOPY=y", "Y"),
        ("lib/modules/{kernel}/config", "# CONFIG_OVERLAY_FS_METACOPY is not set\n", "N"),
        ("proc/config.gz", "CONFIG_OVERLAY_FS_METACOPY=y\n", "Y"),
        ("proc/config.gz", "CONFIG_OVERLAY_FS_METACOPY_DEBUG=y\n", "N"),
        ("boot/config", "CONFIG_OVERLAY_FS_METACOPY=y\n", ""),
    ],
)
def test_what_the_kernel_will_load_overlay_with(
    tree: Tree, shell: list[str], place: str, content: str, default: str
) -> None:
    kernel = os.uname().release
    link(tree.programs, ["gzip"])
    data = content.encode()
    tree.write(place.format(kernel=kernel), gzip.compress(data) if place.endswith(".gz") else data)
    tree.write("proc/filesystems")
    tree.write(f"lib/modules/{kernel}/kernel/fs/overlayfs/overlay.ko")
    assert tree.read(shell).overlay == Overlay.model_validate({"state": "module", "default": default})
    tree.write("sys/module/overlay/initstate", "live\n")
    assert tree.read(shell).overlay == Overlay(state="loaded")


def test_in_a_container_a_module_on_no_disk_of_ours_is_unknown(tree: Tree) -> None:
    tree.program("systemd-detect-virt", "echo lxc")
    tree.write("proc/filesystems", "nodev\ttmpfs\n")
    assert tree.read().overlay.state == "unknown"


@pytest.mark.parametrize(("content", "expected"), [("1", "enforcing"), ("0", "permissive")])
def test_selinux(tree: Tree, content: str, expected: str) -> None:
    assert tree.read().selinux == ""
    tree.write("sys/fs/selinux/enforce", content)
    assert tree.read().selinux == expected


@pytest.mark.parametrize(
    ("allowed", "flags", "denied"),
    [("3ffffff", "0", ()), ("3ffffdf", "0", ("process ptrace",)), ("3ffffdf", "1", ()), ("hello", "0", ())],
)
def test_the_policy_is_asked_what_containerd_may(
    tree: Tree, shell: list[str], allowed: str, flags: str, denied: tuple[str, ...]
) -> None:
    tree.program("matchpathcon", 'case $* in */local/*) echo "label of $*" ;; esac')
    enforce(tree.root, allowed, flags)
    expected = {"/usr/local/bin/containerd": SelinuxDomain(context=RUNTIME, denied=denied)}
    assert tree.read(shell).selinux_domains == expected


def test_an_older_kernel_asks_nobody_for_a_user_namespace(tree: Tree, shell: list[str]) -> None:
    tree.program("matchpathcon", 'case $* in */local/*) echo "label of $*" ;; esac')
    enforce(tree.root, "3ffffff")
    for name, content in {"index": "2", "perms/create": "27"}.items():  # a bit that is not set
        tree.write(f"sys/fs/selinux/class/user_namespace/{name}", content)
    for kernel, denied in (("6.1.0", ("user_namespace create",)), ("5.14.0-570", ())):
        tree.program("uname", f"echo {kernel} x86_64")
        enforce(tree.root, "3ffffff")
        assert tree.read(shell).selinux_domains["/usr/local/bin/containerd"].denied == denied


def test_a_policy_that_does_not_answer_is_no_finding(tree: Tree, shell: list[str]) -> None:
    enforce(tree.root, "3ffffdf")
    assert tree.read(shell).selinux_domains == {}
    tree.program("matchpathcon", "exit 1")
    (tree.root / "sys/fs/selinux/create").unlink()
    assert tree.read(shell).selinux_domains == {}


# --- file systems ------------------------------------------------------------------------------------------------


def test_a_root_that_does_not_exist_is_looked_up_on_the_nearest_directory(tree: Tree, shell: list[str]) -> None:
    (tree.root / "var/lib").mkdir(parents=True)
    (tree.root / "srv/a b").mkdir(parents=True)
    node = tree.read(shell, containerd_root="/srv/a b/containerd/", kubelet_root="/nowhere/kubelet")
    assert node.filesystems["containerd-root"].parent == "/srv/a b"
    assert node.filesystems["kubelet-root"].parent == "/"
    assert node.filesystems["state"].parent == "/var/lib"
    assert {each.type for each in node.filesystems.values()} == {node.filesystems["state"].type}
    assert all((each.free_kib or 0) > 0 for each in node.filesystems.values())


def test_the_snapshotters_own_directory_counts_where_it_exists(tree: Tree) -> None:
    (tree.root / "var/lib/containerd/io.containerd.snapshotter.v1.overlayfs").mkdir(parents=True)
    (tree.root / "var/lib/kubelet/pods").mkdir(parents=True)
    node = tree.read()
    assert node.filesystems["containerd-root"].path == "/var/lib/containerd"
    assert node.filesystems["containerd-root"].parent == "/var/lib/containerd/io.containerd.snapshotter.v1.overlayfs"
    assert node.filesystems["kubelet-root"].parent == "/var/lib/kubelet/pods"


@pytest.mark.usefixtures("as_root")
def test_the_type_is_that_of_the_mount_on_top(tmp_path: Path, shell: list[str]) -> None:
    inside = tmp_path / "a b"
    inside.mkdir()
    script = 'mount -t tmpfs none "$1"; mount -t ramfs none "$1"; shift; exec "$@"'
    private = ["unshare", "-m", "--propagation", "private", "sh", "-c", script, "sh", str(inside)]
    node = read(run([*private, *shell], containerd_root=f"{inside}/containerd"))
    assert node.filesystems["containerd-root"].type == "ramfs"
    assert node.probes["containerd-root"].model_dump() == {
        "result": "cannot",
        "step": "mount_setattr",
        "errno": "EINVAL",
        "detail": "Invalid argument",
    }
    assert node.probes["overlay"].errno == "EINVAL"


@pytest.mark.usefixtures("as_root")
@pytest.mark.parametrize("options", ["remount,ro", "remount,bind,ro"])  # the file system, or this mount of it
def test_what_is_mounted_read_only_is_told(tree: Tree, shell: list[str], options: str) -> None:
    directory = tree.write("usr/local/bin/x").parent
    script = f'mount -t tmpfs none "$1"; mount -o {options} "$1"; shift; exec "$@"'
    private = ["unshare", "-m", "--propagation", "private", "sh", "-c", script, "sh", str(directory)]
    told = read(run([*private, *shell], {"USERNS_NODE_ROOT": str(tree.root)})).filesystems
    assert (told["install"].read_only, told["state"].read_only) == (True, False)


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (None, False),
        (lambda directory: directory.mkdir(parents=True), False),
        (lambda directory: (directory / "1/fs").mkdir(parents=True), True),
    ],
)
def test_whether_containerd_holds_a_snapshot(
    tree: Tree, shell: list[str], make: Callable[[Path], None] | None, expected: bool
) -> None:
    if make:
        make(tree.root / "var/lib/containerd/io.containerd.snapshotter.v1.overlayfs/snapshots")
    assert tree.read(shell).snapshots is (expected if ROOT or make else None)


def test_the_layers_of_others_are_told_by_their_place(tree: Tree, shell: list[str]) -> None:
    for place in (
        "docker/overlay2/l",
        "docker/overlay2/a/diff",
        "docker/overlay2/b/diff",
        "containers/storage/overlay/l",
    ):
        (tree.root / "var/lib" / place).mkdir(parents=True)
    snapshots = "var/lib/rancher/k3s/agent/containerd/io.containerd.snapshotter.v1.overlayfs/snapshots"
    (tree.root / snapshots / "1").mkdir(parents=True)
    assert tree.read(shell).other_layers == ("/var/lib/docker/overlay2", f"/{snapshots.rpartition('/')[0]}")


@pytest.mark.parametrize(
    ("shown", "directory"),
    [
        ("MainPID=0\nEnvironment=TMPDIR=%s A=b", "%s"),
        ("MainPID=0\nEnvironment=A=b TMPDIR=%s", "%s"),
        ('MainPID=0\nEnvironment=A=b "TMPDIR=%s"', "%s"),
        ("MainPID=0\nEnvironment=XTMPDIR=%s", "/tmp"),
        ("MainPID=0\nEnvironment=NOTMPDIR=/etc TMPDIR=%s", "%s"),
        ("MainPID=0\nEnvironment=TMPDIR=/no/such/directory", "/tmp"),
        ("MainPID=0\nEnvironment=", "/tmp"),
    ],
)
def test_containerd_that_does_not_run_is_looked_up_in_its_unit(
    tree: Tree, shell: list[str], shown: str, directory: str
) -> None:
    """Where it makes its own test of overlay below Linux 5.19."""
    there = tree.root / "there"
    there.mkdir()
    (tree.root / "run/systemd/system").mkdir(parents=True)
    (tree.root / "shown").write_text(shown.replace("%s", str(there)) + "\n")
    text = (
        f"{script('node-kernel.sh')}\ncd {tree.root}\nhave() {{ :; }}\n"
        'systemctl() { cat shown; }\nlimit() { shift; "$@"; }\ntemporary_directory\necho "$temporary"\n'
    )
    done = subprocess.run([*shell, "-c", text], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == directory.replace("%s", str(there))
