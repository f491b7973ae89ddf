#!/bin/sh
# build.sh SUITE ROOT [MIRROR]: Debian SUITE in the new directory ROOT, ready for user namespaces. As root.
#
# Uses mmdebstrap, or debootstrap if that is missing. PACKAGES, INVENTORY and PYINFRA may be set to override the
# defaults.
set -eu
[ $# -ge 2 ] || {
    echo "usage: $0 SUITE ROOT [MIRROR]" >&2
    exit 2
}
suite=$1 root=$(realpath -m -- "$2") mirror=${3-}
packages=${PACKAGES:-systemd,systemd-sysv,dbus,udev,kmod,iproute2,openssh-server,uidmap,linux-image-cloud-amd64}
pyinfra=${PYINFRA:-.venv/bin/pyinfra}
project=$(dirname "$0")/../..
# Before the minutes that a tree takes.
(cd "$project" && command -v "$pyinfra" >/dev/null) || {
    echo "$pyinfra is not there: run make .venv first" >&2
    exit 1
}
if [ "$(id -u)" != 0 ]; then
    echo "only root can make a tree that boots" >&2
    exit 1
fi
if [ -e "$root" ]; then
    echo "$root is there already: remove it first" >&2
    exit 1
fi
# An incomplete tree is no image.
trap '[ $? = 0 ] || rm -rf --one-file-system -- "$root"' EXIT
trap 'exit 130' HUP INT TERM

if command -v mmdebstrap >/dev/null; then
    mmdebstrap --variant=minbase --include="$packages" "$suite" "$root" ${mirror:+"$mirror"}
else
    debootstrap --variant=minbase --include="$packages" "$suite" "$root" ${mirror:+"$mirror"}
fi

cd "$project"
IMAGE_ROOTS=$root "$pyinfra" -y "${INVENTORY:-inventories/golden.py}" deploy.py
