"""The node script on a config.toml that no deploy wrote: which keys it tells, against which defaults, and no value."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from tests.deploy.node_trees import Tree
from userns import paths
from userns.node import ConfigKey
from userns.reading import read

# As `containerd config default` of 2.1 prints it, shortened.
DEFAULTS = """\
version = 3
root = '/var/lib/containerd'
imports = []

[grpc]
  address = '/run/containerd/containerd.sock'

[plugins]
  [plugins.'io.containerd.cri.v1.images']
    snapshotter = 'overlayfs'

    [plugins.'io.containerd.cri.v1.images'.pinned_images]
      sandbox = 'registry.k8s.io/pause:3.10'

  [plugins.'io.containerd.cri.v1.runtime']
    enable_cdi = true
    cdi_spec_dirs = ['/etc/cdi', '/var/run/cdi']

    [plugins.'io.containerd.cri.v1.runtime'.cni]
      bin_dirs = ['/usr/lib/cni', '/opt/cni/bin']

[[plugins.'io.containerd.transfer.v1.local'.unpack_config]]
  platform = 'linux/amd64'

[timeouts]
  'io.containerd.timeout.shim.load' = '5s'
"""
OWN = """\
version = 3
root = "/secret-root"
imports = [
    "/etc/containerd/more/*.toml", # "]"
  "/x/*.toml",
]
plugins."io.containerd.cri.v1.runtime" = { enable_cdi = false, cdi_spec_dirs = [ "/etc/cdi",
    "/var/run/cdi", ] }
[plugins.'io.containerd.cri.v1.images']
  snapshotter = "overlayfs"
  registry.config_path = '/srv/hosts'
[plugins.'io.containerd.cri.v1.images'.registry.configs."https://user:secret-1@r.example:5000".auth]
  username = "secret-2"
  password = '''
[secret-3]
secret-4 = 1'''
[plugins."io.containerd.cri.v1.images".registry.mirrors."docker.io"]
  endpoint = ["https://secret-5"]
[timeouts]
  "io.containerd.timeout.shim.load" = "5s"
[metrics]
  address = ""
[debug]
  level = "debug"
[plugins.'io.containerd.transfer.v1.local']
  unpack_config = [{ platform = "secret-6" }]
