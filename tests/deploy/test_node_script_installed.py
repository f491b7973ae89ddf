"""What the node script reads of that which is installed: our files and their record, programs, units and packages."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tasks.files import script
from tests.conftest import program
from tests.deploy.node_trees import ROOT, Tree, process, run
from userns import paths
from userns.node import Binary, FileState, Process, Unit
from userns.reading import read
from userns.reading.records import ReadingError

SHIM = "usr/local/bin/containerd-shim-runc-v2"
RUNC = "usr/local/sbin/runc"


# --- our files ---------------------------------------------------------------------------------------------------


def test_managed_files_are_told_apart(tree: Tree, shell: list[str]) -> None:
    tree.write(paths.CONFIG[1:], "version = 3\n", 0o640)
    tree.write("elsewhere")
    (tree.root / paths.UNIT[1:]).parent.mkdir(parents=True)
    (tree.root / paths.UNIT[1:]).symlink_to("/elsewhere")
    (tree.root / paths.SYSCTL[1:]).mkdir(parents=True)
    (tree.root / "etc/modprobe.d").mkdir(parents=True)
    os.mkfifo(tree.root / paths.MODPROBE[1:])
    files = tree.read(shell).files
    assert set(files) == set(paths.MANAGED)
    assert {path: files[path].kind for path in paths.MANAGED} == {
        **dict.fromkeys(paths.MANAGED, "absent"),
        paths.CONFIG: "file",
        paths.UNIT: "link",
        paths.SYSCTL: "directory",
        paths.MODPROBE: "other",
    }
    owner = f"{os.geteuid()}:{os.getegid()}"
    digest = hashlib.sha256(b"version = 3\n").hexdigest()
    assert files[paths.CONFIG] == FileState(kind="file", sha256=digest, mode="640", owner=owner)
    assert files[paths.UNIT].sha256 == ""


# --- programs ----------------------------------------------------------------------------------------------------


def test_every_program_of_ours_is_looked_for(tree: Tree) -> None:
    expected = {*paths.INSTALLED.values(), *paths.PACKAGED.values()}
    for path in expected:
        tree.write(path[1:], path, 0o755)
    assert set(tree.read().binaries) == expected


def manifest(tree: Tree, *programs: tuple[str, str, str]) -> None:
    """A record of these programs (path, component, version) as they are now."""
    lines = ["file\t/etc/x\tabc"]
    for path, component, version in programs:
        state = (tree.root / path).stat()
        digest = hashlib.sha256((tree.root / path).read_bytes()).hexdigest()
        numbers = f"{state.st_size}\t{state.st_ino}\t{int(state.st_mtime)}\t{int(state.st_ctime)}"
        lines.append(f"program\t/{path}\t{component}\t{version}\t{digest}\t{numbers}\tasset-of-{component}")
    tree.write(paths.MANIFEST[1:], "\n".join(lines) + "\n")


def tell(version: str) -> str:
    return f'#!/bin/sh\necho ran >>"${{0%/*}}/ran"\necho "{version}"\n'


def log_digests(tree: Tree) -> Callable[[], str]:
    """What sha256sum was asked for; it digests nothing."""
    log = tree.root / "digested"
    tree.program("sha256sum", f'printf "%s\\n" "$@" >>"{log}"\nexec {shutil.which("sha256sum")} "$@"')
    return lambda: log.read_text() if log.exists() else ""


def test_a_program_that_is_as_recorded_is_neither_digested_nor_run(tree: Tree, shell: list[str]) -> None:
    tree.write(RUNC, tell("runc version 9.9.9"), 0o755)
    manifest(tree, (RUNC, "runc", "1.3.6"))
    digested = log_digests(tree)
    node = tree.read(shell)
    digest = hashlib.sha256((tree.root / RUNC).read_bytes()).hexdigest()
    expected = Binary(sha256=digest, version="1.3.6", recorded=True, component="runc", asset="asset-of-runc")
    assert node.binaries == {f"/{RUNC}": expected}
    assert node.manifest == hashlib.sha256((tree.root / paths.MANIFEST[1:]).read_bytes()).hexdigest()
    if shell[0] != "busybox":  # which digests with its own
        assert RUNC not in digested()
        assert tree.read(shell, verify_digests="yes").binaries == {f"/{RUNC}": expected}
        assert RUNC in digested()
    assert not (tree.root / "usr/local/sbin/ran").exists()


def test_a_program_that_was_copied_as_it_is_stays_recorded(tree: Tree, shell: list[str]) -> None:
    tree.write(RUNC, tell("runc version 9.9.9"), 0o755)
    manifest(tree, (RUNC, "runc", "1.3.6"))
    os.utime(tree.root / RUNC, (1, 1))
    assert tree.read(shell).binaries[f"/{RUNC}"].recorded
    assert not (tree.root / "usr/local/sbin/ran").exists()


@pytest.mark.usefixtures("as_root")
def test_a_program_that_was_replaced_is_asked_for_its_version(tree: Tree, shell: list[str]) -> None:
    tree.write(RUNC, tell("runc version 1.3.6"), 0o755)
    manifest(tree, (RUNC, "runc", "1.3.6"))
    tree.write(RUNC, tell("runc version 1.3.9+ds1\ncommit: 5"), 0o755)
    tree.write(SHIM, '#!/bin/sh\n[ "$1" = -v ] && printf "x:\\n  Version:  v2.1.9\\n"\n', 0o755)
    binaries = tree.read(shell).binaries
    digest = hashlib.sha256((tree.root / RUNC).read_bytes()).hexdigest()
    assert binaries[f"/{RUNC}"] == Binary(sha256=digest, version="1.3.9", recorded=False, component="runc")
    assert binaries[f"/{SHIM}"].version == "2.1.9"
    assert binaries[f"/{SHIM}"].component == "containerd"


@pytest.mark.parametrize("mode", [0o777, 0o775, 0o644])
def test_a_program_that_others_may_write_is_never_run(tree: Tree, mode: int) -> None:
    tree.write(RUNC, tell("runc version 1.3.6"), mode)
    assert tree.read().binaries[f"/{RUNC}"].version == ""
    assert not (tree.root / "usr/local/sbin/ran").exists()


@pytest.mark.usefixtures("as_root")
def test_a_program_that_somebody_else_owns_is_never_run(tree: Tree) -> None:
    os.chown(tree.write(RUNC, tell("runc version 1.3.6"), 0o755), 1000, 1000)
    assert tree.read().binaries[f"/{RUNC}"].version == ""
    assert not (tree.root / "usr/local/sbin/ran").exists()


def test_programs_elsewhere_on_path_are_found_once(tree: Tree, shell: list[str]) -> None:
    tree.write("opt/x/bin/containerd", tell("containerd v1.6.0"), 0o755)
    tree.write("usr/bin/runc", "x", 0o755)
    tree.write("usr/bin/containerd", "x", 0o755)
    (tree.root / "bin").symlink_to("usr/bin")
    (tree.root / "sbin").mkdir()
    (tree.root / "sbin/runc").hardlink_to(tree.root / "usr/bin/runc")
    search = f"/opt/x/bin:/usr/local/bin:/usr/bin:/bin:/sbin::relative:/with a blank:{tree.programs}"
    environment = {"USERNS_NODE_ROOT": str(tree.root), "USERNS_NODE_PATH": search}
    assert set(read(run(shell, environment)).binaries) == {
        "/opt/x/bin/containerd",
        "/usr/bin/containerd",
        "/usr/bin/runc",
    }


@pytest.mark.parametrize(("content", "expected"), [(None, ""), ("swapping\n", "swapping"), ("", "unknown")])
def test_an_unfinished_activation_is_seen(tree: Tree, content: str | None, expected: str) -> None:
    if content is not None:
        tree.write("var/lib/userns-node/activation", content)
    assert tree.read().unfinished == expected


def test_a_change_without_a_proof_is_seen(tree: Tree) -> None:
    assert tree.read().unproven is False
    tree.write("var/lib/userns-node/unproven", "")
    assert tree.read().unproven is True


# --- units and packages ------------------------------------------------------------------------------------------


SYSTEMCTL = """
case $1 in
--version) echo "systemd 257 (257.9-1)"; echo "+PAM -AUDIT" ;;
show) cat <<'END'
LoadState=loaded
ActiveState=active
SubState=running
FragmentPath=/etc/systemd/system/containerd.service
UnitFileState=enabled
ExecStart={ path=/usr/local/bin/containerd ; argv[]=/usr/local/bin/containerd --token secret ; ignore_errors=no }

