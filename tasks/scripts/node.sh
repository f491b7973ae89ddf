# node.sh CONTAINERD_ROOT KUBELET_ROOT VERIFY_DIGESTS: what this node is, as TAB-separated records on stdout.
#
# Follows probe.sh and the other node-*.sh in one text. Reads only (probe.sh says what its probes do); any POSIX sh, no Python.
# userns/reading/__init__.py reads the records. A first and a last line enclose them: what a login prints before them is
# ignored, and an answer that was cut off is noticed. Built-ins do most of it: a fork costs more than a small file.
prepare
containerd_root=${1#/} kubelet_root=${2#/} verify_digests=$3
# Set by the connector of images: the machine that this root directory is for. It boots later, on a kernel of its own.
image=${USERNS_NODE_IMAGE-}
toml="" # not known yet
managed="etc/containerd/config.toml etc/systemd/system/containerd.service \
etc/systemd/system/containerd.service.d/50-userns-node.conf etc/modprobe.d/overlay-metacopy.conf \
etc/sysctl.d/90-userns-node.conf usr/local/libexec/userns-node/pre-start usr/local/libexec/userns-node/check \
etc/systemd/system/userns-node-check.service etc/subuid etc/subgid"
[ -z "$image" ] || managed="$managed etc/containerd/config.toml.idmapped etc/containerd/config.toml.slow-chown \
usr/local/libexec/userns-node/check.idmapped usr/local/libexec/userns-node/check.rootfs-only \
usr/local/libexec/userns-node/check.chown usr/local/libexec/userns-node/check.unsupported \
usr/local/libexec/userns-node/first-boot etc/systemd/system/userns-node-first-boot.service \
var/lib/userns-node/image.json var/lib/userns-node/image.cdx.json"
[ -z "$image" ] || units="$units userns-node-first-boot.service"
programs="usr/local/bin/containerd usr/local/bin/ctr usr/local/bin/containerd-shim-runc-v2 usr/local/sbin/runc \
usr/local/bin/crun usr/bin/containerd usr/bin/ctr usr/bin/containerd-shim-runc-v2 usr/sbin/runc usr/bin/crun"

# --- the machine -------------------------------------------------------------------------------------------------

read_machine() {
    if [ -n "$image" ]; then read_image "$image"; else read_kernel; fi

    for file in etc/os-release usr/lib/os-release; do
        [ -f "$file" ] && [ -r "$file" ] || continue
        while read -r line || [ -n "$line" ]; do
            case $line in
            ID=* | VERSION_ID=*) record os "${line%%=*}" "${line#*=}" ;;
            esac
        done <"$file"
        break
    done

    cgroup=unknown
    if [ -e sys/fs/cgroup/cgroup.controllers ]; then
        cgroup=v2
    elif [ -e sys/fs/cgroup/unified/cgroup.controllers ]; then
        cgroup=hybrid
    elif [ -d sys/fs/cgroup/memory ] || [ -d sys/fs/cgroup/cpu ] || [ -d sys/fs/cgroup/systemd ]; then
        cgroup=v1
    fi
    record cgroup "$cgroup"

    if first_line sys/fs/selinux/enforce; then
        if [ "$line" = 1 ]; then record selinux enforcing; else record selinux permissive; fi
    fi

    set --
    for tool in apt-get apt-mark awk base64 curl dnf dpkg-query dracut findmnt flock getent getsubids gzip journalctl \
        ldd lsinitramfs mktemp modinfo modprobe mount nsenter perl python3 rpm setpriv sha256sum stat sysctl systemctl \
        systemd-detect-virt systemd-run tar timeout unshare update-initramfs useradd wget xz yum zstd zypper; do
        ! have "$tool" || set -- "$@" "$tool"
    done
    record tools "$@"

    [ -z "$image" ] || return 0 # such values are the build host's
    ask_selinux usr/local/bin/containerd usr/bin/containerd
    set --
    for file in user/max_user_namespaces user/max_mnt_namespaces kernel/unprivileged_userns_clone \
        kernel/apparmor_restrict_unprivileged_userns kernel/yama/ptrace_scope kernel/modules_disabled kernel/threads-max \
        fs/inotify/max_user_instances; do
        [ ! -f "proc/sys/$file" ] || set -- "$@" "proc/sys/$file"
    done
    # Not by read: it may read byte by byte, and such a file gives nothing after the first.
    if have grep; then
        grep -s "" /dev/null "$@" | while IFS=: read -r file line; do record sysctl-live "${file#proc/sys/}" "$line"; done
    else
        for file do record sysctl-live "${file#proc/sys/}" "$(cat "$file")"; done
    fi
}

# --- all of it ---------------------------------------------------------------------------------------------------

record userns-node-begin 1
! read -r line _ </proc/uptime || record uptime "$line"
read_machine
[ -n "$image" ] || read_overlay
read_file_systems
read_configuration modprobe overlay etc/modprobe.d run/modprobe.d usr/local/lib/modprobe.d usr/lib/modprobe.d lib/modprobe.d
read_configuration sysctl 'max_user_namespaces\|ptrace_scope' etc/sysctl.d run/sysctl.d usr/local/lib/sysctl.d usr/lib/sysctl.d \
    lib/sysctl.d etc/sysctl.conf
read_drop_ins
read_metrics
read_sub_ids
find_running
read_kubelet
read_files
read_config_keys
read_cni
read_snapshots
read_other_layers
read_gpu_hooks
find_drop_ins
read_units
read_options
read_other_root # before the drop-ins, whose options would replace those of the service
read_exec_drop_ins
read_packages
read_running
if [ -e "$state/activation" ]; then
    first_line "$state/activation"
    record unfinished "${line:-unknown}"
fi
[ ! -e "$state/unproven" ] || record unproven yes
[ -n "$image" ] || ask_kernel
! read -r line _ </proc/uptime || record uptime "$line"
record userns-node-end
exit 0
