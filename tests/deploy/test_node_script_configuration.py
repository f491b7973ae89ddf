"""What the node script reads of other people: modprobe.d, sysctl.d, drop-ins and GPU hooks.

Whatever stands in those files, it breaks nothing and no secret leaves the node.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.deploy.node_trees import Tree, link
from userns import paths
from userns.containerd.dropins import lint
from userns.containerd.merge import spelled
from userns.containerd.reserved_keys import reserved
from userns.node import ConfLine, DropIn, FileState, ReservedKey
from userns.reading import read


def test_modprobe_lines_are_found_where_kmod_finds_them(tree: Tree, shell: list[str]) -> None:
    tree.write("etc/modprobe.d/a.conf", "  options overlay \\\n metacopy=N\n# options overlay redirect_dir=off\n")
    tree.write("etc/modprobe.d/hidden.conf", "")
    tree.write("usr/lib/modprobe.d/hidden.conf", "blacklist overlay\n")
    tree.write("usr/lib/modprobe.d/z.conf", "install overlay /bin/false")
    tree.write("usr/lib/modprobe.d/z.txt", "blacklist overlay\n")
    tree.write(paths.MODPROBE[1:], "options overlay metacopy=Y\n")
    (tree.root / "lib").symlink_to("usr/lib")
    (tree.root / "lib/modprobe.d").exists()
    assert [(each.file, " ".join(each.line.split())) for each in tree.read(shell).modprobe_lines] == [
        ("/etc/modprobe.d/a.conf", "options overlay metacopy=N"),
        ("/usr/lib/modprobe.d/z.conf", "install overlay /bin/false"),
    ]


def test_sysctl_lines_are_found_and_ordered(tree: Tree, shell: list[str]) -> None:
    tree.write("etc/sysctl.conf", "\tuser.max_user_namespaces = 1\n#user.max_user_namespaces=9\n")
    tree.write("etc/sysctl.d/20-b.conf", "-user/max_user_namespaces=2\nuser.max_net_namespaces=9\n")
    tree.write("usr/lib/sysctl.d/10-c.conf", "x = y\nuser.max_user_namespaces=3")
    tree.write("usr/lib/sysctl.d/20-b.conf", "user.max_user_namespaces=9\n")
    tree.write("etc/sysctl.d/40-d.conf", "kernel/yama/ptrace_scope=3\nkernel.yama.other=1\n")
    assert tree.read(shell).ptrace_lines == (
        ConfLine(file="/etc/sysctl.d/40-d.conf", line="kernel/yama/ptrace_scope=3"),
    )
    assert tree.read(shell).sysctl_lines == (
        ConfLine(file="/usr/lib/sysctl.d/10-c.conf", line="user.max_user_namespaces=3"),
        ConfLine(file="/etc/sysctl.d/20-b.conf", line="-user/max_user_namespaces=2"),
        ConfLine(file="/etc/sysctl.conf", line="user.max_user_namespaces = 1"),
    )


HOSTILE = (
    b"new\nline",
    b"userns-node-end",
    b"-rf",
    b"a b",
    b"tab\there",
    b"\xff\x81\x85\xe2\x82\xac",
    b"$(touch pwned)",
    b"`touch pwned`",
    b"'\"",
    b"*",
    b"%s%n",
    b"a=b",
    b"\\052\\n",
)


def test_hostile_names_and_texts_break_nothing(tree: Tree, shell: list[str]) -> None:
    text = b"options overlay \xff'\"$(touch pwned)`touch pwned`%s*\t\x01\x85\xe2\x82\xac\0 x=1\r\nuserns-node-end\n"
    for directory, suffix, lines in (
        ("etc/modprobe.d", b".conf", text),
        ("etc/sysctl.d", b".conf", b"user.max_user_namespaces=1\xff\n\nuserns-node-end\n"),
        ("etc/containerd/conf.d", b".toml", b"version = 3\n[plugins.x]\n\xff = 1\nuserns-node-end\n"),
    ):
        where = tree.root / directory
        where.mkdir(parents=True)
        for name in HOSTILE:
            Path(os.fsdecode(os.fsencode(where) + b"/" + name + suffix)).write_bytes(lines)
        (where / ("directory" + suffix.decode())).mkdir()
        (where / ("dangling" + suffix.decode())).symlink_to("/nowhere")
        os.mkfifo(where / ("fifo" + suffix.decode()))
        (where / ("empty" + suffix.decode())).touch()
    node = tree.read(shell)
    assert len(node.modprobe_lines) == len(node.sysctl_lines) == len(HOSTILE)
    assert len(node.drop_ins) == len(HOSTILE) + 1
    assert ("/etc/modprobe.d/new?line.conf") in {each.file for each in node.modprobe_lines}
    assert not list(tree.root.glob("**/pwned"))
    assert not list(Path.cwd().glob("pwned"))


def test_a_huge_file_takes_no_time_where_it_does_not_concern_us(tree: Tree) -> None:
    tree.write("etc/modprobe.d/huge.conf", b"# nothing\n" * 3_000_000)
    assert (tree.read().seconds or 0.0) < 5


DROP_IN = """\
# [not.a.table]
version = 3 # [nor.this]
imports = ["secret-1"]
plugins."io.containerd.cri.v1.images".snapshotter = "shown"
description = \"\"\"
[secret-3]
password = "secret-4"
\"\"\" # [secret]
['quoted']
args = [
  ["secret-5"],
  [
  "[secret-6]"
  ]
]
  [ plugins.'io.containerd.cri.v1.runtime' ] # comment
