"""Managed files: the whole text that each should have on this node, and which of them differ."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any

from userns import check, paths, render
from userns.changes import RemoveFile, WriteFile
from userns.containerd import config
from userns.findings import Finding, warning
from userns.image import firstboot
from userns.kubelet import subids
from userns.node import ConfLine, Node
from userns.overlay import comes_on, has_metacopy_option, held_layers
from userns.policy import Policy
from userns.readiness import Readiness

# A new unit takes effect only with a restart; a drop-in that adds a pre-start hook does so at the next one.
_RESTARTS = frozenset({paths.CONFIG, paths.UNIT})
MAX_USER_NAMESPACES = "user.max_user_namespaces"
_FIGURE = re.compile(r"[0-9]{1,19}")
_LARGEST = 2**31 - 1  # kernel/ucount.c
_EXECUTABLE = frozenset({paths.PRE_START, paths.CHECK, *paths.CHECK_FOR.values(), paths.FIRST_BOOT})
# What the operator adds to them may be a registry's password.
_CONFIGS = frozenset({paths.CONFIG, *paths.CONFIG_FOR.values()})


@dataclass(frozen=True, slots=True)
class Wanted:
    """Every managed file that this node should have: `texts` by path (None: it should not be there).

    `config` is config.toml as a mapping; `whys` says in a few words what each file is for.
    """

    texts: Mapping[str, str | None]
    whys: Mapping[str, str]
    config: Mapping[str, Any]
    findings: tuple[Finding, ...] = ()

    def with_text(self, path: str, text: str, why: str) -> Wanted:
        """The same with another file."""
        return replace(self, texts={**self.texts, path: text}, whys={**self.whys, path: why})


def wanted(
    node: Node,
    policy: Policy,
    ready: Readiness,
    templates: Mapping[str, str],
    findings: tuple[Finding, ...] = (),
) -> Wanted:
    """The managed files of this node under this policy. `findings` is what else than its readiness was noticed there.

    Raises config.ConfigError where `containerd_config` cannot be put into config.toml.
    """
    rendered = config.render(templates, config.of_policy(policy, ready))
    metacopy = wants_metacopy(node, policy, ready)

    texts: dict[str, str | None] = {
        paths.CONFIG: rendered.text,
        paths.UNIT_DROP_IN: render.unit_drop_in(templates),
        paths.PRE_START: render.pre_start(templates, metacopy=metacopy),
    }
    whys = {
        paths.CONFIG: f"config version {policy.config_version} for containerd {policy.containerd_version}",
        paths.UNIT_DROP_IN: "runs the pre-start hook before containerd",
        paths.PRE_START: "loads overlay and sets metacopy before containerd mounts anything",
        paths.CHECK: "says at any time whether this node is ready, as JSON or metrics",
        paths.CHECK_UNIT: "runs the check after a boot",
    }
    if policy.install_from != "package":
        texts[paths.UNIT] = render.unit(templates, systemd=node.systemd)
        whys[paths.UNIT] = "a release brings no unit"
    if metacopy is not None:
        texts[paths.MODPROBE] = render.modprobe(templates) if metacopy else None
        whys[paths.MODPROBE] = (
            "metacopy=Y at every load of overlay: a layer chowned with it is unreadable without it"
            if metacopy
            else "overlay_metacopy is False" + ("" if held_layers(node) else ", and no snapshot needs it")
        )
    texts.update(_sysctl(node, policy, templates))
    whys[paths.SYSCTL] = f"{policy.max_pods} pods need more user namespaces than this node allows"
    if policy.kubelet_id_range is not None:
        start, count = policy.kubelet_id_range
        for path, lines in ((paths.SUBUID, node.subuid), (paths.SUBGID, node.subgid)):
            if subids.whole(node, path):
                texts[path] = render.subid_text(lines, start=start, count=count, uid=node.kubelet_user)
                whys[path] = "the kubelet's range of user ids for pods"
    # What the next run will ask for, which then finds our file.
    figure = raised_user_namespaces if paths.SYSCTL in texts else max_user_namespaces
    expected = check.Expected(metacopy, figure(node, policy), node.kubelet_version, findings)
    texts[paths.CHECK] = check.text(templates, policy, ready, expected)
    texts[paths.CHECK_UNIT] = check.service(templates)
    if node.image is not None:
        for path, why, baked in firstboot.files(templates, policy, node.kernel, ready, expected):
            texts[path], whys[path] = baked, why

    doubt = rendered.doubt
    doubts = (warning("config-toml-dialects", doubt, "TOML 0.5 against TOML 1.0"),) if doubt else ()
    return Wanted(texts, whys, rendered.mapping, doubts)


def wants_metacopy(node: Node, policy: Policy, ready: Readiness | None) -> bool | None:
    """Whether overlay's metacopy is to be on; None leaves it as it is.

    "auto" never turns off what is on: layers that were chowned with it outlive the kernel that needed it. Nor does it
    ask whether there are any yet: where it is on by the kernel's own default, the first of them is made with it.
    """
    if policy.overlay_metacopy != "auto":
        return bool(policy.overlay_metacopy)
    if ready is not None and ready.rootfs == "chown":
        return True
    return True if has_metacopy_option(node) or comes_on(node) else None


def _sysctl(node: Node, policy: Policy, templates: Mapping[str, str]) -> dict[str, str]:
    """The sysctl file: only where the kernel's own value is too low, or where the file is already there.

    The default grows with the node's memory, so a file with the figure we need would lower it on most nodes.
    """
    live = node.sysctls.get(MAX_USER_NAMESPACES)
    there = _kind(node, paths.SYSCTL) != "absent"
    # Nobody knows the memory of the machine that boots an image: its first boot raises what the file has lowered.
    low = node.image is not None or (live is not None and live < max_user_namespaces(node, policy))
    if there or low:
        return {paths.SYSCTL: render.sysctl(templates, raised_user_namespaces(node, policy))}
    return {}


def max_user_namespaces(node: Node, policy: Policy) -> int:
    """What the sysctl has to be at least. Only raised, never lowered: what our file or another one gives it stays."""
    needed = render.max_user_namespaces(policy.max_pods)
    return needed if _kind(node, paths.SYSCTL) == "absent" else max([needed, *_figures(node.sysctl_lines)])


def raised_user_namespaces(node: Node, policy: Policy) -> int:
    """What it is raised to where it is too low: no less than another file gives it, which ours may come after.

    Nor less than the kernel gave it at boot, half of kernel.threads-max (kernel/fork.c, fork_init): what somebody
    lowered by hand would else stay lower for good.
    """
    needed = max_user_namespaces(node, policy)
    if _kind(node, paths.SYSCTL) != "absent":
        return needed
    return max([needed, node.sysctls.get("kernel.threads-max", 0) // 2, *_figures(node.sysctl_lines)])


def _figures(lines: Iterable[ConfLine]) -> list[int]:
    """The figures of these lines; no larger than every kernel takes, as older ones answer EINVAL beyond an int."""
    said = (line.line.rpartition("=")[2].strip() for line in lines)
    return [min(int(figure), _LARGEST) for figure in said if _FIGURE.fullmatch(figure)]


def _mode(path: str, policy: Policy) -> str:
    if path in _EXECUTABLE:
        return "755"
    return "600" if path in _CONFIGS and policy.containerd_config else "644"


def changes(node: Node, policy: Policy, found: Wanted) -> list[WriteFile | RemoveFile]:
    """The files that differ in text, mode, owner or kind."""
    differing: list[WriteFile | RemoveFile] = []
    for path, text in found.texts.items():
        mode = _mode(path, policy)
        if text is None:
            if _kind(node, path) != "absent":
                differing.append(RemoveFile(path, found.whys[path]))
        elif why := _why_write(node, path, text, mode):
            # Whoever reads the file is root, so that its mode and owner change nothing for what runs.
            restarts = path in _RESTARTS and not says(node, path, text)
            differing.append(
                WriteFile(path, text, mode, f"{why} ({found.whys[path]})", restarts, _keeps(node, path, text))
            )
    return differing


def _kind(node: Node, path: str) -> str:
    state = node.files.get(path)
    return state.kind if state else "absent"


def _keeps(node: Node, path: str, text: str) -> str:
    """Where the present text goes before it is replaced, "" where it was a deploy's or where its lines stay.

    The previous set has it too, but only until the next change.
    """
    state = node.files.get(path)
    if state is None or state.kind != "file" or state.recorded or path in paths.SHARED or says(node, path, text):
        return ""
    return f"{paths.REPLACED}/{path.rpartition('/')[2]}.{state.sha256[:12]}"


def says(node: Node, path: str, text: str) -> bool:
    """Whether this text is what the node has there."""
    state = node.files.get(path)
    return state is not None and state.sha256 == sha256(text.encode()).hexdigest()


def _why_write(node: Node, path: str, text: str, mode: str) -> str:
    state = node.files.get(path)
    if state is None or state.kind == "absent":
        return "new"
    if state.kind != "file":
        return "it is no plain file" if state.kind == "other" else f"it is a {state.kind}, not a file"
    if not says(node, path, text):
        return "its text differs"
    if state.mode != mode:
        return f"its mode is {state.mode}, expected {mode}"
    if state.owner != "0:0":
        return f"its owner is {state.owner}, expected 0:0"
    return ""
