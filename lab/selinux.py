"""A disk for a virtual machine that enforces SELinux, by Debian's own policy (refpolicy).

    from lab import selinux
    vm = lab.vm("selinux", selinux.KERNEL, disk=selinux.image(), options=selinux.OPTIONS)

As with the policy of Fedora and its like, containerd has a domain of its own also in /usr/local/bin (there it is
container_runtime_t, here dockerd_t), and a boolean `deny_ptrace` keeps that from tracing; here it is on at each boot.
"""

from __future__ import annotations

from pathlib import Path

from lab import cache, debs, disk, kernels

KERNEL = "newest"
OPTIONS = "security=selinux"
_PACKAGES = ("selinux-policy-default", "policycoreutils", "selinux-utils")
# What else that domain lacks there, and container_runtime_t has: crun keeps rules for devices in bpf's file system, and
# runc looks whether systemd runs. And what systemd may not do there.
_MODULE = """
(boolean deny_ptrace true)
(booleanif (not deny_ptrace) (true (allow dockerd_t self (process (ptrace)))))
(allow dockerd_t bpf_t (dir (create read write add_name remove_name rmdir)))
(allow dockerd_t bpf_t (file (create unlink)))
(allow dockerd_t init_runtime_t (dir (getattr search)))
(allow dockerd_t systemd_unit_t (dir (getattr search)))
(deny init_t usr_t (file (execute)))
"""
_INSTALL = f"""
set -eu
dpkg --install /debs/*.deb
rm -r /debs
printf 'SELINUX=enforcing\\nSELINUXTYPE=default\\n' >/etc/selinux/config
printf '/usr/local/%s /usr/bin\\n' bin sbin >{disk.CONTEXTS}.subs
semodule --install=/lab.cil
rm /lab.cil
"""


def image() -> Path:
    """The disk's image, built on first use (some 30 s on a quiet machine). Nobody writes to it."""
    packages, kernel = debs.for_a_node(*_PACKAGES), kernels.fetched(KERNEL)
    recipe = cache.digest(Path(__file__).read_text(), Path(disk.__file__).read_text(), packages.name, kernel.release)

    def build(into: Path) -> None:
        root = disk.lay_out(into / "root", kernel)
        disk.run("cp", "-r", str(packages), str(root / "debs"))
        (root / "lab.cil").write_text(_MODULE)
        disk.run("chroot", str(root), "sh", "-c", _INSTALL)
        disk.of_tree(root, into / "disk.img")
        cache.remove_tree(root)

    return cache.once("vm-disk-selinux", recipe, build) / "disk.img"