enable_selinux = true
[[stream_processors."x"]]
path = '''
[secret-7]'''
[plugins]
"io.containerd.nri.v1.nri".disable = false
io = "secret-8"
[plugins."io.containerd.cri.v1.images".registry.configs."registry.example:5000".auth]\r
password = "[secret-9]"
"""


def test_a_drop_in_shows_its_tables_and_never_a_value(tree: Tree, shell: list[str]) -> None:
    tree.write("etc/containerd/conf.d/10.toml", DROP_IN)
    tree.write("etc/containerd/conf.d/20.toml", "[proxy_plugins.stargz]\ntype='snapshot'")
    tree.write("etc/containerd/conf.d/20.txt", "[no]")
    lines = tree.run(shell)
    assert "secret" not in "\n".join(lines)
    assert read(lines).drop_ins == (
        DropIn(
            path="/etc/containerd/conf.d/10.toml",
            version=3,
            tables=(
                'plugins."io.containerd.cri.v1.images".snapshotter',
                'plugins."io.containerd.cri.v1.runtime"',
                "plugins",
                'plugins."io.containerd.nri.v1.nri".disable',
                "plugins.io",
                'plugins."io.containerd.cri.v1.images".registry.configs',
            ),
            keys=(ReservedKey(path=("plugins", "io.containerd.cri.v1.images", "snapshotter"), value='"shown"'),),
            sets=(
                ("version",),
                ("imports",),
                ("cri", "snapshotter"),
                ("description",),
                ("quoted", "args"),
                ("cri", "enable_selinux"),
                ("stream_processors", "x", "path"),
                ("plugins", "io.containerd.nri.v1.nri", "disable"),
                ("plugins", "io"),
                ("cri", "registry", "configs"),
            ),
        ),
        DropIn(
            path="/etc/containerd/conf.d/20.toml",
            sets=(("proxy_plugins", "stargz", "type"),),
        ),
    )


RESERVED = """\
version = 3
note = \"""
[plugins."io.containerd.cri.v1.runtime".containerd]
default_runtime_name = "secret-0"
\\\""" x
""\""
args = [ # ]
  "a]", ["secret-1"], '''
]''',
]
grpc = { address = '/run/x.sock', tcp_key = "secret-2" }
[ plugins . 'io.containerd.cri.v1.runtime' . containerd ] # default_runtime_name = "secret-3"
  default_runtime_name = "nvidia" # secret-4
runtimes.crun = { env = ["}"], options = { SystemdCgroup = false, Root = "secret-5" }, runtime_path = "" }
runtimes.nvidia.options.BinaryName = "secret-6"
[plugins.'io.containerd.cri.v1.images']
snapshotter = "na\\u0074ive"
[plugins.'io.containerd.cri.v1.images'.registry.configs.x.auth]
snapshotter = "secret-7"
[plugins."io.containerd.snapshotter.v1.overlayfs"]
root_path = \"""secret
8\"""
slow_chown=true\r
"""


