"""Every setting with its default, its meaning and its reason.

The defaults themselves live in userns.settings, so an inventory outside this repository works without this file.
A file beside it that is named after a group, and the data of a host, come before it. Behind `--data`, a list or a
mapping is written as JSON, None as null, and a version with its v: `--data kubernetes_version=v1.30`.
"""

# --- What the cluster asks for ---------------------------------------------------------------------------------------

# The cluster's version, "1.33" or "1.33.4". It selects the requirements: 1.25 and 1.26 let the runtime copy ownership,
# 1.27 and later need idmapped mounts for every volume. One that is newer than the tables is judged as their newest,
# with a warning in each run. A string: the number 1.30 is 1.3.
kubernetes_version = "1.36"

# The kubelet's maxPods and userNamespaces.idsPerPod. Every pod takes a user namespace and a block of user IDs, so these
# two size the sysctl user.max_user_namespaces and the kubelet's range. IDs come in multiples of 65536. The kubelet
# reads idsPerPod from 1.35 on. Drain a node before you change it: the kubelet does not start with pods of another size.
max_pods = 110
ids_per_pod = 65536

# The user IDs that pods get. None: the kubelet's own range, all but the first block. Or (start, count), such as
# (65536, 7208960) for 110 pods: written for a user `kubelet` into /etc/subuid and /etc/subgid, where other users'
# ranges must not overlap. A range that breaks the kubelet's rules keeps it from starting, so it is refused here.
# Drain a node before you change it: a pod's recorded IDs must stay within the range.
kubelet_id_range = None

# Must be the kubelet's own cgroupDriver, and the same in every runtime handler of the runc type.
cgroup_driver = "systemd"

# --- What is installed -----------------------------------------------------------------------------------------------

# Exact versions. None: the newest in the lock file that no advisory speaks against. Name them to upgrade when you
# decide to, and to go by minor versions, as containerd asks for.
containerd_version = None
runc_version = None

# None: not installed. An exact version adds the runtime handler "crun"; new ones are added to the lock file with
# `python -m artifacts add crun <version>`.
crun_version = None

# What runs pods without a RuntimeClass: "runc", or "crun" where crun_version is set.
default_runtime = "runc"

# "release": the node downloads upstream's assets. "bundle": the controller pushes them over SSH, for nodes that can
# reach nothing. Both are verified by the lock file. "package": apt, in exact versions that you name.
install_from = "release"

# The base of a mirror that keeps the upstream paths. A user and password in it are masked in all messages.
release_url = "https://github.com"

# The HTTP proxy by which upstream's assets are fetched: "http://proxy.example.internal:3128". None: what the node's own
# environment says.
release_proxy = None

# The lock file on the controller: each asset's SHA-256. A mirror of rebuilt binaries brings its own.
artifact_lock = "artifacts/lock.toml"

# For "bundle": the file on the controller that `python -m artifacts bundle` made where there is a network. What
# it holds chooses no version: one that is not named above is the lock file's newest, and a node for which the bundle
# lacks that is refused.
artifact_bundle = None

# True: digest every installed program in every run (0.3 s of CPU a node). False: only where size, inode, mtime or ctime
# differ from what was recorded, which finds every change but one by somebody who hides it.
verify_digests = False

# --- How containerd is configured ------------------------------------------------------------------------------------

# Only overlayfs (and erofs since containerd 2.3) can idmap. Another one copies ownership for each pod without asking.
snapshotter = "overlayfs"

# "auto": on where containerd's own probe says that overlay cannot idmap and a copy helps (Linux 5.12 to 5.18), off
# elsewhere. True and False decide it for you. Copied files lose their capabilities (ping, for one).
slow_chown = "auto"

# Overlay's metacopy makes such a copy one of inodes, not of data. True: on everywhere, for good. "auto": on where
# ownership is copied, never turned off. False: refused on a node that has it and has snapshots, since every file that
# was changed under metacopy would give EPERM without it. Docker builds on the same node get slower with it.
overlay_metacopy = True

# The pause image. None: containerd's own default, which moves with its version.
sandbox_image = None

# More tables of config.toml, merged into it: registries, runtime handlers (gVisor, Kata, NVIDIA), CDI. It may not say
# anything else than the settings here, and its plugin ids are those of the containerd version.
containerd_config = {}

# Where images, snapshots and volumes are: both directories are probed, and both file systems have to idmap.
containerd_root = "/var/lib/containerd"
kubelet_root = "/var/lib/kubelet"

# --- What is judged --------------------------------------------------------------------------------------------------

# For an image: the kernel that it will boot, "6.12" or a whole release. None: the newest one in its /lib/modules.
target_kernel = None

# Ids of blockers that you accept, such as "kernel-lacks-tmpfs-idmap": each becomes a warning. Nothing else does that.
allow = []