"""


@pytest.fixture
def told(tree: Tree) -> Tree:
    """A tree with a containerd that tells its defaults."""
    tree.write("usr/bin/defaults", DEFAULTS)
    tree.write(
        "usr/bin/containerd", f'#!/bin/sh\n[ "$*" != "config default" ] || cat {tree.root}/usr/bin/defaults\n', 0o755
    )
    return tree


def key(path: str, value: str = "", state: Any = "set") -> ConfigKey:
    return ConfigKey(path=tuple(path.split("/")), value=value, state=state)


def test_keys_that_are_no_default_are_told_and_never_a_value_that_may_be_secret(told: Tree, shell: list[str]) -> None:
    told.write(paths.CONFIG[1:], OWN)
    assert "secret" not in "\n".join(told.run(shell))
    assert told.read(shell).config_keys == (
        key("root"),
        key("imports", '["/etc/containerd/more/*.toml","/x/*.toml"]'),
        key("cri/enable_cdi", "false"),
        key("cri/snapshotter", '"overlayfs"', "default"),
        key("cri/registry/config_path", '"/srv/hosts"'),
        key("cri/registry/configs"),
        key("cri/registry/mirrors"),
        key("debug/level"),
        key("plugins/io.containerd.transfer.v1.local/unpack_config"),
    )


def test_its_own_defaults_are_none_of_them(told: Tree, shell: list[str]) -> None:
    told.write(paths.CONFIG[1:], DEFAULTS)
    assert {each.state for each in told.read(shell).config_keys} == {"default"}


OLD = """\
version = 2
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "registry.k8s.io/pause:3.8"
  enable_cdi = true
  disable_apparmor = false
  unset_seccomp_profile = ""
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "zfs"
    discard_unpacked_layers = true
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      base_runtime_spec = "/secret"
"""


@pytest.mark.parametrize("name", ["io.containerd.grpc.v1.cri", "cri"])
def test_a_file_of_an_older_version_is_set_against_the_same_keys(told: Tree, shell: list[str], name: str) -> None:
    told.write(paths.CONFIG[1:], OLD.replace("io.containerd.grpc.v1.cri", name))
    version, *rest = told.read(shell).config_keys
    assert version == key("version")
    assert rest == [
        key("cri/pinned_images/sandbox", '"registry.k8s.io/pause:3.8"'),
        key("cri/enable_cdi", "true", "default"),
        key("cri/snapshotter", '"zfs"'),
        key("cri/discard_unpacked_layers"),
        key("cri/containerd/runtimes/runc/base_runtime_spec"),
    ]


@pytest.mark.parametrize("mode", [0o775, 0o757])
def test_a_containerd_that_others_may_write_is_not_asked(told: Tree, shell: list[str], mode: int) -> None:
    (told.root / "usr/bin/containerd").chmod(mode)
    told.write(paths.CONFIG[1:], OLD)
    assert {each.state for each in told.read(shell).config_keys} == {"unknown"}


def test_a_containerd_that_fails_or_is_not_there_leaves_the_state_unknown(told: Tree, shell: list[str]) -> None:
    told.write(paths.CONFIG[1:], OLD)
    told.write("usr/bin/defaults")
    assert {each.state for each in told.read(shell).config_keys} == {"unknown"}
    (told.root / "usr/bin/containerd").unlink()
    assert {each.state for each in told.read(shell).config_keys} == {"unknown"}


def test_what_a_deploy_wrote_has_none(told: Tree, shell: list[str]) -> None:
    written = told.write(paths.CONFIG[1:], OLD)
    digest = hashlib.sha256(OLD.encode()).hexdigest()
    told.write(paths.MANIFEST[1:], f"file\t{paths.CONFIG}\t{digest}\n")
    assert told.read(shell).config_keys == ()
    written.write_text(f"{OLD}# by hand\n")
    assert told.read(shell).config_keys != ()


def test_the_containerd_of_a_release_is_asked_rather_than_a_packages(told: Tree) -> None:
    told.write("usr/local/bin/containerd", "#!/bin/sh\necho 'imports = [\"/x\"]'\n", 0o755)
    told.write(paths.CONFIG[1:], 'imports = ["/x"]')
    assert told.read().config_keys == (key("imports", '["/x"]', "default"),)


def test_of_very_many_it_tells_a_part(told: Tree, shell: list[str]) -> None:
    told.write(paths.CONFIG[1:], "".join(f"[proxy_plugins.x{number}]\naddress = 'x'\n" for number in range(300)))
    assert len([each for each in told.read(shell).config_keys if each.path[0] == "proxy_plugins"]) == 200


def test_the_file_that_containerd_was_started_with_counts(told: Tree, shell: list[str]) -> None:
    told.write(paths.CONFIG[1:], "[metrics]\naddress = 'x'\n")
    told.write("usr/share/c.toml", "[debug]\nlevel = 'x'\n")
    told.write("proc/50/comm", "containerd\n")
    told.write("proc/50/cgroup", "0::/system.slice/containerd.service\n")
    told.write("proc/50/cmdline", "/usr/bin/containerd\0--config\0/usr/share/c.toml\0")
    assert told.read(shell).config_keys == (key("debug/level"),)


def test_a_tab_within_a_value_splits_no_record(told: Tree, shell: list[str]) -> None:
    told.write(paths.CONFIG[1:], "[plugins.'io.containerd.cri.v1.images'.registry]\nconfig_path = '/srv\tx'\n")
    assert told.read(shell).config_keys[0] == key("cri/registry/config_path", '"/srv?x"')


def test_what_a_drop_in_sets_where_its_version_is_not_read_is_not_set(told: Tree, shell: list[str]) -> None:
    text = """version = %s
