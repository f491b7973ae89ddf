"""May containerd trace its own child? containerd 2 holds each new user namespace by one, or no pod with one starts."""

from __future__ import annotations

import re
from collections.abc import Iterator

from userns import paths
from userns.findings import Finding, blocker, warning
from userns.node import Node
from userns.versions import parse
from userns.wants import Wants

__all__ = ["PTRACE_SCOPE", "findings", "traces"]

PTRACE_SCOPE = "kernel.yama.ptrace_scope"
# Up to 2 a parent with CAP_SYS_PTRACE may trace a child that asks for it, and containerd has that.
_NOBODY = 3

_NEEDS_IT = "containerd 2 holds each new user namespace by a child that it traces, so no pod with one starts"
_SAYS = '("failed to start noop process for unshare: fork/exec /proc/self/exe: {error}")'
_SOURCE = "containerd v2 pkg/sys/unshare_linux.go, core/mount/mount_idmapped_utils_linux.go (PTRACE_TRACEME)"
_YAMA = f"{_SOURCE}; kernel Documentation/admin-guide/LSM/Yama.rst"
_SELINUX = f"{_SOURCE}; kernel security/selinux/hooks.c (selinux_ptrace_traceme); container-selinux#447"


def traces(containerd: str) -> bool:
    """Whether this containerd holds user namespaces by a traced child; one of no known version counts as newer."""
    return not containerd or parse(containerd).major >= 2


def findings(node: Node, wants: Wants) -> Iterator[Finding]:
    """What forbids it: Yama, for everybody; or SELinux, for the domain that systemd starts containerd in."""
    if not traces(wants.containerd_version):
        return
    yield from _yama(node, wants)
    program = paths.installed(wants.install_from)["containerd"]
    domain = node.selinux_domains.get(program)
    if domain and domain.denied and node.enforces_selinux and not wants.image:
        yield blocker(
            "selinux-denies-containerd",
            f"SELinux is enforced here, and its policy denies {' and '.join(domain.denied)} to {domain.context}, in "
            f"which systemd starts {program}: {_NEEDS_IT} {_SAYS.format(error='permission denied')}. "
            "For ptrace turn the boolean deny_ptrace off, where it is on (setsebool -P deny_ptrace off); else give the "
            "domain what it lacks in a module of your own (for example allow_containerd.cil with "
            f'"{_rule(domain.context, domain.denied[0])}", and semodule -i allow_containerd.cil)',
            _SELINUX,
        )


def _rule(context: str, permission: str) -> str:
    domain = [*context.split(":"), "", "", ""][2]
    kind, _, name = permission.partition(" ")
    return f"(allow {domain} self ({kind} ({name})))"


def _yama(node: Node, wants: Wants) -> Iterator[Finding]:
    live, at_boot = node.sysctls.get(PTRACE_SCOPE), _at_boot(node)
    forbids = f"{PTRACE_SCOPE} = {_NOBODY} forbids everybody to trace, and {_NEEDS_IT}"
    told = f"{forbids} {_SAYS.format(error='operation not permitted')}"
    if wants.image and at_boot:
        yield blocker("ptrace-forbidden", f"{at_boot} sets it in this image: {told}. Set it to 2 there, or less", _YAMA)
    elif not wants.image and live == _NOBODY:
        where = f" in {at_boot}" if at_boot else " where it is set (sysctl.d, or a tuning daemon)"
        yield blocker(
            "ptrace-forbidden",
            f"{told}. Set it to 2{where}, or less, and boot this node again: a running kernel does not lower it",
            _YAMA,
        )
    elif not wants.image and at_boot:
        yield warning("ptrace-forbidden", f"{at_boot} sets it, from the next boot on: {told}. Set it to 2 there", _YAMA)


def _at_boot(node: Node) -> str:
    """The file whose line is the last one at boot, where that is the one that forbids; "" where it is not."""
    last = node.ptrace_lines[-1] if node.ptrace_lines else None
    return last.file if last and re.fullmatch(rf".*=\s*{_NOBODY}\s*", last.line) else ""
