"""Two groups of nodes over SSH, to copy. A setting of a host overrides its group's, and that overrides all.py's.

The data of a group may also be in a file of its name in group_data/. The host names here are placeholders.
"""

_ssh = {
    "ssh_user": "ops",
    "_sudo": True,  # sudo must ask for no password: `ops ALL=(ALL) NOPASSWD: ALL` in sudoers
    # By default pyinfra accepts the key of a host that it has never seen, whatever ssh_config says.
    "ssh_strict_host_key_checking": "yes",
    "ssh_known_hosts_file": "~/.ssh/known_hosts",
}

# A current cluster. The kubelet has an ID range of its own, clear of the IDs of the nodes' users. One node has its
# images on a separate disk, and one runs GPU jobs with another runtime handler.
cluster_a = (
    [
        "node-a1.example.internal",
        ("node-a2.example.internal", {"containerd_root": "/data/containerd"}),
        (
            "node-a3.example.internal",
            {
                "containerd_config": {
                    "plugins": {
                        "io.containerd.cri.v1.runtime": {
                            "containerd": {
                                "runtimes": {
                                    "nvidia": {
                                        "runtime_type": "io.containerd.runc.v2",
                                        "options": {
                                            "BinaryName": "/usr/bin/nvidia-container-runtime",
                                            "SystemdCgroup": True,
                                        },
                                    }
                                }
                            }
                        }
                    }
                }
            },
        ),
    ],
    {**_ssh, "kubernetes_version": "1.36", "max_pods": 250, "kubelet_id_range": (65536 * 16, 65536 * 250)},
)

# An older cluster behind a mirror, on Debian 12: its kernel 6.1 cannot idmap tmpfs, so pods with Secrets or tokens
# fail. That is accepted by name, for pods that have none. node-b1, the canary, tries the version that the others will
# get. The versions named here leave advisories open: `python -m artifacts list` shows them, and `python -m artifacts
# add` pins the patched releases.
cluster_b = (
    [
        ("node-b1.example.internal", {"runc_version": "1.4.3"}),
        "node-b2.example.internal",
        "node-b3.example.internal",
    ],
    {
        **_ssh,
        "kubernetes_version": "1.33",
        "containerd_version": "2.3.4",
        "runc_version": "1.3.6",
        "release_url": "https://mirror.example.internal/github",
        "sandbox_image": "mirror.example.internal/pause:3.10.1",
        "allow": ["kernel-lacks-tmpfs-idmap"],
    },
)