def test_of_reserved_keys_the_values_are_told_and_of_no_other(tree: Tree, shell: list[str]) -> None:
    tree.write("etc/containerd/conf.d/10.toml", RESERVED)
    lines = tree.run(shell)
    assert "secret" not in "\n".join(lines)
    told = {each.path: each.value for each in read(lines).drop_ins[0].keys}
    containerd = ("plugins", "io.containerd.cri.v1.runtime", "containerd")
    overlayfs = ("plugins", "io.containerd.snapshotter.v1.overlayfs")
    assert told == {
        ("grpc", "address"): "'/run/x.sock'",
        (*containerd, "default_runtime_name"): '"nvidia"',
        (*containerd, "runtimes", "crun", "options", "SystemdCgroup"): "false",
        (*containerd, "runtimes", "crun", "runtime_path"): '""',
        ("plugins", "io.containerd.cri.v1.images", "snapshotter"): '"na\\u0074ive"',
        (*overlayfs, "root_path"): "?",
        (*overlayfs, "slow_chown"): "true",
    }


@pytest.mark.parametrize("awk", ["awk", "busybox"])
def test_every_reserved_key_is_known_to_the_node(tree: Tree, awk: str) -> None:
    if awk == "busybox":
        tree.program("awk", 'exec busybox awk "$@"')
    keys = reserved()
    tree.write("etc/containerd/conf.d/10.toml", "".join(f'{spelled(path)} = "x"\n' for path in keys))
    (found,) = tree.read().drop_ins
    assert {each.path: each.value for each in found.keys} == dict.fromkeys(keys, '"x"')


@pytest.mark.parametrize(
    "line", ["a = " + "[" * 19990, "a=" + "{a=" * 6000, "a." * 9000, 'a = """', 'a="' + '\\"' * 9000]
)
def test_a_drop_in_that_is_no_toml_takes_no_time(tree: Tree, line: str) -> None:
    tree.write("etc/containerd/conf.d/10.toml", f"{line}\n" * 300)
    assert (tree.read().seconds or 0.0) < 10


QUOTED = """\
"version" = 2
'root' = "secret-1"
["plugins"."io.containerd.grpc.v1.cri"] # comment
sandbox_image = "secret-2"
['plugins']
"io.containerd.nri.v1.nri".disable = false
list = [
  ["plugin secret-3"],
  ["secret-4"]
]
"""


def test_quoted_keys_and_headers_count_like_bare_ones(tree: Tree, shell: list[str]) -> None:
    tree.write("etc/containerd/conf.d/10.toml", QUOTED)
    lines = tree.run(shell)
    assert "secret" not in "\n".join(lines)
    (found,) = read(lines).drop_ins
    assert found.version == 2
    assert found.tables[:3] == ("root", 'plugins."io.containerd.grpc.v1.cri"', "plugins")
    said = {each.id for each in lint([found], 2, {"plugins": {"io.containerd.grpc.v1.cri": {"a": 1}}})}
    assert said == {"drop-in-moves-root", "drop-in-replaces-section"}


HANDLERS = """\
version = 2
[plugins."io.containerd.grpc.v1.cri".containerd]
  default_runtime_name = "secret-0"
  runtimes.dotted.runtime_type = "secret-1"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes]
    inline = { runtime_type = "secret-2" }
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      BinaryName = "secret-3"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes."kata-fc"] # [plugins.x.containerd.runtimes.no]
      pod_annotations = [
        "secret-4=5",
        ["plugins.x.containerd.runtimes.secret-6"]
      ]
      # [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.commented]
[[plugins.x.other.runtimes.no]]
['plugins'.'io.containerd.cri.v1.runtime'.containerd.runtimes.nvidia]"""


def test_config_toml_shows_its_runtime_handlers_and_never_a_value(tree: Tree, shell: list[str]) -> None:
    tree.write(paths.CONFIG[1:], HANDLERS)
    lines = tree.run(shell)
    assert "secret" not in "\n".join(lines)
    assert read(lines).handlers == ("dotted", "inline", "runc", "kata-fc", "nvidia")
    assert read(lines).drop_ins == ()


