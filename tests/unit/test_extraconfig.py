"""`containerd_config`: what may be added to config.toml, and what a setting writes already."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from userns.containerd import config
from userns.containerd.extraconfig import CRI, IMAGES, OVERLAY, RUNTIME
from userns.policy import PolicyError, load
from userns.releases import Lock

LOCK = Lock.parse((Path(__file__).parents[2] / "artifacts" / "lock.toml").read_text())
V2 = {"containerd_version": "1.7.34"}
V3 = {"containerd_version": "2.3.4"}
RUNC_TYPE = "io.containerd.runc.v2"

BOTH_WAYS = {"mirrors": {"docker.io": {"endpoint": ["https://m.example"]}}, "config_path": "/etc/containerd/certs.d"}


def plugin(id: str, **table: Any) -> dict[str, Any]:
    return {"plugins": {id: table}}


def handlers(id: str, **runtimes: Any) -> dict[str, Any]:
    return plugin(id, containerd={"runtimes": runtimes})


def messages(extra: object, **settings: Any) -> list[str]:
    try:
        load({"containerd_config": extra, **settings}, LOCK)
    except PolicyError as error:
        return [str(problem) for problem in error.problems]
    return []


@pytest.mark.parametrize(
    ("settings", "extra"),
    [
        (V3, {}),
        (V3, {"debug": {"level": "debug"}, "oom_score": -999, "metrics": {"address": "127.0.0.1:1338"}}),
        (V3, {"imports": ["/etc/containerd/conf.d/*.toml", "/etc/containerd/site/*.toml"]}),
        (V3, {"proxy_plugins": {"stargz": {"type": "snapshot", "address": "/run/stargz.sock"}}}),
        (V3, plugin(CRI, stream_idle_timeout="1h")),
        (V3, plugin(IMAGES, registry={"config_path": "/etc/containerd/certs.d"}, max_concurrent_downloads=5)),
        (V3, plugin(IMAGES, registry={"config_path": "/a:/b"}, use_local_image_pull=True)),
        (V3, plugin(RUNTIME, enable_selinux=True, cdi_spec_dirs=["/etc/cdi"])),
        (V3, plugin(OVERLAY, sync_remove=True, mount_options=["volatile"])),
        (V3, handlers(RUNTIME, gvisor={"runtime_type": "io.containerd.runsc.v1"})),
        (
            V3,
            handlers(RUNTIME, kata={"runtime_type": "io.containerd.kata.v2", "privileged_without_host_devices": True}),
        ),
        (V3, handlers(RUNTIME, runc={"cgroup_writable": True, "base_runtime_spec": "/etc/containerd/base.json"})),
        (V3, handlers(RUNTIME, nvidia={"runtime_type": RUNC_TYPE, "options": {"SystemdCgroup": True}})),
        (
            {**V3, "cgroup_driver": "cgroupfs"},
            handlers(RUNTIME, nvidia={"runtime_type": RUNC_TYPE, "options": {"BinaryName": "/usr/bin/nvidia"}}),
        ),
        ({**V3, "crun_version": "1.17"}, handlers(RUNTIME, crun={"pod_annotations": ["run.oci.*"]})),
        (V2, plugin(CRI, registry={"config_path": "/etc/containerd/certs.d"}, enable_selinux=True)),
        (V2, handlers(CRI, gvisor={"runtime_type": "io.containerd.runsc.v1"})),
    ],
)
def test_what_no_setting_writes_may_be_added(settings: dict[str, Any], extra: dict[str, Any]) -> None:
    assert messages(extra, **settings) == []


RUNTIMES_V3 = f'plugins."{RUNTIME}".containerd.runtimes'


@pytest.mark.parametrize(
    ("settings", "extra", "message"),
    [
        (V3, {"version": 3}, "version = 3: leave it out: it follows containerd_version"),
        (V3, {"root": "/data"}, 'root = "/data": set containerd_root, which is what gets probed too'),
        (V3, {"state": "/run/c"}, "leave it out: the node check and the kubelet"),
        (V3, {"grpc": {"address": "/run/c.sock"}}, "grpc.address"),
        (V3, {"imports": []}, 'imports: keep "/etc/containerd/conf.d/*.toml" in the list'),
        (V3, {"imports": "/etc/containerd/conf.d/*.toml"}, "imports: keep"),
        (V3, {"disabled_plugins": [CRI]}, f'disabled_plugins: take out "{CRI}": the kubelet needs CRI'),
        (V3, {"disabled_plugins": [OVERLAY]}, "the kubelet needs the snapshotter"),
        (V3, {"plugins": []}, "plugins: this must be a table"),
        (V3, {"plugins": {RUNTIME: 1}}, f'plugins."{RUNTIME}": this must be a table'),
        (V3, {"plugins": {"io.containerd.gc.v1.scheduler": 1}}, 'scheduler": this must be a table'),
        (V3, plugin(IMAGES, pinned_images=1), f'plugins."{IMAGES}".pinned_images: this must be a table'),
        (V3, plugin(RUNTIME, containerd={"runtimes": []}), f"{RUNTIMES_V3}: this must be a table"),
        (V3, handlers(RUNTIME, runc={"options": 1}), f"{RUNTIMES_V3}.runc.options: this must be a table"),
        (V3, plugin("cri", sandbox_image="x"), "plugins.cri: a plugin id is one key with its dots"),
        (V3, {"plugins": {"io": {"containerd": {}}}}, "plugins.io: a plugin id is one key with its dots"),
        (V3, plugin("io.containerd.server.v1.grpc", address="/x"), "write the table at the top"),
        # Each setting that writes a key, in the ids of both versions.
        (V3, plugin(OVERLAY, slow_chown=True), f'plugins."{OVERLAY}".slow_chown = true: set slow_chown'),
        (V3, plugin(OVERLAY, root_path="/data"), "set containerd_root"),
        (V3, plugin(RUNTIME, containerd={"default_runtime_name": "crun"}), "set default_runtime"),
        (V3, plugin(IMAGES, snapshotter="zfs"), f'plugins."{IMAGES}".snapshotter = "zfs": set snapshotter'),
        (V3, plugin(IMAGES, pinned_images={"sandbox": "pause:1"}), "set sandbox_image"),
        (V2, plugin(CRI, sandbox_image="pause:1"), f'plugins."{CRI}".sandbox_image = "pause:1": set sandbox_image'),
        (V2, plugin(CRI, systemd_cgroup=True), "set cgroup_driver"),
        (V2, plugin(CRI, containerd={"snapshotter": "zfs"}), "set snapshotter"),
        (V2, plugin(CRI, containerd={"default_runtime_name": "x"}), "set default_runtime"),
        (V2, plugin(OVERLAY, slow_chown=False), "set slow_chown"),
        # Our own handlers.
        (
            V3,
            handlers(RUNTIME, runc={"options": {"SystemdCgroup": True}}),
            f"{RUNTIMES_V3}.runc.options.SystemdCgroup = true: set cgroup_driver",
        ),
        (V3, handlers(RUNTIME, runc={"options": {"BinaryName": "/opt/runc"}}), "it follows install_from"),
        (V3, handlers(RUNTIME, runc={"runtime_type": RUNC_TYPE}), "leave it out"),
        (V3, handlers(RUNTIME, runc={"snapshotter": "zfs"}), "set snapshotter"),
        (V2, handlers(CRI, runc={"options": {"SystemdCgroup": False}}), "set cgroup_driver"),
        (V3, handlers(RUNTIME, crun={"cgroup_writable": True}), "set crun_version, which brings this handler"),
        ({**V3, "crun_version": "1.17"}, handlers(RUNTIME, crun={"options": {"BinaryName": "/x"}}), "BinaryName"),
        # Others' handlers of the runc type: one cgroup driver for all.
        (V3, handlers(RUNTIME, nvidia={"runtime_type": RUNC_TYPE}), "it is not set, which means false"),
        (V2, handlers(CRI, nvidia={"runtime_type": RUNC_TYPE, "options": {}}), "SystemdCgroup must be true"),
        (V3, handlers(RUNTIME, x={"runtime_type": RUNC_TYPE, "options": {"SystemdCgroup": "true"}}), 'it is "true"'),
        (
            {**V3, "cgroup_driver": "cgroupfs"},
            handlers(RUNTIME, nvidia={"runtime_type": RUNC_TYPE, "options": {"SystemdCgroup": True}}),
            'must be false as cgroup_driver is "cgroupfs"',
        ),
        (V3, handlers(RUNTIME, gvisor="runsc"), f"{RUNTIMES_V3}.gvisor: this must be a table"),
        # Plugin ids of the other version.
        (V2, plugin(RUNTIME, enable_selinux=True), f'containerd 1.x reads its CRI settings under "{CRI}"'),
        (V2, plugin(IMAGES, registry={}), f'containerd 1.x reads its CRI settings under "{CRI}"'),
        (V3, plugin(CRI, enable_selinux=True), f'.enable_selinux: containerd 2.x reads it under "{RUNTIME}"'),
        (V3, plugin(CRI, registry={}), f'.registry: containerd 2.x reads it under "{IMAGES}"'),
        (V3, handlers(CRI, gvisor={"runtime_type": "x.v1"}), f'.containerd: containerd 2.x reads it under "{RUNTIME}"'),
        (V3, plugin(CRI, containerd={"discard_unpacked_layers": True}), f'discard_unpacked_layers: "{IMAGES}"'),
        # What the other plugin of CRI reads in version 3, or none any more.
        (
            V3,
            plugin(RUNTIME, containerd={"snapshotter": "native"}),
            f'plugins."{RUNTIME}".containerd.snapshotter = "native": containerd 2.x reads no such key there: '
            "set snapshotter",
        ),
        (V3, plugin(RUNTIME, sandbox_image="pause:1"), "reads no such key there: set sandbox_image"),
        (V3, plugin(IMAGES, sandbox_image="pause:1"), "reads no such key there: set sandbox_image"),
        (V3, plugin(RUNTIME, systemd_cgroup=True), "reads no such key there: set cgroup_driver"),
        (V3, plugin(RUNTIME, snapshotter="native"), "reads no such key there: set snapshotter"),
        (V3, plugin(RUNTIME, containerd={"default_runtime": {}}), "reads no such key there: set default_runtime"),
        (V3, plugin(RUNTIME, registry={"config_path": "/x"}), f'.registry: containerd 2.x reads it under "{IMAGES}"'),
        (V3, plugin(RUNTIME, use_local_image_pull=True), f'containerd 2.x reads it under "{IMAGES}"'),
        (
            V3,
            plugin(RUNTIME, containerd={"discard_unpacked_layers": True}),
            f'.containerd.discard_unpacked_layers: containerd 2.x reads it under "{IMAGES}", without .containerd',
        ),
        (V3, plugin(RUNTIME, stream_idle_timeout="1h"), f'containerd 2.x reads it under "{CRI}"'),
        (V3, plugin(IMAGES, enable_selinux=True), f'.enable_selinux: containerd 2.x reads it under "{RUNTIME}"'),
        (V3, plugin(IMAGES, stream_server_port="1"), f'containerd 2.x reads it under "{CRI}"'),
        (V3, plugin(IMAGES, containerd={"snapshotter": "x"}), f'(snapshotter: "{IMAGES}", without .containerd)'),
        # Of two directories of hosts.toml the transfer service reads none.
        (V3, plugin(IMAGES, registry={"config_path": "/a:/b"}), "name one directory"),
        # Mirrors and a directory of hosts.toml exclude each other.
        (V3, plugin(IMAGES, registry=BOTH_WAYS), f'plugins."{IMAGES}".registry.mirrors: with config_path beside it'),
        (V2, plugin(CRI, registry=BOTH_WAYS), f'plugins."{CRI}".registry.mirrors: with config_path beside it'),
        (V3, plugin(IMAGES, registry=5), f'plugins."{IMAGES}".registry: this must be a table'),
        (V2, plugin(CRI, registry=5), f'plugins."{CRI}".registry: this must be a table'),
        (V3, plugin(IMAGES, registry={"mirrors": ["x"]}), f'"{IMAGES}".registry.mirrors: this must be a table'),
        # Overlay options against metacopy.
        (V3, plugin(OVERLAY, mount_options=["metacopy=on"]), 'has "metacopy=on": set overlay_metacopy'),
        (V3, plugin(OVERLAY, mount_options=["redirect_dir=off"]), "which switches metacopy off"),
        (V3, plugin(OVERLAY, mount_options=["userxattr"]), "set overlay_metacopy = False"),
    ],
)
def test_what_a_setting_writes_is_refused_with_that_setting(
    settings: dict[str, Any], extra: dict[str, Any], message: str
) -> None:
    (found,) = messages(extra, **settings)
    assert found.startswith("containerd_config: ")
    assert message in found


def test_a_password_in_the_tables_is_not_shown() -> None:
    extra = plugin(IMAGES, registry={"configs": {"r": {"auth": {"password": "hunter2"}}}}, snapshotter="zfs")
    (found,) = messages(extra)
    assert "hunter2" not in found
    for id in (RUNTIME, CRI):
        (found,) = messages(plugin(id, registry={"configs": {"r": {"auth": {"password": "hunter2"}}}}))
        assert "hunter2" not in found
    (found,) = messages({**extra, "x": None})
    assert "hunter2" not in found


@pytest.mark.parametrize("registry", [BOTH_WAYS | {"config_path": ""}, BOTH_WAYS | {"mirrors": {}}])
def test_of_mirrors_and_a_directory_one_may_be_empty(registry: dict[str, Any]) -> None:
    assert messages(plugin(IMAGES, registry=registry)) == []
    assert messages(plugin(CRI, registry=registry), **V2) == []


def test_redirect_dir_on_goes_with_metacopy() -> None:
    assert messages(plugin(OVERLAY, mount_options=["redirect_dir=on"])) == []
    assert messages(plugin(OVERLAY, mount_options=["redirect_dir=off"]), overlay_metacopy=False) == []


WORDS = (
    "version root plugins imports disabled_plugins containerd runtimes runc crun nvidia options SystemdCgroup "
    "runtime_type mount_options slow_chown snapshotter sandbox_image registry stream_idle_timeout"
)
KEYS = st.sampled_from([*WORDS.split(), CRI, RUNTIME, IMAGES, OVERLAY])
TREES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4) | st.just(RUNC_TYPE),
    lambda inner: st.dictionaries(KEYS, inner, max_size=4) | st.lists(inner, max_size=2),
    max_leaves=20,
)


@given(TREES, st.sampled_from([V2, V3]))
def test_any_shape_of_tables_is_refused_in_words_or_goes_into_config_toml(
    extra: object, settings: dict[str, Any]
) -> None:
    try:
        policy = load({"containerd_config": extra, **settings}, LOCK)
    except PolicyError as error:
        assert {problem.setting for problem in error.problems} == {"containerd_config"}  # noqa: PT017
        return
    config.intended(
        config.Settings(
            version=policy.config_version,
            root=policy.containerd_root,
            cgroup_driver=policy.cgroup_driver,
            handlers={"runc": "/usr/local/sbin/runc"},
            default_runtime=policy.default_runtime,
            snapshotter=policy.snapshotter,
            sandbox_image="pause:1",
            slow_chown=True,
            extra=policy.containerd_config,
        )
    )
