"""Nodes and settings for hypothesis: whatever the fact could describe and the settings could say, likely or not."""

from __future__ import annotations

from hypothesis import strategies as st

from tests import nodes
from userns import paths
from userns.containerd.reserved_keys import reserved
from userns.node import (
    Binary,
    ConfLine,
    DropIn,
    ExecDropIn,
    FileState,
    Filesystem,
    HostIds,
    Mounts,
    Node,
    Overlay,
    Package,
    PodIds,
    Probe,
    Process,
    ReservedKey,
    RunningKubelet,
    Unit,
)

names = st.text("abcdefghijklmnopqrstuvwxyz-", min_size=1, max_size=8)
versions = st.sampled_from(["", "1.1.7", "1.4.3", "1.7.34", "2.3.4", "26.1"])
probe = st.builds(
    Probe,
    result=st.sampled_from(["ok", "cannot", "unknown"]),
    step=st.sampled_from(["", "unshare", "mount_setattr", "tmpfs", "overlay"]),
    errno=st.sampled_from(["", "EINVAL", "EPERM", "ENOSYS", "ENOSPC", "EXOTIC"]),
)
digests = st.sampled_from(["", "0" * 64, "4" * 64])
file_states = st.builds(
    FileState,
    kind=st.sampled_from(["absent", "file", "link", "directory", "other"]),
    sha256=digests,
    mode=st.sampled_from(["", "644", "600", "755"]),
    owner=st.sampled_from(["", "0:0", "1000:1000"]),
)
binaries = st.builds(Binary, sha256=digests, version=versions, recorded=st.booleans(), component=names, asset=digests)
units = st.builds(
    Unit,
    load=st.sampled_from(["not-found", "loaded", "masked", "error"]),
    active=st.sampled_from(["inactive", "active", "failed", "activating"]),
    enabled=st.sampled_from(["", "enabled", "disabled", "static", "masked"]),
    fragment=st.sampled_from(["", paths.UNIT, "/lib/systemd/system/containerd.service"]),
    exec_start=st.sampled_from(["", *paths.INSTALLED.values(), "/opt/x --y"]),
    limit_nofile=st.sampled_from(["", "infinity", "1024:524288", "?"]),
    environment=st.sampled_from([(), ("HTTP_PROXY", "NO_PROXY")]),
    environment_files=st.sampled_from([(), ("-/etc/proxy",)]),
)
lines = st.builds(
    ConfLine,
    file=st.sampled_from(
        [paths.SYSCTL, paths.MODPROBE, "/etc/sysctl.d/99-x.conf", "/etc/sysctl.conf", "/etc/modprobe.d/x"]
    ),
    line=st.sampled_from(
        [
            "user.max_user_namespaces = 5",
            "user.max_user_namespaces=99999",
            "user.max_user_namespaces",
            "=",
            "options overlay metacopy=N nfs_export=on",
            "blacklist overlay",
            "install overlay /bin/false",
            "# unreadable",
        ]
    ),
)
sub_lines = st.lists(
    st.sampled_from(
        ["a:1:2", "kubelet:65536:65536", "997:1:1", "", "é", "b:65536:1", "no colon", "kubelet:", "c:99999999999:1"]
    ),
    max_size=4,
).map(tuple)

ids = st.sampled_from([0, 65536, 131072, 100_000, 4_294_901_760, 4_294_967_295])
host_ids = st.builds(HostIds, kind=st.sampled_from(["user", "group"]), name=names, first=ids, last=ids)
pod_ids = st.builds(PodIds, pod=names, start=st.none() | ids, length=st.none() | st.sampled_from([65536, 131072]))
kubelet_mounts = st.dictionaries(
    st.sampled_from(["nfs4", "fuse.sshfs", "zfs", "ext4", "hugetlbfs", "new-fs", ""]),
    st.builds(Mounts, count=st.integers(1, 99), paths=st.lists(names, max_size=2).map(tuple)),
)
kubelet_config = st.fixed_dictionaries(
    {},
    optional={
        "cgroupDriver": st.sampled_from(["systemd", "cgroupfs"]),
        "maxPods": st.sampled_from(["110", "1000", "many"]),
        "idsPerPod": st.sampled_from(["65536", "131072"]),
        "failCgroupV1": st.sampled_from(["true", "false"]),
        "UserNamespacesSupport": st.sampled_from(["true", "false"]),
        "containerRuntimeEndpoint": st.sampled_from(["unix:///run/containerd/containerd.sock", "/x.sock", ""]),
    },
)
running_kubelet = st.none() | st.builds(
    RunningKubelet,
    root=st.sampled_from(["/var/lib/kubelet", "/data/kubelet"]),
    uses_root=st.booleans(),
)
printed = st.lists(
    st.sampled_from(["0: kubelet 65536 65536000", "1: kubelet 100000 65536", "0: kubelet 9999999999 1", "what?"]),
    max_size=2,
).map(tuple)


