"""What a node's own config.toml sets and the new one would not: named, with what comes of it, and nothing else is."""

from __future__ import annotations

from typing import Any

import pytest

from tests import nodes
from userns.findings import Severity
from userns.node import ConfigKey, DropIn

V1_7: dict[str, Any] = {"kubernetes_version": "1.26", "containerd_version": "1.7.34", "runc_version": "1.2.9"}
RUNTIME = 'plugins."io.containerd.cri.v1.runtime"'
IMAGES = 'plugins."io.containerd.cri.v1.images"'
CRI = 'plugins."io.containerd.grpc.v1.cri"'


def key(path: str, value: str = "", state: Any = "set") -> ConfigKey:
    return ConfigKey(path=tuple(path.split("/")), value=value, state=state)


def said(*keys: ConfigKey, drop_ins: tuple[DropIn, ...] = (), **settings: Any) -> str:
    plan = nodes.plan(nodes.bare(config_keys=keys, drop_ins=drop_ins), **settings)
    found = [each for each in plan.findings if each.id == "config-setting-lost"]
    assert {each.severity for each in found} <= {Severity.WARNING}
    assert len(found) < 2
    return "".join(each.message for each in found)


@pytest.mark.parametrize(
    ("lost", "name", "effect"),
    [
        (key("cri/registry/config_path", '"/srv/hosts"'), f"{IMAGES}.registry.config_path", "images are pulled from"),
        (key("cri/registry/mirrors"), f"{IMAGES}.registry.mirrors", "images are pulled from elsewhere"),
        (key("cri/pinned_images/sandbox", '"r/pause:1"'), f"{IMAGES}.pinned_images.sandbox", "set sandbox_image"),
        (key("cri/snapshotter", '"zfs"'), f"{IMAGES}.snapshotter", "set snapshotter"),
        (key("cri/cni/bin_dir", '"/usr/lib/cni"'), f"{RUNTIME}.cni.bin_dirs", "new pods have no network"),
        (key("cri/cni/bin_dirs", '["/opt/cni/bin", "/x"]'), f"{RUNTIME}.cni.bin_dirs", "new pods have no network"),
        (key("cri/cni/conf_dir", '"/etc/kube/cni"'), f"{RUNTIME}.cni.conf_dir", "new pods have no network"),
        (key("cri/enable_selinux"), f"{RUNTIME}.enable_selinux", "SELinux keeps no container from another"),
        (key("cri/registry/headers"), f"{IMAGES}.registry.headers", "no headers"),
        (key("cri/use_local_image_pull"), f"{IMAGES}.use_local_image_pull", "by the transfer service"),
        (key("cri/concurrent_layer_fetch_buffer"), f"{IMAGES}.concurrent_layer_fetch_buffer", ""),
        (key("cri/enable_cdi", "false"), f"{RUNTIME}.enable_cdi", ""),
        (key("imports", '["/a'), "imports", "not read any more"),  # too long, or no TOML
        (key("imports", '[["/a"]]'), "imports", "not read any more"),
        (key("disabled_plugins", "[{a = 1}]"), "disabled_plugins", ""),
        (key("cri/cni/bin_dirs", "[{a = 1}]"), f"{RUNTIME}.cni.bin_dirs", "no network"),
        (key("cri/enable_selinux", state="unknown"), f"{RUNTIME}.enable_selinux", "SELinux keeps"),
        (key("cri/stream_server_address"), f"{CRI}.stream_server_address", ""),
        (key("cri/containerd/runtimes/runc/base_runtime_spec"), f"{RUNTIME}.containerd.runtimes.runc.base_", "limits"),
        (key("cri/containerd/runtimes/runc/options/Root"), f"{RUNTIME}.containerd.runtimes.runc.options.Root", ""),
        (key("imports", '["/etc/containerd/more/*.toml"]'), "imports", "not read any more"),
        (key("disabled_plugins", '["cri", "io.containerd.nri.v1.nri"]'), "disabled_plugins", ""),
        (key("proxy_plugins/stargz/address"), "proxy_plugins.stargz", "processes of their own"),
        (key("cri"), "cri", ""),  # of no table
        (key("metrics/address"), "metrics.address", ""),
        (
            key("plugins/io.containerd.gc.v1.scheduler/pause_threshold"),
            'plugins."io.containerd.gc.v1.scheduler".pa',
            "",
        ),
    ],
    ids=lambda each: "/".join(each.path) if isinstance(each, ConfigKey) else "",
)
def test_what_goes_is_named_as_the_new_version_calls_it_with_what_comes_of_it(
    lost: ConfigKey, name: str, effect: str
) -> None:
    message = said(lost)
    assert message.startswith(f"config.toml sets {name}")
    assert (", so that " in message) == bool(effect)
    assert effect in message
    assert "into the setting containerd_config, or into a drop-in in /etc/containerd/conf.d, before" in message


