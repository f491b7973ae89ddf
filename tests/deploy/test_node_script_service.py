"""The node script, in a tree: with which root and configuration containerd.service runs."""

from __future__ import annotations

import pytest

from tests.conftest import program
from tests.deploy.node_trees import Tree, process
from userns import paths
from userns.node import ExecDropIn
from userns.reading import read

DATABASE = "io.containerd.metadata.v1.bolt/meta.db"
TASK = "io.containerd.runtime.v2.task/k8s.io/a"
SYSTEMCTL = """
[ "$1" = show ] || exit 0
cat <<'END'
LoadState={state}
ActiveState=active
FragmentPath=/lib/systemd/system/containerd.service
{start}

LoadState=loaded
ExecStart={{ path=/usr/bin/kubelet ; argv[]=/usr/bin/kubelet --root /kubelets --config /kubelets.yaml ; }}
END
"""


def starts(tree: Tree, words: str, state: str = "loaded") -> None:
    """systemd, which says that containerd.service starts this."""
    (tree.root / "run/systemd/system").mkdir(parents=True)
    start = f"ExecStart={{ path=/usr/bin/containerd ; argv[]=/usr/bin/containerd {words} ; ignore_errors=no }}"
    tree.program("systemctl", SYSTEMCTL.format(state=state, start=start if state == "loaded" else ""))


@pytest.mark.parametrize(
    ("config", "used", "told"),
    [
        ("", "var/lib/containerd", ""),
        ('version = 3\nroot = "/var/lib/containerd"\n', "var/lib/containerd", ""),
        ("version = 3\nroot = '/srv/containerd/' # here\n[grpc]\nroot = '/x'\n", "srv/containerd", "/srv/containerd/"),
        ('[debug]\nroot = "/srv/containerd"\n', "srv/containerd", ""),
        ('root = "/srv/containerd"\n', "var/lib/containerd", ""),
    ],
)
def test_another_root_is_told_where_containerd_uses_it_and_it_holds_something(
    tree: Tree, shell: list[str], config: str, used: str, told: str
) -> None:
    tree.write("etc/containerd/config.toml", config)
    (tree.root / used / "io.containerd.snapshotter.v1.overlayfs/snapshots").mkdir(parents=True)
    assert tree.read(shell).other_root == ""
    (tree.root / used / "io.containerd.runtime.v2.task/k8s.io/a").mkdir(parents=True)
    assert tree.read(shell).other_root == told


def test_the_default_root_is_another_one_where_the_settings_want_containerd_elsewhere(
    tree: Tree, shell: list[str]
) -> None:
    (tree.root / "var/lib/containerd/io.containerd.snapshotter.v1.native/snapshots/1").mkdir(parents=True)
    assert tree.read(shell, containerd_root="/srv/containerd").other_root == "/var/lib/containerd"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("--root /data/cd", "/data/cd"),
        ("--log-level info --root=/data/cd --token secret", "/data/cd"),
        ("-root /data/cd/", "/data/cd/"),
        ("--root /var/lib/containerd", ""),
        ("--config /etc/site.toml", "/srv/cd"),
        ("-c=/etc/site.toml", "/srv/cd"),
        ("--config /etc/site.toml --root /data/cd", "/data/cd"),
        ("--config /etc/none.toml", ""),
        ("--state /data/cd", "/etc/cd"),
    ],
)
def test_where_it_does_not_run_its_root_is_what_its_command_line_says(
    tree: Tree, shell: list[str], words: str, told: str
) -> None:
    starts(tree, words)
    tree.write(paths.CONFIG[1:], "root = '/etc/cd'\n")
    tree.write("etc/site.toml", "version = 3\nroot = '/srv/cd'\n")
    for root in ("data/cd", "srv/cd", "etc/cd", "var/lib/containerd"):
        (tree.root / root / TASK).mkdir(parents=True)
    lines = tree.run(shell)
    assert read(lines).other_root == told
    assert "secret" not in "\n".join(lines)
    assert "kubelets" not in "\n".join(lines)


