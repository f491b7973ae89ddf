"""The base tree of a node: Debian with systemd and sshd, and with the libraries that a container runtime needs.

The runtimes themselves are left out, because putting them on a node is the deploy's job.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from lab import cache
from lab.errors import LabError
from lab.processes import leashed, tool

# apt so that `install_from = "package"` can be tried; no Python, as nothing may need it on a node.
PACKAGES = (
    "systemd",
    "systemd-sysv",
    "dbus",
    "openssh-server",
    "iproute2",
    "kmod",
    "procps",
    "sudo",
    "passwd",
    "uidmap",
    "mount",
    "util-linux",
    "curl",
    "ca-certificates",
)
RUNTIMES = ("containerd", "runc", "crun")

# Docs and translations are half of the files of a small system, and every node pays for unpacking them.
_LEFT_OUT = (
    "/usr/share/doc/*",
    "/usr/share/locale/*",
    "/usr/share/man/*",
    "/usr/share/info/*",
    "/usr/share/zoneinfo/*",
)

# What would change the machine below: /proc/sys and /sys are writable in a node (runc needs them whole), so a
# node's boot must not apply sysctls, load modules, register binary formats or empty the firmware's crash store.
MASKED_FOR_THE_MACHINE = (
    "systemd-sysctl.service",
    "systemd-modules-load.service",
    "systemd-binfmt.service",
    "proc-sys-fs-binfmt_misc.automount",
    "proc-sys-fs-binfmt_misc.mount",
    "systemd-pstore.service",
    "sys-kernel-debug.mount",
    "sys-kernel-tracing.mount",
    "sys-kernel-config.mount",
)
# What would only disturb a test: package updates, consoles, and a network that is already set up.
_MASKED = (
    *MASKED_FOR_THE_MACHINE,
    "systemd-networkd.service",
    "systemd-networkd.socket",
    "systemd-networkd-wait-online.service",
    "systemd-resolved.service",
    "systemd-timesyncd.service",
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "fstrim.timer",
    "console-getty.service",
    "getty.target",
)

# The libraries stay, marked as wanted, so that a later `apt-get autoremove` on a node leaves them too.
_HOOK = f"""
set -eu
chroot "$1" apt-mark showauto | xargs chroot "$1" apt-mark manual >/dev/null
chroot "$1" dpkg --purge {" ".join(RUNTIMES)}
for unit in {" ".join(_MASKED)}; do ln -sf /dev/null "$1/etc/systemd/system/$unit"; done
rm -f "$1/etc/apt/apt.conf.d/99mmdebstrap" "$1/etc/dpkg/dpkg.cfg.d/99mmdebstrap"
rm -f "$1"/etc/ssh/ssh_host_* "$1/etc/resolv.conf" "$1/etc/machine-id"
rm -f "$1"/etc/apt/sources.list "$1"/etc/apt/sources.list.d/*
rm -rf "$1"/var/lib/containerd "$1"/etc/containerd "$1"/etc/cni
: > "$1/etc/fstab"; : > "$1/etc/resolv.conf"; : > "$1/etc/machine-id"
chroot "$1" ldconfig
touch "$1/etc/.updated" "$1/var/.updated"
"""


# How the tree is laid out somewhere.
UNPACK = ("tar", "--extract", "--numeric-owner", "--xattrs", "--xattrs-include=*", "--file")


def sshd_limits(sshd: Path) -> str:
    """No limits: they are meant for strangers, and would refuse a deploy that opens many connections or breaks some."""
    limits = {"MaxStartups": "1000", "MaxSessions": "1000", "PerSourcePenalties": "no"}
    known = sshd.read_bytes().lower()  # an older sshd does not start with a setting that it does not know
    return "".join(f"{name} {value}\n" for name, value in limits.items() if name.lower().encode() in known)


def mirror_url() -> str:
    """The Debian archive that this machine's own apt uses, or USERNS_NODE_DEBIAN_MIRROR."""
    if url := os.environ.get("USERNS_NODE_DEBIAN_MIRROR"):
        return url
    listing = subprocess.run(
        [tool("apt-get"), "indextargets", "--format", "$(ORIGIN)|$(LABEL)|$(SITE)"],
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    for line in listing.splitlines():
        origin, label, site = line.split("|", 2)
        if origin == label == "Debian":
            return site
    raise LabError(
        "this machine's apt knows no Debian archive (or `apt-get update` never ran): "
        "set USERNS_NODE_DEBIAN_MIRROR to one"
    )


def apt_options() -> list[str]:
    """The machine's own way to its mirror (proxies, certificates), and leave to use an archive older than the clock."""
    dump = subprocess.run([tool("apt-config"), "dump"], capture_output=True, text=True, check=True).stdout
    ways = ("Acquire::http", "Acquire::ftp", "Acquire::Retries")
    kept = [line for line in dump.splitlines() if line.startswith(ways)]
    return [
        *kept,
        'Acquire::Check-Valid-Until "false";',
        'Acquire::Languages "none";',
        'APT::Install-Recommends "false";',
    ]


def tar(suite: str = "testing") -> Path:
    """The base tree of `suite` as a tar, built on first use (13 s on a quiet machine with a near mirror)."""

    def build(into: Path) -> None:
        options = [f"--dpkgopt=path-exclude={pattern}" for pattern in _LEFT_OUT]
        bootstrap(suite, into, "apt", PACKAGES + RUNTIMES, *options, f"--customize-hook={_HOOK}")

    recipe = (suite, *PACKAGES, *RUNTIMES, *_LEFT_OUT, _HOOK)
    return cache.once(f"base-{suite}", cache.digest(*recipe), build) / "root.tar"


def bootstrap(suite: str, into: Path, variant: str, packages: Sequence[str], *options: str) -> None:
    """Make INTO/root.tar of Debian `suite`, in one of mmdebstrap's variants and with these packages more."""
    command = [*leashed(), tool("mmdebstrap"), "--mode=root", f"--variant={variant}", f"--include={','.join(packages)}"]
    command += [f"--aptopt={option}" for option in apt_options()]
    command += [*options, suite, str(into / "root.tar"), mirror_url()]
    environment = os.environ | {"TMPDIR": str(into)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise LabError(f"mmdebstrap could not build Debian {suite}:\n{done.stderr[-3000:]}")