@pytest.mark.parametrize(
    "kept",
    [
        key("cri/registry/config_path", '"/etc/containerd/certs.d"'),
        key("cri/registry/config_path", '""', "default"),
        key("cri/registry/config_path", '""'),
        key("cri/pinned_images/sandbox", '"registry.k8s.io/pause:3.10"', "default"),
        key("cri/registry/config_path", '"/etc/containerd/certs.d/"'),
        key("cri/pinned_images/sandbox", '"registry.k8s.io/pause:3.10.2"'),  # the new one's own
        key("cri/pinned_images/sandbox", '"registry.k8s.io/pause:3.8"', "unknown"),
        key("cri/enable_cdi", "true"),
        key("cri/enable_unprivileged_ports", "true"),
        key("cri/image_decryption/key_model", state="unknown"),
        key("cri/cni/max_conf_num", state="unknown"),
        key("stream_processors/io.containerd.ocicrypt.decoder.v1.tar/path", state="unknown"),
        key("cri/containerd/runtimes/runc/sandboxer", state="unknown"),
        key("plugins/opt/path"),
        key("plugins"),
        key("imports", '["conf.d/*.toml", "/etc/containerd/conf.d/99-nvidia.toml"]'),
        key("state", '"/var/run/containerd/"'),
        key("cri/snapshotter", '"overlayfs"', "default"),
        key("cri/snapshotter", '"overlayfs"', "unknown"),
        key("cri/cni/bin_dir", '""', "default"),
        key("cri/cni/bin_dir", '"/usr/lib/cni"', "default"),  # of a distribution's: cni-plugins-elsewhere tells
        key("cri/cni/bin_dirs", '["/opt/cni/bin"]'),
        key("cri/cni/conf_dir", '"/etc/cni/net.d"', "unknown"),
        key("cri/containerd/runtimes/nvidia/options/Root"),
        key("cri/containerd/runtimes/runc/runtime_type"),
        key("cri/containerd/runtimes/runc/options/SystemdCgroup"),
        key("cri/containerd/default_runtime_name"),
        key("imports", "[]", "default"),
        key("state", '"/run/containerd"', "unknown"),
        key("grpc/address", '"/run/containerd/containerd.sock"', "unknown"),
        key("imports", '["/etc/containerd/conf.d/*.toml"]'),
        key("disabled_plugins", '["cri"]'),
        key("disabled_plugins", '["io.containerd.internal.v1.opt"]', "default"),
        key("version"),
        key("root"),
        key("plugins/io.containerd.snapshotter.v1.overlayfs/slow_chown"),
        key("plugins/io.containerd.runtime.v1.linux/shim"),
        key("cri/max_concurrent_downloads", state="unknown"),
    ],
    ids=lambda each: "/".join(each.path),
)
def test_nothing_is_said_of_what_stays_or_is_decided_by_a_setting(kept: ConfigKey) -> None:
    assert said(kept) == ""