[plugins."io.containerd.grpc.v1.cri"]
enable_selinux = true
stream_server_address = "x"
"""
    told.write("etc/containerd/conf.d/1.toml", text % 2)
    told.write("etc/containerd/conf.d/2.toml", text % 3)
    two, three = told.read(shell).drop_ins
    assert two.sets == (("version",), ("cri", "enable_selinux"), ("cri", "stream_server_address"))
    assert three.sets == (("version",), ("cri", "stream_server_address"))


@pytest.mark.parametrize(
    ("plugins", "told_as"),
    [
        ([], ""),
        (["usr/lib/cni/loopback"], "/usr/lib/cni"),
        (["usr/libexec/cni/loopback"], "/usr/libexec/cni"),
        (["usr/lib/cni/loopback", "opt/cni/bin/loopback"], ""),
        (["usr/lib/cni/ptp"], ""),
    ],
)
def test_plugins_of_cni_are_told_where_upstreams_containerd_finds_none(
    tree: Tree, shell: list[str], plugins: list[str], told_as: str
) -> None:
    for each in plugins:
        tree.write(each, "", 0o755)
    assert tree.read(shell).cni_plugins == told_as


# As containerd 2.3 prints it, shortened: servers are plugins, and both plugins of CRI have a stats_collect_period.
VERSION_4 = """\
version = 4
[plugins]
  [plugins.'io.containerd.cri.v1.images']
    stats_collect_period = 10
  [plugins.'io.containerd.cri.v1.runtime']
    stats_collect_period = ''
  [plugins.'io.containerd.server.v1.grpc']
    address = '/run/containerd/containerd.sock'
    max_recv_message_size = 16777216
  [plugins.'io.containerd.server.v1.grpc-tcp']
    address = ''
  [plugins.'io.containerd.server.v1.metrics']
    address = ''
"""


def test_servers_have_one_name_in_every_version(told: Tree, shell: list[str]) -> None:
    told.write("usr/bin/defaults", VERSION_4)
    told.write(paths.CONFIG[1:], VERSION_4)
    assert {each.state for each in told.read(shell).config_keys} == {"default"}
    told.write(
        paths.CONFIG[1:], VERSION_4.replace("/run/containerd/", "/srv/").replace("address = ''", "address = 'x'")
    )
    assert told.read(shell).config_keys == (
        key("grpc/address", '"/srv/containerd.sock"'),
        key("grpc/tcp_address"),
        key("metrics/address"),
    )
    told.write(paths.CONFIG[1:], "[grpc]\naddress = '/srv/c.sock'\nmax_recv_message_size = 16777216\n")
    assert told.read(shell).config_keys == (key("grpc/address", '"/srv/c.sock"'),)


@pytest.mark.parametrize(
    "text",
    [
        "[plugins.'io.containerd.cri.v1.images'.registry.config_path.'docker.io'.auth]\npassword = 'secret'\n",
        "[plugins.'io.containerd.cri.v1.image'.registry.configs.'https://u:secret@h'.auth]\nusername = 'x'\n",
        "[registry.configs.'u:secret@h'.auth]\nusername = 'x'\n",
        'disabled_plugins = ["cri]\n[x]\npassword = "secret"\n]\n',
        'imports = ["/a", """\npassword = "secret"\n"""]\n',
    ],
)
def test_a_slip_in_the_file_lets_no_secret_out(told: Tree, shell: list[str], text: str) -> None:
    told.write(paths.CONFIG[1:], text)
    told.write("etc/containerd/conf.d/1.toml", text)
    assert "secret" not in "\n".join(told.run(shell))


def test_a_name_of_other_letters_is_told_in_ascii(told: Tree, shell: list[str]) -> None:
    told.write(paths.CONFIG[1:], '["größe"]\n"a\x1bb" = 1\n'.encode("latin-1"))
    assert next(each.path for each in told.read(shell).config_keys) == ("gr??e", "a?b")
    told.write("etc/containerd/conf.d/1.toml", '"größe" = 1\n'.encode("latin-1"))
    assert told.read(shell).drop_ins[0].sets == (("gr??e",),)


def test_a_drop_in_tells_each_key_that_it_sets_by_the_same_names(told: Tree, shell: list[str]) -> None:
    told.write("etc/containerd/conf.d/1.toml", OWN)
    lines = told.run(shell)
    assert "secret" not in "\n".join(lines)
    (drop_in,) = read(lines).drop_ins
    assert ("cri", "enable_cdi") in drop_in.sets
    assert ("cri", "registry", "configs") in drop_in.sets
    assert len(drop_in.sets) == len({*drop_in.sets})
