# seal.sh: take away what must not be cloned with the disk of this machine: who it is, what it has logged, what it keeps
# for itself. Before it is switched off and its disk is copied. Who may log in is left as it is.
set -u
umask 022
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin

die() {
    echo "$*; nothing was taken away" >&2
    exit 1
}

if systemctl is-active --quiet kubelet.service; then
    die "the kubelet runs: this machine is a node of a cluster. Drain it, remove it there, and stop kubelet.service"
fi
if systemctl is-active --quiet containerd.service; then
    for namespace in $(timeout 20 ctr namespaces ls -q); do
        running=$(timeout 20 ctr -n "$namespace" tasks ls -q | wc -l)
        [ "$running" -eq 0 ] || die "$running containers run here (namespace $namespace): stop them first"
    done
    systemctl stop containerd.service || die "containerd could not be stopped"
fi
[ ! -e /var/lib/userns-node/activation ] || die "a change of this node was cut off: run deploy.py again first"

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
find /var/log -xdev -type f -exec sh -c 'for file do : >"$file"; done' sh {} +
# What is mounted below stays: it is not of this disk.
find /tmp /var/tmp -xdev -mindepth 1 ! -path '*/systemd-private-*' ! -path '*/.*-unix*' -delete 2>/dev/null
sync
echo "sealed: switch this machine off now, and copy its disk"