def test_a_file_elsewhere_that_is_read_no_more_is_named() -> None:
    node = nodes.bare(config_keys=(key("cri/enable_selinux"),), config_option="/usr/share/containerd/config.toml")
    (message,) = [each.message for each in nodes.plan(node).findings if each.id == "config-setting-lost"]
    assert message.startswith(f"/usr/share/containerd/config.toml sets {RUNTIME}.enable_selinux, which the new one")
    assert "is kept as" not in message
    assert "; the old file is kept as /var/lib/userns-node/replaced/config.toml.DIGEST" in said(
        key("cri/enable_selinux")
    )


def test_what_a_setting_now_says_is_no_loss() -> None:
    assert said(key("cri/pinned_images/sandbox", '"r/pause:1"'), sandbox_image="r/pause:2") == ""
    extra = {"plugins": {"io.containerd.cri.v1.runtime": {"cni": {"bin_dir": "/usr/lib/cni"}}}}
    assert said(key("cri/cni/bin_dir", '"/usr/lib/cni"'), containerd_config=extra) == ""
    assert said(key("cri/cni/bin_dirs", '["/usr/lib/cni"]'), containerd_config=extra) == ""
    imports = ["/etc/containerd/conf.d/*.toml", "/etc/containerd/more/*.toml"]
    assert said(key("imports", '["/etc/containerd/more/*.toml"]'), containerd_config={"imports": imports}) == ""


@pytest.mark.parametrize(
    ("lost", "sets", "kept"),
    [
        ("cri/registry/config_path", "cri/registry/config_path", True),
        ("cri/enable_selinux", "cri/enable_selinux", True),
        ("cri/enable_selinux", "cri/enable_cdi", False),
        ("cri/cni/bin_dir", "cri/cni/bin_dirs", True),
        ("cri/registry/configs", "cri/registry/configs", False),  # it may be of another host
        ("imports", "imports", False),
        ("disabled_plugins", "disabled_plugins", False),
        ("cri/containerd/runtimes/runc/base_runtime_spec", "cri/containerd/runtimes/runc/options/Root", False),
    ],
)
def test_what_a_drop_in_sets_stays(lost: str, sets: str, kept: bool) -> None:
    drop_in = DropIn(path="/etc/containerd/conf.d/1.toml", version=3, sets=(tuple(sets.split("/")),))
    assert (said(key(lost, '"/srv"'), drop_ins=(drop_in,)) == "") == kept


def test_what_nobody_may_set_cannot_stay() -> None:
    message = said(key("state", '"/srv/state"'))
    assert message.startswith(
        "config.toml sets state, which the new one does not, or sets otherwise, so that containers"
    )
    assert ": drain the node first. state cannot stay. These are its names" in message
    message = said(key("grpc/address", '"/srv/c.sock"'), key("cri/enable_selinux"))
    assert "has to look at /run/containerd/containerd.sock" in message
    assert "grpc.address cannot stay. What else has to stay, put into the setting containerd_config" in message


def cni(plugins: str, drop_ins: tuple[DropIn, ...] = (), **settings: Any) -> str:
    plan = nodes.plan(nodes.bare(cni_plugins=plugins, drop_ins=drop_ins), **settings)
    return "".join(each.message for each in plan.findings if each.id == "cni-plugins-elsewhere")


