# seal.sh: take away what must not be cloned with the disk of this machine: who it is, what it has logged, what it keeps
# for itself. Before it is switched off and its disk is copied. Who may log in is left as it is.
#
# Follows running.sh in one text. All that refuses comes before the first thing is taken away.
set -u
umask 022
LC_ALL=C
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export LC_ALL PATH
stopped=no

die() {
    [ $stopped = no ] || systemctl start containerd.service
    printf '%s\n' "$*; nothing was taken away" >&2 # echo may take an octal for what it stands for
    exit 1
}
state_of() { systemctl show --property=ActiveState --value "$1"; }

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
rm -f /etc/ssh/ssh_host_*_key /etc/ssh/ssh_host_*_key.pub
# Empty and not gone: systemd then makes a new one at boot.
: >/etc/machine-id
rm -f /var/lib/dbus/machine-id /var/lib/systemd/random-seed /var/lib/systemd/credential.secret
! command -v cloud-init >/dev/null 2>&1 || cloud-init clean --logs >/dev/null 2>&1
rm -rf /var/lib/cloud/instance /var/lib/cloud/instances
rm -f /var/lib/dhcp/*.lease* /var/lib/dhclient/*.lease* /var/lib/NetworkManager/*.lease /var/lib/NetworkManager/secret_key
# What a kubelet proves with who it is.
rm -rf /var/lib/kubelet/pki
rm -f /etc/kubernetes/kubelet.conf /etc/kubernetes/bootstrap-kubelet.conf /var/lib/kubelet/kubeconfig
rm -rf /var/lib/userns-node/previous /var/lib/userns-node/previous.2 /var/lib/userns-node/lock
for home in /root /home/*; do
    rm -f "$home/.bash_history" "$home/.ash_history" "$home/.viminfo" "$home/.ssh/known_hosts"
done
# journald writes on into what it has open; a file that is gone is not on the disk that is copied.
rm -rf /var/log/journal/*
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
[ ! -d /var/log ] || find "$(readlink -f /var/log)" -xdev "$@" -type f -exec sh -c 'for file do : >"$file"; done' sh {} +
find /tmp /var/tmp -xdev -mindepth 1 ! -path '*/systemd-private-*' ! -path '*/.*-unix*' -delete 2>/dev/null
sync
echo "sealed: switch this machine off now, and copy its disk"