@st.composite
def any_node(draw: st.DrawFn) -> Node:
    """Any node that the fact could describe, likely or not."""
    places = st.builds(
        Filesystem,
        path=st.just("/p"),
        parent=st.just("/"),
        type=st.sampled_from(["ext4", "nfs4", "zfs", "", "overlay", "new-fs"]),
        free_kib=st.none() | st.integers(0, 10**9),
    )
    subuid, subgid = draw(sub_lines), draw(sub_lines)
    files = draw(st.dictionaries(st.sampled_from(paths.MANAGED), file_states))
    for path, read in ((paths.SUBUID, subuid), (paths.SUBGID, subgid)):
        if draw(st.booleans()):
            files[path] = nodes.file_state("".join(f"{line}\n" for line in read))
    programs = st.sampled_from([*paths.INSTALLED.values(), *paths.PACKAGED.values(), "/opt/bin/containerd"])
    return Node(
        kernel=draw(
            st.sampled_from(["4.19.0", "5.4", "5.15.0-1-generic", "5.19.1", "6.1.0-40-amd64", "6.12.5", "7.2-rc1"])
        ),
        machine=draw(st.sampled_from(["x86_64", "aarch64", "ppc64le", "riscv64", ""])),
        os_id=draw(st.sampled_from(["debian", "ubuntu", "rhel", ""])),
        os_version=draw(st.sampled_from(["12", "24.04", "9.4", "", "rolling"])),
        container=draw(st.sampled_from(["none", "lxc", "docker"])),
        systemd=draw(st.sampled_from(["", "219", "239", "257"])),
        cgroup=draw(st.sampled_from(["v2", "v1", "hybrid", "unknown"])),
        tools=draw(st.sampled_from([(), tuple(nodes.TOOLS.split())])),
        root=draw(st.booleans()),
        own_ids=draw(
            st.sampled_from([{}, {"uid": ((0, 4294967295),)}, {"uid": ((0, 65536), (65536, 65536)), "gid": ((0, 1),)}])
        ),
        overlay=Overlay.model_validate(
            {
                "state": draw(st.sampled_from(["builtin", "loaded", "module", "absent", "unknown"])),
                "metacopy": draw(st.sampled_from(["Y", "N", ""])),
            }
        ),
        probes=draw(
            st.dictionaries(
                st.sampled_from(["containerd-root", "kubelet-root", "tmpfs", "overlay", "containerd-check"]), probe
            )
        ),
        filesystems=draw(
            st.dictionaries(st.sampled_from(["containerd-root", "kubelet-root", "state", "install"]), places)
        ),
        sysctls=draw(
            st.dictionaries(
                st.sampled_from(["user.max_user_namespaces", "kernel.modules_disabled"]), st.integers(-1, 2**31)
            )
        ),
        sysctl_lines=tuple(draw(st.lists(lines, max_size=2))),
        modprobe_lines=tuple(draw(st.lists(lines, max_size=2))),
        files=files,
        binaries=draw(st.dictionaries(programs, binaries, max_size=4)),
        units=draw(
            st.dictionaries(st.sampled_from(["containerd", "docker", "crio", "k3s", "kubelet"]), units, max_size=2)
        ),
        packages=draw(
            st.dictionaries(
                st.sampled_from(["containerd", "runc", "crun", "containerd.io"]),
                st.builds(
                    Package,
                    version=st.sampled_from(["1:2.3.4-1", "1.4.3+ds1-1", "2.1.5~rc1", "weird"]),
                    held=st.booleans(),
                ),
            )
        ),
        manifest=draw(digests),
        unfinished=draw(st.sampled_from(["", "swapping"])),
        unproven=draw(st.booleans()),
        drop_ins=tuple(
            draw(
                st.lists(
                    st.builds(
                        DropIn,
                        path=st.just("/etc/containerd/conf.d/x.toml"),
                        version=st.none() | st.integers(1, 4),
                        tables=st.lists(st.sampled_from(["root", 'plugins."x"', "[bad", "plugins"]), max_size=2).map(
                            tuple
                        ),
                        keys=st.lists(
                            st.builds(
                                ReservedKey,
                                path=st.sampled_from([*reserved(), ("root",), ()]),
                                value=st.sampled_from(['"x"', "true", "?", "[1]", '""']),
                            ),
                            max_size=3,
                        ).map(tuple),
                        unreadable=st.booleans(),
                    ),
                    max_size=2,
                )
            )
        ),
        snapshots=draw(st.none() | st.booleans()),
        other_layers=draw(st.sampled_from([(), ("/var/lib/docker/overlay2",)])),
        shims=draw(st.sampled_from([None, {}, {"k8s.io": 3, "default": 1}])),
        other_containerds=draw(
            st.sampled_from([(), (Process(pid=7, program="/opt/bin/containerd", unit="x.service", uses_root=True),)])
        ),
        config_option=draw(st.sampled_from(["", "/etc/containerd/config.toml", "/etc/containerd/site.toml"])),
        exec_drop_ins=tuple(
            draw(
                st.lists(
                    st.builds(
                        ExecDropIn,
                        path=st.just("/etc/systemd/system/containerd.service.d/x.conf"),
                        program=programs,
                        config=st.sampled_from(["", "/etc/containerd/config.toml", "/etc/containerd/site.toml"]),
                        root=st.sampled_from(["", "/var/lib/containerd/", "/data/containerd"]),
                    ),
                    max_size=1,
                )
            )
        ),
        gpu_hooks=draw(st.sampled_from([(), ("nvidia-ctk",)])),
        subuid=subuid,
        subgid=subgid,
        host_ids=tuple(draw(st.lists(host_ids, max_size=2))),
        kubelet_user=draw(st.sampled_from(["", "997"])),
        getsubids=draw(st.just({}) | st.fixed_dictionaries({"subuid": printed, "subgid": printed})),
        pod_ids=tuple(draw(st.lists(pod_ids, max_size=2))),
        pods_untold=draw(st.sampled_from([0, 1])),
        kubelet_mounts=draw(kubelet_mounts),
        kubelet_config=draw(kubelet_config),
        running_kubelet=draw(running_kubelet),
        cgroup_driver=draw(st.sampled_from(["", "systemd", "cgroupfs"])),
        zfs_version=draw(st.sampled_from(["", "2.1.11", "2.2.4"])),
        kubelet_version=draw(st.sampled_from(["", "1.26.3", "1.36.0"])),
        selinux=draw(st.sampled_from(["", "enforcing", "permissive"])),
    )