def test_the_command_line_of_another_service_is_not_taken_for_containerds(tree: Tree, shell: list[str]) -> None:
    starts(tree, "", state="not-found")
    assert tree.read(shell).config_option == ""


@pytest.mark.parametrize("used", ["var/lib/containerd", "data/cd", "moved/cd"])
def test_where_it_runs_its_root_is_that_of_the_database_that_it_has_open(
    tree: Tree, shell: list[str], used: str
) -> None:
    """Whatever it was started with, and whatever its file says by now."""
    starts(tree, "--root /data/cd")
    for root in ("data/cd", "moved/cd", "var/lib/containerd"):
        (tree.root / root / TASK).mkdir(parents=True)
    process(tree, 20, "containerd", "/usr/bin/containerd", cgroup="/system.slice/containerd.service")
    process(tree, 21, "containerd", "/usr/bin/containerd", cgroup="/system.slice/mine.service")
    database = tree.write(f"{used}/{DATABASE}")
    open_files = tree.root / "proc/20/fd"
    open_files.mkdir()
    (open_files / "1").symlink_to("/dev/null")
    # As the kernel has it: by the path in the node, which is the one of the tree for the wanted root alone.
    wanted = used == "var/lib/containerd"
    (open_files / "7").symlink_to(database if wanted else f"/{used}/{DATABASE}")
    assert tree.read(shell).other_root == ("" if wanted else f"/{used}")


def test_of_a_command_line_the_configuration_and_the_root_alone_are_told(tree: Tree, shell: list[str]) -> None:
    starts(tree, "--address /run/a.sock --config /etc/containerd/site.toml --root /data --token secret")
    lines = tree.run(shell)
    assert (read(lines).config_option, read(lines).root_option) == ("/etc/containerd/site.toml", "/data")
    assert "secret" not in "\n".join(lines)


def test_drop_ins_that_set_its_command_line_are_told(tree: Tree, shell: list[str]) -> None:
    drop_in = "systemd/system/containerd.service.d"
    tree.write(paths.UNIT_DROP_IN[1:], "[Service]\nExecStart=/ours\n")
    tree.write(f"etc/{drop_in}/10-log.conf", "[Service]\nLimitNOFILE=1\n# ExecStart=/no\nExecStart=\n")
    tree.write(
        f"etc/{drop_in}/20-site.conf",
        "[Service]\nExecStart=\n  ExecStart = -/opt/containerd \\\n   --token secret * \\\n  --config=/x.toml",
    )
    tree.write(f"usr/lib/{drop_in}/30.conf", "[Service]\nExecStart=/usr/bin/containerd --root='/data'\n")
    (tree.root / f"etc/{drop_in}/40.conf").symlink_to("/gone")
    for hidden in ("20-site", "40"):  # by the file of its name in /etc
        tree.write(f"usr/lib/{drop_in}/{hidden}.conf", "[Service]\nExecStart=/usr/bin/containerd --config=/y.toml\n")
    lines = tree.run(shell)
    assert read(lines).exec_drop_ins == (
        ExecDropIn(path=f"/etc/{drop_in}/20-site.conf", program="/opt/containerd", config="/x.toml"),
        ExecDropIn(path=f"/usr/lib/{drop_in}/30.conf", program="/usr/bin/containerd", root="/data"),
    )
    assert "secret" not in "\n".join(lines)


def test_where_tmp_is_full_drop_ins_are_told(tree: Tree) -> None:
    """bash before 5.1 and lksh write here-documents there, and would read none of them."""
    program("bash")
    full = ["sh", "-c", "trap '' XFSZ && ulimit -f 0 && BASH_COMPAT=5.0 exec bash --posix \"$@\"", "sh"]
    tree.write("etc/systemd/system/containerd.service.d/1.conf", "[Service]\nExecStart=/x --root /data\n")
    assert [each.root for each in tree.read(full).exec_drop_ins] == ["/data"]
