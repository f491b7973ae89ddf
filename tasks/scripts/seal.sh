# seal.sh: take away what must not be cloned with the disk of this machine: who it is, what it has logged, what it keeps
# for itself. Before it is switched off and its disk is copied. Who may log in is left as it is.
#
# Follows running.sh in one text. All that refuses comes before the first thing is taken away. From there on nothing
# ends it: what can't be taken away is told, the rest is tried, and only where all is gone the machine is sealed.
set -u
umask 022
LC_ALL=C
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export LC_ALL PATH
stopped=no left=no

die() {
    [ $stopped = no ] || systemctl start containerd.service
    printf '%s\n' "$*; nothing was taken away" >&2 # echo may take an octal for what it stands for
    exit 1
}
state_of() { systemctl show --property=ActiveState --value "$1"; }
remove() { rm "$@" || left=yes; }

# mounts_below DIRECTORY: each mount point below it, as mountinfo has it: with blanks and backslashes in octal.
mounts_below() {
    [ -d "$1" ] || return 0
    directory=$(readlink -f "$1" | sed 's/\\/\\134/g; s/ /\\040/g')
    [ -n "$directory" ] || return 1
    while read -r _ _ _ _ point _; do
        case $point in
        "$directory"/*) printf '%s\n' "$point" ;;
        esac
    done </proc/self/mountinfo
}

# By process too: not every kubelet is its unit's, and shims outlive their containerd.
refuse_running() {
    running=$(processes /proc)
    case $running in
    *' kubelet'*) die "a process called kubelet runs: this machine may be a node of a cluster. End it first" ;;
    *' containerd-shim'*)
        running=$(printf '%s\n' "$running" | sed -n 's/ containerd-shim.*//p' | tr '\n' ' ')
        die "containers run here (their shims are the processes ${running% }): stop them first"
        ;;
    esac
}
# What is emptied would be emptied through them. A bind or an idmapped mount, such as containerd leaves in /tmp where it
# is killed, may be of the same file system: neither find nor rm takes it for another one.
refuse_mounts() {
    for place in /tmp /var/tmp /var/log/journal /var/lib/cloud /var/lib/kubelet/pki /var/lib/userns-node; do
        mounted=$(mounts_below "$place") || die "what is mounted below $place cannot be told"
        [ -z "$mounted" ] || die "mounted below $place: $(printf '%s' "$mounted" | tr '\n' ' '). Unmount it first"
    done
}

[ "$(id -u)" -eq 0 ] || die "this has to run as root"
[ ! -e /var/lib/userns-node/activation ] || die "a change of this node was cut off: run deploy.py again first"
kubelet=$(state_of kubelet.service) || die "systemd does not answer"
case $kubelet in
inactive | failed) ;; # either way systemd does not start it again by itself; one that it does not know is inactive
*)
    die "the kubelet runs (its unit is $kubelet): this machine is a node of a cluster." \
        "Drain it, remove it there, and stop kubelet.service"
    ;;
esac
refuse_running
refuse_mounts
# Whatever the names of its shims are, it knows its tasks.
if systemctl is-active --quiet containerd.service; then
    namespaces=$(timeout -s KILL 20 ctr namespaces ls -q) ||
        die "containerd does not say what runs here: see what ails it, or stop containerd.service"
    for namespace in $namespaces; do
        tasks=$(timeout -s KILL 20 ctr -n "$namespace" tasks ls -q) ||
            die "containerd does not say what runs here: see what ails it, or stop containerd.service"
        [ -z "$tasks" ] || die "containers run here (namespace $namespace): stop them first"
    done
fi
case $(state_of containerd.service) in
inactive | failed) ;;
*)
    stopped=yes
    systemctl stop containerd.service || die "containerd could not be stopped"
    # What it began while it was asked.
    refuse_running
    refuse_mounts
    ;;
esac

