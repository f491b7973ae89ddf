#!/bin/sh
# build.sh SUITE ROOT [MIRROR]: Debian SUITE in the new directory ROOT, ready for user namespaces. As root.
#
# With mmdebstrap, or debootstrap where that is missing. PACKAGES, INVENTORY and PYINFRA may be set to others.
set -eu
[ $# -ge 2 ] || {
    echo "usage: $0 SUITE ROOT [MIRROR]" >&2
    exit 2
}
suite=$1 root=$(realpath -m -- "$2") mirror=${3-}
packages=${PACKAGES:-systemd,systemd-sysv,dbus,udev,kmod,iproute2,openssh-server,uidmap,linux-image-cloud-amd64}
if [ -e "$root" ]; then
    echo "$root is there already: remove it first" >&2
    exit 1
fi
# A tree that is not whole is no image.
trap '[ $? = 0 ] || rm -rf --one-file-system -- "$root"' EXIT
trap 'exit 130' HUP INT TERM

if command -v mmdebstrap >/dev/null; then
    mmdebstrap --variant=minbase --include="$packages" "$suite" "$root" ${mirror:+"$mirror"}
else
    debootstrap --variant=minbase --include="$packages" "$suite" "$root" ${mirror:+"$mirror"}
fi

cd "$(dirname "$0")/../.."
IMAGE_ROOTS=$root "${PYINFRA:-.venv/bin/pyinfra}" -y "${INVENTORY:-inventories/golden.py}" deploy.py