_settings = st.fixed_dictionaries(
    {},
    optional={
        "kubernetes_version": st.sampled_from(["1.25", "1.26.4", "1.27", "1.33", "1.36"]),
        "containerd_version": st.sampled_from(["1.6.36", "1.7.0", "1.7.34", "2.0.0", "2.2.7", "2.3.4"]),
        "runc_version": st.sampled_from(["1.1.14", "1.2.0", "1.3.3", "1.4.3"]),
        "crun_version": st.sampled_from(["1.17", "1.16.1", None]),
        "default_runtime": st.sampled_from(["runc", "crun"]),
        "install_from": st.sampled_from(["release", "package"]),
        "snapshotter": st.sampled_from(["overlayfs", "native", "stargz", "mine"]),
        "slow_chown": st.sampled_from(["auto", True, False]),
        "overlay_metacopy": st.sampled_from(["auto", True, False]),
        "cgroup_driver": st.sampled_from(["systemd", "cgroupfs"]),
        "sandbox_image": st.sampled_from([None, "r.example/pause:3.10"]),
        "containerd_config": st.sampled_from(
            [{}, {"debug": {"level": "info"}}, {"imports": ["/etc/containerd/conf.d/*.toml"]}]
        ),
        "max_pods": st.sampled_from([1, 110, 1000]),
        "kubelet_id_range": st.sampled_from([None, (65536, 65536 * 1000)]),
        "allow": st.sampled_from([[], ["sub-id-unreadable", "not-root", "metacopy-off-with-snapshots"]]),
    },
)
# A package has no default version.
any_settings = _settings.map(
    lambda some: (
        {"containerd_version": "2.3.4", "runc_version": "1.4.3"} | some
        if some.get("install_from") == "package"
        else some
    )
)
