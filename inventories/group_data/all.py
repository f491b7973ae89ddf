"""Every setting with its default, its meaning and its reason.

The defaults themselves are in userns.settings, so an inventory outside this repository works without this file. A file
beside it that is named after a group overrides it, and so does the data of a host. After `--data`, write a list or a
mapping as JSON, None as null, and a version with a v: `--data kubernetes_version=v1.30`.
"""

# --- What the cluster needs ------------------------------------------------------------------------------------------

# The cluster's version, "1.33" or "1.33.4". It selects the requirements: 1.25 and 1.26 let the runtime copy the image
# and change its owners, 1.27 and later need idmapped mounts for every volume. A version newer than the tables is judged
# as the newest one in them, with a warning in each run. It is a string, because the number 1.30 is 1.3.
kubernetes_version = "1.36"

# The kubelet's maxPods and userNamespaces.idsPerPod. Every pod takes a user namespace and a block of user IDs, so these
# two size the sysctl user.max_user_namespaces and the kubelet's range. ids_per_pod is a multiple of 65536. The kubelet
# reads idsPerPod from 1.35 on. Drain a node before you change it: the kubelet does not start with pods of another size.
max_pods = 110
ids_per_pod = 65536

# The user IDs that pods get. None: the kubelet's own default range, which is everything except the first block. Or
# (start, count), such as (65536, 7208960) for 110 pods: it is written for a user `kubelet` to /etc/subuid and
# /etc/subgid, where it must not overlap the ranges of other users. A range that breaks the kubelet's rules would keep
# it from starting, so it is refused here. Drain a node before you change it: a pod's recorded IDs must stay in the
# range.
kubelet_id_range = None

# Must be the kubelet's own cgroupDriver, and the same in every runtime handler of the runc type.
cgroup_driver = "systemd"

# --- What is installed -----------------------------------------------------------------------------------------------

# Exact versions. None: the newest in the lock file without a blocking advisory. Name them to upgrade when you decide
# to, and to go one minor version at a time, as containerd asks.
containerd_version = None
runc_version = None

# None: not installed. An exact version adds the runtime handler "crun". To add a new version to the lock file:
# `python -m artifacts add crun <version>`.
crun_version = None

# What runs pods without a RuntimeClass: "runc", or "crun" if crun_version is set.
default_runtime = "runc"

# "release": the node downloads upstream's assets. "bundle": the controller pushes them over SSH, for nodes that can
# reach nothing. Both are verified against the lock file. "package": apt installs exact versions that you name.
install_from = "release"

# The base URL of a mirror that keeps the upstream paths. A user and password in it are masked in all messages.
release_url = "https://github.com"

# The HTTP proxy through which upstream's assets are fetched, such as "http://proxy.example.internal:3128". None: the
# one in the node's own environment, if any.
release_proxy = None

# The lock file on the controller, with each asset's SHA-256. A mirror of rebuilt binaries needs its own.
artifact_lock = "artifacts/lock.toml"

# For "bundle": the file on the controller that `python -m artifacts bundle` made on a connected machine. Its contents
# choose no version: a version that is not named above is the newest in the lock file, and a node is refused if the
# bundle lacks that one.
artifact_bundle = None

# True: digest every installed program in every run (0.3 s of CPU per node). False: only if size, inode, mtime or ctime
# differ from what was recorded, which finds every change except a deliberately hidden one.
verify_digests = False

# --- How containerd is configured ------------------------------------------------------------------------------------

# Only overlayfs (and erofs since containerd 2.3) can idmap. Any other one changes the owner of every file for each pod,
# without asking.
snapshotter = "overlayfs"

# "auto": on where containerd's own test says that overlay cannot be idmapped and a copy helps (Linux 5.12 to 5.18), off
# elsewhere. True and False set it regardless. Copied files lose their capabilities (those of ping, for one).
slow_chown = "auto"

# With overlay's metacopy such a copy is one of inodes, not of data. True: on everywhere, for good. "auto": on where
# owners are changed, and where the kernel has it on anyway; never turned off. False: refused on a node that has it on
# and has snapshots, because every file that was changed under metacopy would give EPERM without it. Docker builds on
# the same node get slower with it.
overlay_metacopy = True

# The pause image. None: containerd's own default, which moves with its version.
sandbox_image = None

# More tables for config.toml, merged into it: registries, runtime handlers (gVisor, Kata, NVIDIA), CDI. They may not
# contradict the settings here, and their plugin ids must be those of the containerd version.
containerd_config = {}

# Where images, snapshots and volumes are. Both directories are probed, and both file systems must support idmapping.
containerd_root = "/var/lib/containerd"
kubelet_root = "/var/lib/kubelet"

# --- What is judged --------------------------------------------------------------------------------------------------

# For an image: the kernel that it will boot, "6.12" or a complete release. None: the newest one in its /lib/modules.
target_kernel = None

# Ids of blockers that you accept, such as "kernel-lacks-tmpfs-idmap": each becomes a warning. Nothing else has that
# effect.
allow = []
