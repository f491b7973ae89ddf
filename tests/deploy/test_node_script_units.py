"""What the node script reads of containerd.service's own file: what a deploy's would not have, and never a value that
may be a secret."""

from __future__ import annotations

from hashlib import sha256

import pytest

from tests.deploy.node_trees import Tree
from userns import paths
from userns.node import Unit
from userns.reading import read

PACKAGED = "usr/lib/systemd/system/containerd.service"
THEIRS = paths.UNIT[1:]
DROP_INS = f"{paths.UNIT[1:]}.d"
UNIT = """\
[Unit]
LimitNOFILE=1
Environment=NOT_OF_THE_SERVICE=secret-0
[Service]
# LimitNOFILE=2
; Environment=COMMENTED=secret-1
  LimitNOFILE = 3
LimitNOFILE= infinity
LimitNOFILESoft=4
Environment=HTTP_PROXY=http://u:secret-2@p "HTTPS_PROXY=//u:secret-3 X=secret-4" 'NO_PROXY=secret-5 Y=\\'Z=secret-6'
Environment="A"=secret-7 B=secret-8
Environment=C="secret-9 D=secret-10"E=secret-11 F=secret\\ -12=G \\
  # H=secret-13
  I=secret-14 \\
; J=secret-15
  K="secret-16 L=secret-17
Environment=M=
EnvironmentFile=-/etc/default/containerd
EnvironmentFile=/etc/more
[Install]
LimitNOFILE=5
"""
# What does not begin like a variable ends the line, so that nothing of a value is a name.
NAMES = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "C", "F", "I", "K", "M")


@pytest.mark.parametrize("awk", ["awk", "busybox"])
@pytest.mark.parametrize("booted", [True, False])
def test_a_unit_shows_its_settings_and_never_a_variables_value(tree: Tree, awk: str, booted: bool) -> None:
    if awk == "busybox":
        tree.program("awk", 'exec busybox awk "$@"')
    if booted:
        runs(tree, f"/{PACKAGED}")
    tree.write(PACKAGED, UNIT)
    lines = tree.run()
    assert "secret" not in "\n".join(lines)
    unit = read(lines).units["containerd"]
    assert (unit.limit_nofile, unit.environment, unit.environment_files) == (
        "infinity",
        NAMES,
        ("-/etc/default/containerd", "/etc/more"),
    )


def runs(tree: Tree, fragment: str) -> None:
    """systemd runs in the tree, and says that this is containerd.service's file."""
    (tree.root / "run/systemd/system").mkdir(parents=True)
    tree.program("systemctl", f"[ $1 != show ] || printf 'LoadState=loaded\\nFragmentPath={fragment}\\n'")


def found(tree: Tree, shell: list[str]) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    unit = tree.read(shell).units["containerd"]
    return unit.limit_nofile, unit.environment, unit.environment_files


def test_what_a_drop_in_sets_again_stays_and_what_an_empty_line_takes_back_was_not_set(
    tree: Tree, shell: list[str]
) -> None:
    tree.write(
        PACKAGED,
        "[Service]\nEnvironment=GONE=1\nEnvironment=\nEnvironment=A=1 B=2\nEnvironmentFile=/gone\nEnvironmentFile=\n"
        "EnvironmentFile=/a\nEnvironmentFile=/b\nLimitNOFILE=infinity",
    )
    assert found(tree, shell) == ("infinity", ("A", "B"), ("/a", "/b"))
    tree.write(f"{DROP_INS}/10-kept.conf", "[Service]\nEnvironment=B=3 C=4\nEnvironmentFile=/b\n")
    tree.write(f"{DROP_INS}/20.txt", "[Service]\nLimitNOFILE=65536\n")
    tree.write("usr/lib/systemd/system/containerd.service.d/10-kept.conf", "[Service]\nLimitNOFILE=65536\n")
    assert found(tree, shell) == ("infinity", ("A",), ("/a",))
    tree.write(f"{PACKAGED}.d/20.conf", "[Service]\nLimitNOFILE=65536\nEnvironment=\n")
    assert found(tree, shell) == ("", (), ("/a",))
    tree.write("etc/systemd/system/service.d/all.conf", "[Service]\nEnvironmentFile=\n")
    assert found(tree, shell) == ("", (), ())


def test_of_a_unit_that_a_deploy_wrote_nothing_is_read_until_somebody_edits_it(tree: Tree, shell: list[str]) -> None:
    runs(tree, paths.UNIT)
    text = "[Service]\nLimitNOFILE=infinity\n"
    tree.write(THEIRS, text)
    tree.write("var/lib/userns-node/manifest", f"file\t{paths.UNIT}\t{sha256(text.encode()).hexdigest()}\n")
    assert found(tree, shell) == ("", (), ())
    tree.write(THEIRS, f"{text}Environment=A=b\n")
    assert found(tree, shell) == ("infinity", ("A",), ())


def test_an_image_and_a_masked_unit_and_a_node_without_awk_are_read_all_the_same(tree: Tree, shell: list[str]) -> None:
    tree.write(PACKAGED, "[Service]\nLimitNOFILE=infinity\n")
    assert found(tree, shell)[0] == "infinity"
    (tree.programs / "awk").unlink()
    assert found(tree, shell)[0] == ""
    (tree.root / THEIRS).parent.mkdir(parents=True)
    (tree.root / THEIRS).symlink_to("/dev/null")
    assert tree.read(shell).units["containerd"] == Unit(load="masked", fragment=paths.UNIT)


def test_bytes_and_thousands_of_lines_break_nothing(tree: Tree, shell: list[str]) -> None:
    many = b"".join(b"Environment=A%d=b\n" % number for number in range(3000))
    tree.write(PACKAGED, b"[Service]\nEnvironmentFile=/\xff\tx\n\x00Environment=\xff=b\n" + many)
    _, names, files = found(tree, shell)
    assert files == ("/??x",)
    assert 0 < len(names) <= 200


def test_systemd_is_asked_of_units_that_have_a_file_and_of_one_that_runs_without(tree: Tree, shell: list[str]) -> None:
    """It takes most of its time to search for a unit, and of the runtimes of containers a node has one."""
    (tree.root / "run/systemd/system").mkdir(parents=True)
    tree.write("usr/lib/systemd/system/crio.service")
    (tree.root / "etc/systemd/system").mkdir(parents=True)
    (tree.root / "etc/systemd/system/docker.service").symlink_to("/dev/null")
    (tree.root / "sys/fs/cgroup/system.slice/k3s.service").mkdir(parents=True)
    tree.program("systemctl", f'[ $1 != show ] || printf "%s\\n" "$@" >{tree.root}/asked')
    tree.read(shell)
    asked = (tree.root / "asked").read_text().split()
    assert [each.removesuffix(".service") for each in asked if each.endswith(".service")] == [
        "containerd",
        "docker",
        "kubelet",
        "crio",
        "k3s",
    ]