def test_plugins_of_cni_that_the_new_containerd_would_not_find_are_told() -> None:
    message = cni("/usr/lib/cni")
    assert f'put {RUNTIME}.cni.bin_dirs = ["/usr/lib/cni"] into the setting containerd_config' in message
    assert f'put {RUNTIME}.cni.bin_dir = "/usr/lib/cni" into' in cni("/usr/lib/cni", containerd_version="2.0.11")
    assert f'put {CRI}.cni.bin_dir = "/usr/lib/cni" into' in cni("/usr/lib/cni", **V1_7)
    assert cni("") == ""
    package: dict[str, Any] = {"install_from": "package", "containerd_version": "2.1.9", "runc_version": "1.3.6"}
    assert cni("/usr/lib/cni", **package) == ""
    extra = {"plugins": {"io.containerd.cri.v1.runtime": {"cni": {"bin_dirs": ["/usr/lib/cni"]}}}}
    assert cni("/usr/lib/cni", containerd_config=extra) == ""
    drop_in = DropIn(path="/etc/containerd/conf.d/1.toml", version=3, sets=(("cri", "cni", "bin_dir"),))
    assert cni("/usr/lib/cni", drop_ins=(drop_in,)) == ""


@pytest.mark.parametrize("name", ["bin_dir", "bin_dirs"])
def test_the_directories_of_plugins_have_the_key_that_this_containerd_reads(name: str) -> None:
    """bin_dirs begins with containerd 2.1."""
    own = key(f"cri/cni/{name}", '["/usr/lib/cni"]')
    extra = {"plugins": {"io.containerd.cri.v1.runtime": {"cni": {"bin_dirs": ["/usr/lib/cni"]}}}}
    drop_in = DropIn(path="/etc/containerd/conf.d/1.toml", version=3, sets=(("cri", "cni", "bin_dirs"),))
    assert f"sets {RUNTIME}.cni.bin_dirs, which" in said(own)
    assert said(own, containerd_config=extra) == said(own, drop_ins=(drop_in,)) == ""
    of_2_0: dict[str, Any] = {"containerd_version": "2.0.11"}
    assert f"sets {RUNTIME}.cni.bin_dir, which" in said(own, **of_2_0)
    assert said(own, containerd_config=extra, **of_2_0) != ""
    assert said(own, drop_ins=(drop_in,), **of_2_0) != ""
    assert f"sets {CRI}.cni.bin_dir, which" in said(own, **V1_7)


@pytest.mark.parametrize("state", ["set", "default", "unknown"])
@pytest.mark.parametrize("value", ["", "?", "[1]", '["x"]', "{a = 1}", "[[]]", "true", "1", "nan"])
def test_no_value_ends_the_plan(state: str, value: str) -> None:
    names = "imports state grpc/address disabled_plugins cri/snapshotter cri/pinned_images/sandbox cri/cni/bin_dirs"
    keys = [key(path, value, state) for path in (*names.split(), "cri/registry/config_path", "cri/enable_cdi", "x", "")]
    extra = {"imports": ["/etc/containerd/conf.d/*.toml", 5]}
    assert "config.toml" in said(*keys, containerd_config=extra)


def test_of_containerd_17_it_has_the_names_of_version_2_and_no_drop_in_is_advised() -> None:
    message = said(
        key("cri/pinned_images/sandbox", '"r/pause:1"'),
        key("cri/snapshotter", '"zfs"'),
        key("cri/registry/config_path", '"/etc/containerd/certs.d"'),
        **V1_7,
    )
    named = [f"{CRI}.{each}" for each in ("sandbox_image", "containerd.snapshotter", "registry.config_path")]
    assert message.startswith(
        f"config.toml sets {', '.join(named)}, which the new one does not, or sets otherwise, so that pods need"
    )
    assert "conf.d" not in message


def test_of_many_those_with_an_effect_come_first_and_the_rest_is_counted() -> None:
    others = [key(f"plugins/io.x/{number}") for number in range(20)]
    many = [key(f"stream_processors/x{number}/{each}") for number in range(2) for each in ("path", "args")]
    message = said(*others, key("cri/enable_selinux"), *many)
    told = message.partition(", which the new one")[0]
    assert told.startswith(
        f"config.toml sets {RUNTIME}.enable_selinux, stream_processors.x0, stream_processors.x1, plugi"
    )
    assert told.endswith(" and 11 more")
    assert message.count("encrypted images") == 1
