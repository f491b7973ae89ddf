#!/bin/sh
# Installs those of the system packages that are missing, and touches nothing where none is.
#   sh lab/install-packages.sh venv PYTHON    what the virtual environment needs
#   sh lab/install-packages.sh nodes          what the lab's nodes need
#   sh lab/install-packages.sh vms            the same, and what its virtual machines need
#   sh lab/install-packages.sh tests          the same, and what else the tests need
set -eu
PATH=$PATH:/usr/sbin:/sbin

missing=''
need() { # PROGRAM PACKAGE
    command -v "$1" >/dev/null 2>&1 || missing="$missing $2"
}

case ${1-} in
venv)
    python=${2:-python3}
    if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        echo "install-packages: $python is not Python 3.11 or later: name one with PYTHON=/path/to/python3.11" >&2
        exit 1
    fi
    why="the virtual environment"
    "$python" -c 'import ensurepip, venv' 2>/dev/null || missing=' python3-venv'
    ;;
nodes | vms | tests)
    why="the lab's nodes"
    need mmdebstrap mmdebstrap
    need systemd-nspawn systemd-container
    need ip iproute2
    need ssh openssh-client
    need nsenter util-linux
    need rmmod kmod
    need gpgv gpgv
    [ -e /usr/share/keyrings/debian-archive-keyring.gpg ] || missing="$missing debian-archive-keyring"
    if [ "$1" != nodes ]; then
        why="the lab's virtual machines"
        need qemu-system-x86_64 qemu-system-x86
        need qemu-system-aarch64 qemu-system-arm
        need qemu-img qemu-utils
        need mkfs.ext4 e2fsprogs
        need dpkg-deb dpkg
    fi
    if [ "$1" = tests ]; then
        why="the tests"
        # The shells that the tests run the nodes' scripts with, and their linter: where one is missing, CI fails.
        need dash dash
        need bash bash
        need busybox busybox
        need mksh mksh
        need shellcheck shellcheck
        # What the scripts find on nodes: an awk beside busybox's, and what downloads.
        need mawk mawk
        need curl curl
        need wget wget
        need systemd-analyze systemd
        # Programs of a newer Debian, made to run on an older one.
        need patchelf patchelf
        # Throw-away keys, which sign what the tests of python -m artifacts verify.
        need gpg gpg
        need gpg-agent gpg-agent
        need gpgconf gpgconf
        # Processes, for whoever asks as one has to where there is no /proc.
        need ps procps
        # Signed repositories, and nodes that pull from them.
        need git git
        # The operator's own kubectl, which drains nodes, against a server of the test's own.
        need kubectl kubernetes-client
        # The example of an image that mkosi builds.
        need mkosi mkosi
        need debootstrap debootstrap
        # The report's page is looked at in a real browser.
        need chromium chromium
        need chromedriver chromium-driver
    fi
    ;;
*)
    echo "usage: sh $0 venv PYTHON | nodes | vms | tests" >&2
    exit 2
    ;;
esac

[ -n "$missing" ] || exit 0
if ! command -v apt-get >/dev/null 2>&1; then
    echo "install-packages: $why need(s)$missing (Debian's names), and this machine has no apt-get: install them by hand" >&2
    exit 1
fi
if [ "$(id -u)" != 0 ]; then
    echo "install-packages: $why need(s)$missing: run as root: apt-get install$missing" >&2
    exit 1
fi
echo "Installing$missing, for $why"
export DEBIAN_FRONTEND=noninteractive
# The machine's package lists may be missing or older than the archive: refresh them only where that is so.
# shellcheck disable=SC2086  # one word for each package
apt-get install --yes --quiet=2 --no-install-recommends $missing >/dev/null 2>&1 || {
    apt-get update --quiet=2
    apt-get install --yes --quiet=2 --no-install-recommends $missing >/dev/null
}