LoadState=not-found
ActiveState=inactive
SubState=dead

LoadState=loaded
ActiveState=active
SubState=running
UnitFileState=enabled
END
;;
esac
"""


def test_units_are_what_systemd_says(tree: Tree, shell: list[str]) -> None:
    (tree.root / "run/systemd/system").mkdir(parents=True)
    tree.program("systemctl", SYSTEMCTL)
    tree.write("usr/lib/systemd/system/docker.service")
    lines = tree.run(shell)
    node = read(lines)
    assert node.systemd == "257"
    assert node.units["containerd"] == Unit(
        load="loaded",
        active="active",
        sub="running",
        enabled="enabled",
        fragment="/etc/systemd/system/containerd.service",
        exec_start="/usr/local/bin/containerd",
    )
    assert node.units["docker"] == Unit()
    assert node.units["kubelet"].active == "active"
    assert "secret" not in "\n".join(lines)


def test_a_systemd_that_does_not_answer_is_not_one_that_has_no_units(tree: Tree, shell: list[str]) -> None:
    """An overloaded node would be told that its containerd does not run, and that no kubelet is there."""
    (tree.root / "run/systemd/system").mkdir(parents=True)
    tree.program("systemctl", "[ $1 != show ] || exit 124\n")
    with pytest.raises(
        ReadingError, match=r"^systemd does not say what runs on this node \(systemctl show ended with 124 "
    ):
        read(tree.run(shell))


def test_where_no_systemd_runs_units_are_what_their_files_say(tree: Tree, shell: list[str]) -> None:
    tree.program("systemctl", SYSTEMCTL)
    tree.write("usr/lib/systemd/system/containerd.service", "[Service]\nExecStart=/usr/bin/containerd --token secret\n")
    tree.write("usr/lib/systemd/system/docker.service", "[Service]\n")
    (tree.root / "etc/systemd/system/multi-user.target.wants").mkdir(parents=True)
    (tree.root / "etc/systemd/system/multi-user.target.wants/containerd.service").symlink_to("/usr/lib/x")
    (tree.root / "etc/systemd/system/kubelet.service").symlink_to("/dev/null")
    lines = tree.run(shell)
    node = read(lines)
    assert node.systemd == ""
    assert node.units == {
        "containerd": Unit(
            load="loaded",
            enabled="enabled",
            fragment="/usr/lib/systemd/system/containerd.service",
            exec_start="/usr/bin/containerd",
        ),
        "docker": Unit(load="loaded", enabled="disabled", fragment="/usr/lib/systemd/system/docker.service"),
        "kubelet": Unit(load="masked", fragment="/etc/systemd/system/kubelet.service"),
    }
    assert "secret" not in "\n".join(lines)


def shim(namespace: str, address: str = "/run/containerd/containerd.sock") -> tuple[str, ...]:
    return "/usr/local/bin/containerd-shim-runc-v2", "-namespace", namespace, "-id", "x y", "-address", address


def test_shims_are_counted_by_namespace(tree: Tree, shell: list[str]) -> None:
    process(tree, 10, "containerd-shim", *shim("k8s.io"))
    process(tree, 11, "containerd-shim", *shim("default"), "-debug")
    process(tree, 12, "containerd-shim", *shim("k8s.io"))
    process(
        tree, 13, "containerd-shim", "/opt/containerd-shim-kata-v2", "-address", "/run/x.sock", "-namespace", "moby"
    )
    process(tree, 14, "containerd-shim", "/usr/bin/containerd-shim-runc-v2", "-id", "y")
    process(tree, 15, "containerd-shim", *shim("moby", "/var/run/docker/containerd/containerd.sock"))
    process(tree, 16, "containerd-shim", *shim("k8s.io", "/run/k3s/containerd/containerd.sock"))
    process(tree, 17, "containerd-shim")  # it has ended, and nobody has asked how
    process(tree, 18, "kubelet", "containerd-shim-runc-v2")
    lines = tree.run(shell)
    shims = {"k8s.io": 2, "default": 1, "moby": 1, "unknown": 1}
    if ROOT:
        assert read(lines).shims == shims
    assert {line.split("\t")[1]: int(line.split("\t")[2]) for line in lines if line.startswith("shims\t")} == shims


@pytest.mark.parametrize("tools", [True, False], ids=["tools", "without a tool"])
def test_of_more_processes_than_a_command_line_has_room_for_none_is_missed(
    tree: Tree, shell: list[str], tools: bool, tmp_path: Path
) -> None:
    """That a shim runs is why no older containerd may take over."""
    (tmp_path / "printf").symlink_to("/usr/bin/printf")  # mksh has none of its own
    path = "" if tools else f"PATH={tmp_path}\n"
    for number in range(2000):
        tree.write(f"proc/1{number:0200}/comm", "bash\n")
    process(tree, 10, "containerd-shim", *shim("k8s.io"))
    process(tree, 11, "kubelet")
    tree.write("proc/12/comm", "containerd\n")
    text = f"ulimit -s 256\n{path}{script('running.sh')}\nprocesses {tree.root}/proc"
    done = subprocess.run([*shell, "-c", text], capture_output=True, text=True, timeout=60, check=True)
    assert sorted(done.stdout.splitlines()) == ["10 containerd-shim", "11 kubelet", "12 containerd"]
    assert done.stderr == ""


def test_where_nothing_runs_that_is_known(tree: Tree, shell: list[str]) -> None:
    node = tree.read(shell)
    assert (node.shims, node.other_containerds) == ({} if ROOT else None, ())


def test_a_containerd_that_is_not_the_units_is_told_with_what_it_uses(tree: Tree, shell: list[str]) -> None:
    database = tree.write("var/lib/containerd/io.containerd.metadata.v1.bolt/meta.db")
    process(tree, 20, "containerd", "/usr/local/bin/containerd", cgroup="/system.slice/containerd.service")
    process(tree, 21, "containerd", "/opt/bin/containerd", "--config", "secret", cgroup="/system.slice/mine.service")
    process(tree, 22, "containerd", "/usr/bin/containerd", cgroup="/user.slice/user-0.slice/session-1.scope")
    process(tree, 23, "containerd-stress", "/usr/bin/containerd-stress")
    for pid, file in ((20, database), (21, database), (22, tree.write("other.db"))):
        (tree.root / f"proc/{pid}/fd").mkdir()
        (tree.root / f"proc/{pid}/fd/7").symlink_to(file)
    lines = tree.run(shell)
    assert list(read(lines).other_containerds) == [
        Process(pid=21, program="/opt/bin/containerd", unit="mine.service", uses_root=True),
        Process(pid=22, program="/usr/bin/containerd"),
    ]
    assert "secret" not in "\n".join(lines)


def test_packages_are_what_dpkg_says(tree: Tree) -> None:
    program("dpkg-query")
    entry = "Package: {}\nStatus: {} ok {}\nMaintainer: x\nArchitecture: amd64\nVersion: {}\nDescription: x\n"
    tree.write(
        "var/lib/dpkg/status",
        "\n".join(
            [
                entry.format("containerd", "hold", "installed", "1.7.24~ds1-6"),
                entry.format("runc", "install", "installed", "1.1.15+ds1-2+b4"),
                entry.format("docker.io", "deinstall", "config-files", "20.10"),
                entry.format("bash", "install", "installed", "5"),
            ]
        ),
    )
    (tree.root / "var/lib/dpkg/updates").mkdir()
    (tree.root / "var/lib/dpkg/info").mkdir()
    packages = tree.read().packages
    assert {name: (each.version, each.held) for name, each in packages.items()} == {
        "containerd": ("1.7.24~ds1-6", True),
        "runc": ("1.1.15+ds1-2+b4", False),
    }


def test_dpkg_is_not_asked_where_it_has_none_of_the_packages(tree: Tree) -> None:
    tree.program("dpkg-query", f"echo asked >{tree.root}/asked")
    tree.write("var/lib/dpkg/status", "Package: containerd-doc\nDescription: Package: runc\n\nPackage: runcat\n")
    assert not tree.read().packages
    assert not (tree.root / "asked").exists()


# --- what a deploy wrote -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "recorded"), [("ours\n", True), ("edited by hand\n", False)])
def test_a_file_is_recorded_while_it_has_the_text_of_the_record(
    tree: Tree, shell: list[str], text: str, recorded: bool
) -> None:
    digest = hashlib.sha256(b"ours\n").hexdigest()
    tree.write(paths.MANIFEST[1:], f"file\t{paths.CONFIG}\t{digest}\nfile\nfile\t/x\n")
    tree.write(paths.CONFIG[1:], text)
    assert tree.read(shell).files[paths.CONFIG].recorded == recorded
