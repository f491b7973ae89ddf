#!/bin/sh
# What deploy.py does to a fresh node, as one would write it by hand for a node that one knows: nothing is asked, nothing
# is kept for a way back, nobody else may be at it. Less than deploy.py does (no probes, no check of its own, no record).
#
# usage: ssh NODE sh -s URL CONTAINERD RUNC CRUN FIRST COUNT <fresh.sh
#   Each of the three is SHA256:PATH below URL; FIRST and COUNT are the kubelet's range of IDs.
set -eu
url=$1 containerd=$2 runc=$3 crun=$4 first=$5 count=$6
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

fetch() {
    curl --fail --silent --show-error --output "$work/$2" "$url${1#*:}"
    echo "${1%%:*}  $work/$2" | sha256sum --quiet --check
}
fetch "$containerd" containerd.tar.gz
fetch "$runc" runc
fetch "$crun" crun
tar -xzf "$work/containerd.tar.gz" -C /usr/local
install -m 755 "$work/runc" /usr/local/sbin/runc
install -m 755 "$work/crun" /usr/local/bin/crun

mkdir -p /etc/containerd /etc/modprobe.d /usr/local/libexec/userns-node /etc/systemd/system/containerd.service.d
cat >/etc/containerd/config.toml <<'END'
version = 3
imports = ["/etc/containerd/conf.d/*.toml"]
[plugins."io.containerd.cri.v1.runtime".containerd]
default_runtime_name = "runc"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
options = { BinaryName = "/usr/local/sbin/runc", SystemdCgroup = true }
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.crun]
runtime_type = "io.containerd.runc.v2"
options = { BinaryName = "/usr/local/bin/crun", SystemdCgroup = true }
END
cat >/etc/systemd/system/containerd.service <<'END'
[Unit]
Description=containerd container runtime
After=network.target dbus.service
[Service]
ExecStartPre=-/sbin/modprobe overlay
ExecStart=/usr/local/bin/containerd
Type=notify
Delegate=yes
KillMode=process
Restart=always
RestartSec=5
LimitNPROC=infinity
LimitCORE=infinity
TasksMax=infinity
OOMScoreAdjust=-999
[Install]
WantedBy=multi-user.target
END
echo 'options overlay metacopy=Y' >/etc/modprobe.d/overlay-metacopy.conf
cat >/usr/local/libexec/userns-node/pre-start <<'END'
#!/bin/sh
modprobe overlay
echo Y >/sys/module/overlay/parameters/metacopy
END
chmod 755 /usr/local/libexec/userns-node/pre-start
printf '[Service]\nExecStartPre=-/usr/local/libexec/userns-node/pre-start\n' \
    >/etc/systemd/system/containerd.service.d/50-userns-node.conf
getent passwd kubelet >/dev/null || useradd --system --no-create-home --shell /usr/sbin/nologin kubelet
for file in /etc/subuid /etc/subgid; do
    [ ! -e $file ] || sed -i '/^kubelet:/d' $file
    echo "kubelet:$first:$count" >>$file
done

/usr/local/bin/containerd config dump >/dev/null
systemctl daemon-reload
systemctl --quiet enable containerd
# Without its pre-start in a container, which shares its kernel.
systemd-detect-virt --quiet --container && : >/usr/local/libexec/userns-node/pre-start
systemctl restart containerd
ctr plugins ls | grep -q '^io.containerd.snapshotter.v1 *overlayfs .* ok *$'
ctr plugins ls | grep -q '^io.containerd.grpc.v1 *cri .* ok *$'

# The proof: an image of the node's own shell, in a user namespace, with each runtime.
mkdir -p "$work/image" "$work/root/proc" "$work/root/dev" "$work/root/sys"
for file in /bin/sh $(ldd /bin/sh | grep -o '/[^ ]*'); do
    mkdir -p "$work/root${file%/*}"
    cp -L "$file" "$work/root$file"
done
tar -cf "$work/image/layer.tar" -C "$work/root" .
layer=$(sha256sum "$work/image/layer.tar")
cat >"$work/image/config.json" <<END
{"architecture":"$(dpkg --print-architecture)","os":"linux","config":{},
 "rootfs":{"type":"layers","diff_ids":["sha256:${layer%% *}"]}}
END
echo '[{"Config":"config.json","RepoTags":["by.hand/proof:1"],"Layers":["layer.tar"]}]' >"$work/image/manifest.json"
tar -cf "$work/image.tar" -C "$work/image" manifest.json config.json layer.tar
ctr -n proof images import "$work/image.tar" >/dev/null
for binary in /usr/local/sbin/runc /usr/local/bin/crun; do
    # Without shares and one level deep: then no controller of the cgroup has to be handed down.
    # shellcheck disable=SC2016  # the container's shell is to read it
    seen=$(ctr -n proof run --rm --runc-binary $binary --cpu-shares 0 --cgroup "/by-hand-${binary##*/}" \
        --remap-labels --uidmap 0:65536:65536 --gidmap 0:65536:65536 by.hand/proof:1 "proof-${binary##*/}" \
        /bin/sh -c 'read -r map </proc/self/uid_map; echo $map')
    [ "$seen" = "0 65536 65536" ]
    echo "${binary##*/}: $seen"
done
ctr -n proof images rm --sync by.hand/proof:1 >/dev/null
ctr namespaces rm proof >/dev/null