if [ -d /etc/ssh ] && ! command -v cloud-init >/dev/null 2>&1; then
    echo "warning: this machine has no cloud-init: have something else make SSH host keys at the first boot (ssh-keygen -A)"
fi
# Empty and not gone: systemd then makes a new one at boot. `true`, as a shell ends where `:` can't be redirected.
true >/etc/machine-id || left=yes
# Else it would write the seed again when the machine is switched off.
systemctl stop systemd-random-seed.service 2>/dev/null
remove -f /var/lib/dbus/machine-id /var/lib/systemd/random-seed /var/lib/systemd/credential.secret
# systemd-boot's, wherever its partition is mounted.
remove -f /efi/loader/random-seed /boot/loader/random-seed /boot/efi/loader/random-seed
if command -v cloud-init >/dev/null 2>&1; then
    said=$(cloud-init clean --logs 2>&1) || {
        printf '%s\n' "cloud-init clean failed: $said" >&2
        left=yes
    }
fi
remove -rf /var/lib/cloud/instance /var/lib/cloud/instances
# Leases, and what a DHCP client makes once and goes by. systemd-networkd makes that anew from the machine-id.
remove -f /var/lib/dhcp/*.lease* /var/lib/dhclient/*.lease* /var/lib/NetworkManager/*.lease /var/lib/wicked/*.xml
remove -f /var/lib/dhcpcd/*.lease* /var/lib/dhcpcd5/*.lease* /var/lib/NetworkManager/secret_key
remove -f /var/lib/dhcpcd/duid /var/lib/dhcpcd/secret /etc/dhcpcd.duid /etc/dhcpcd.secret
# What a kubelet proves with who it is.
remove -rf /var/lib/kubelet/pki
remove -f /etc/kubernetes/kubelet.conf /etc/kubernetes/bootstrap-kubelet.conf /var/lib/kubelet/kubeconfig
remove -rf /var/lib/userns-node/previous /var/lib/userns-node/previous.2 /var/lib/userns-node/lock
for home in /root /home/*; do
    remove -f "$home/.bash_history" "$home/.ash_history" "$home/.viminfo"
done
# journald writes on into what it has open, and makes it anew as soon as it sees that it is gone: from here on in memory.
timeout -s KILL 20 journalctl --relinquish-var >/dev/null 2>&1 # known to systemd 243 and later
remove -rf /var/log/journal/*
# What is mounted below stays, for it may be of another disk, or no log at all. In its pattern a `?` stands for each
# octal, and for what find would read as more than itself.
set -f
set --
for point in $(mounts_below /var/log); do
    [ "$point" != /var/log/journal ] || continue # it has nothing any more
    printf '%s\n' "warning: $point is mounted: what is logged there stays; look whether it may be cloned"
    set -- "$@" -path "$(printf '%s' "$point" | sed 's/\\[0-7][0-7][0-7]/?/g; s/[[*]/?/g')" -prune -o
done
set +f
if [ -d /var/log ]; then
    find "$(readlink -f /var/log)" -xdev "$@" -type f -exec sh -c '
        left=0
        for file do true >"$file" || left=1; done
        exit $left' sh {} + || left=yes
fi
# What systemd's services and X have there, a boot takes away.
for place in /tmp /var/tmp; do
    [ ! -d "$place" ] ||
        find "$place/" -mindepth 1 -maxdepth 1 ! -name 'systemd-private-*' ! -path '/tmp/.*-unix' -exec rm -rf {} + ||
        left=yes
done
# Last, and only where all else is gone: not every sshd keeps them in memory, and somebody has to run this again.
[ $left = yes ] || remove -f /etc/ssh/ssh_host_*_key /etc/ssh/ssh_host_*_key.pub
sync
if [ $left = yes ]; then
    echo "not sealed: what is told above could not be taken away. The SSH host keys stay until it is: run this again" >&2
    exit 1
fi
echo "sealed: switch this machine off now, and copy its disk"
