"""The templates, and the texts of the files beside config.toml: unit, hook, modprobe option, sysctl, sub-ID files."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Mapping
from functools import lru_cache
from typing import Any

from jinja2 import Environment, StrictUndefined, Template

from userns.kubelet import subids
from userns.paths import PRE_START

__all__ = [
    "comment_lines",
    "fill",
    "fill_anew",
    "max_user_namespaces",
    "modprobe",
    "pre_start",
    "subid_text",
    "sysctl",
    "unit",
    "unit_drop_in",
]

_ENVIRONMENT = Environment(
    undefined=StrictUndefined, keep_trailing_newline=True, trim_blocks=True, lstrip_blocks=True, autoescape=False
)

# systemd 240 raised the hard limit on open files for every service, and programs raise their own soft limit;
# containerd 2.0 therefore dropped LimitNOFILE from its unit (RELEASES.md, 2.0).
_RAISES_NOFILE = 240

# A limit costs nothing until it is used; too low a one stops pods with ENOSPC (siderolabs/talos#8554).
_NAMESPACES_PER_POD = 64
_FEWEST_NAMESPACES = 16384


@lru_cache(maxsize=64)
def _compiled(text: str) -> Template:
    return _ENVIRONMENT.from_string(text)


def prepare(templates: Mapping[str, str]) -> None:
    """Compile what will be filled."""
    for name, text in templates.items():
        if name.endswith(".j2"):
            _compiled(text)


def fill(templates: Mapping[str, str], name: str, **values: Hashable) -> str:
    """The template `name` with these values; one that it needs and does not get is an error.

    The nodes of a fleet share most texts: each is made once.
    """
    return _filled(templates[name], tuple(values.items()))


@lru_cache(maxsize=256)
def _filled(text: str, values: tuple[tuple[str, Hashable], ...]) -> str:
    return fill_anew(text, **dict(values))


def fill_anew(text: str, **values: Any) -> str:
    """Render a template's text; the result is not kept, so that the values need not be hashable."""
    return _compiled(text).render(values)


def comment_lines(text: str) -> list[str]:
    """`text` as lines that may stand behind a `#`: printable, none of them empty."""
    lines = ("".join(c if c.isprintable() else " " for c in line).strip() for line in re.split(r"\r\n|\r|\n", text))
    return [line for line in lines if line]


def unit(templates: Mapping[str, str], systemd: str) -> str:
    """containerd.service as upstream has it. `systemd` is the node's version ("252.39-1~deb12u1"), "" if unknown."""
    version = re.match(r"(?:systemd )?(\d+)", systemd.strip())
    old = version is not None and int(version[1]) < _RAISES_NOFILE
    return fill(templates, "containerd.service.j2", limit_nofile=old)


def unit_drop_in(templates: Mapping[str, str]) -> str:
    """The drop-in of containerd.service that runs the pre-start hook, also for a package's own unit."""
    return fill(templates, "50-userns-node.conf.j2", pre_start=PRE_START)


def pre_start(templates: Mapping[str, str], *, metacopy: bool | None, sys: str = "/sys", run: str = "/run") -> str:
    """The hook before containerd. `metacopy` turns overlay's metacopy on, or off after a boot; None neither."""
    return fill(templates, "pre-start.sh.j2", metacopy=metacopy, sys=sys, run=run)


def modprobe(templates: Mapping[str, str]) -> str:
    """The modprobe option that lets overlay, where it is a module, come up with metacopy on."""
    return fill(templates, "overlay-metacopy.conf.j2")


def sysctl(templates: Mapping[str, str], max_user_namespaces: int) -> str:
    """The sysctl file."""
    return fill(templates, "sysctl.conf.j2", max_user_namespaces=max_user_namespaces)


def max_user_namespaces(max_pods: int) -> int:
    """How many user namespaces a node with `max_pods` pods must be able to have.

    The kernel charges every one to root of the host, nested ones too (kernel/ucount.c): one a pod; a short-lived
    one for each container that containerd starts, which holds the mapping while the rootfs is mounted; and those
    that the pod's own programs make (builds without root, browser sandboxes).
    """
    return max(_FEWEST_NAMESPACES, max_pods * _NAMESPACES_PER_POD)


def subid_text(existing_lines: Iterable[str], start: int, count: int, *, uid: str = "") -> str:
    """/etc/subuid or /etc/subgid with exactly one range for the user kubelet, and every other line as it was.

    Also replaces the range that useradd may have added by itself, and one under the user's number (`uid`):
    `getsubids` prints both, and the kubelet refuses to start with more than one.
    """
    ours = f"kubelet:{start}:{count}"
    owners = subids.owners(uid)
    lines: list[str] = []
    written = False
    for line in (each.rstrip("\n") for each in existing_lines):
        if line.partition(":")[0] not in owners or ":" not in line:
            lines.append(line)
        elif not written:
            lines.append(ours)
            written = True
    if not written:
        lines.append(ours)
    return "".join(f"{line}\n" for line in lines)