PROM = "/srv/metrics/userns_node.prom"


@pytest.mark.parametrize(
    ("unit", "stale"),
    [
        ("LoadState=loaded\nEnvironment=\n", PROM),
        ("LoadState=loaded\n", PROM),
        ("LoadState=loaded\nEnvironment=A=b USERNS_NODE_METRICS=/srv/metrics C=d\n", ""),
        ("Environment=USERNS_NODE_METRICS=/srv/metrics\nLoadState=loaded\n", ""),
        ("LoadState=loaded\nEnvironment=USERNS_NODE_METRICS=/srv/metrics-2\n", PROM),
        ("LoadState=loaded\nEnvironment=USERNS_NODE_METRICS=\n", PROM),
        ('LoadState=loaded\nEnvironment="USERNS_NODE_METRICS=/srv/my metrics"\n', ""),
        ("LoadState=loaded\nEnvironment=USERNS_NODE_METRICS=/srv/m\\xc3\n", ""),
        ("LoadState=loaded\nEnvironmentFiles=/etc/default/check (ignore_errors=yes)\n", ""),
        ("LoadState=loaded\nPassEnvironment=USERNS_NODE_METRICS\n", ""),
        ("LoadState=loaded\nExecStart={ path=/x ; argv[]=/x --unit --metrics /srv/metrics ; }\n", ""),
        ("LoadState=not-found\n", ""),
        ("", ""),
    ],
)
def test_metrics_that_the_checks_unit_writes_no_more_are_told(tree: Tree, unit: str, stale: str) -> None:
    (tree.programs / "unit").write_text(unit)
    tree.program("systemctl", f"case $* in *userns-node-check.service) cat '{tree.programs}/unit' ;; esac")
    assert tree.read().stale_metrics == ""
    tree.write("var/lib/userns-node/metrics", f"{PROM}\n")
    assert tree.read().stale_metrics == ""  # the file is gone
    tree.write(PROM[1:], "x")
    assert tree.read().stale_metrics == stale


@pytest.mark.usefixtures("as_root")
def test_somebody_else_reads_what_he_may_and_says_what_he_may_not(tree: Tree, tmp_path: Path, shell: list[str]) -> None:
    tree.write("etc/containerd/conf.d/1.toml", "[x]", 0o600)
    tree.write("etc/modprobe.d/1.conf", "blacklist overlay", 0o600)
    tree.write("etc/sysctl.d/1.conf", "user.max_user_namespaces=1", 0o600)
    tree.write(paths.CONFIG[1:], "x", 0o600)
    (tree.root / "var/lib/containerd").mkdir(parents=True)
    (tree.root / "var/lib/containerd").chmod(0o700)
    tree.write("var/lib/userns-node/manifest", "x")
    (tree.root / "var/lib/userns-node").chmod(0o700)
    for each in (tmp_path, *tmp_path.parents):
        if each != Path("/") and not each.stat().st_mode & 1:
            each.chmod(each.stat().st_mode | 0o11)
    link(tree.programs, ["setpriv"])
    node = tree.read(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *shell])
    assert not node.root
    assert node.drop_ins == (DropIn(path="/etc/containerd/conf.d/1.toml", unreadable=True),)
    assert node.modprobe_lines == (ConfLine(file="/etc/modprobe.d/1.conf", line="# unreadable"),)
    assert node.sysctl_lines == (ConfLine(file="/etc/sysctl.d/1.conf", line="# unreadable"),)
    assert node.files[paths.CONFIG] == FileState(kind="file", mode="600", owner="0:0")
    assert node.snapshots is None
    assert node.manifest == ""
    assert {(probe.result, probe.step) for probe in node.probes.values()} == {("unknown", "user")}


def test_gpu_hooks(tree: Tree) -> None:
    tree.program("nvidia-ctk", "exit 0")
    tree.write("usr/local/nvidia/toolkit/nvidia-container-runtime", "", 0o755)
    assert set(tree.read().gpu_hooks) == {"nvidia-ctk", "nvidia-container-runtime"}
