"""What on a node stands in the way of overlay and its metacopy: the module, modprobe.d, builders of images."""

from __future__ import annotations

import re
from collections.abc import Iterator

from userns import paths
from userns.findings import Finding, blocker, note, warning
from userns.node import ConfLine, Node

__all__ = [
    "comes_on",
    "has_metacopy_option",
    "held_layers",
    "metacopy_conflicts",
    "metacopy_differs",
    "module_conflicts",
]

_ON = ("y", "1", "on", "true", "")


def module_conflicts(node: Node, *, image: bool) -> Iterator[Finding]:
    """What keeps overlay from being loaded."""
    if node.overlay.state == "absent":
        yield blocker(
            "overlay-missing",
            f"Linux {node.kernel} has no overlay, built in or as a module: install the kernel's modules package "
            "(linux-modules-extra on some clouds), or reboot if the kernel was upgraded and its modules went",
        )
    if node.overlay.state == "module" and node.sysctls.get("kernel.modules_disabled") == 1 and not image:
        yield blocker(
            "overlay-not-loadable",
            "overlay is a module and not loaded, and kernel.modules_disabled is 1 until the next boot: let it load at "
            "boot (modules-load.d) before that is set",
        )
    for each, kind, rest in _statements(node):
        if kind == "install" and re.search(r"/(false|true)\b", rest):
            there = node.overlay.state in ("loaded", "builtin")
            when = "at the next boot" if there else "now"
            yield (warning if there else blocker)(
                "overlay-not-loadable",
                f"{each.file} keeps overlay from being loaded ({each.line!r}), which hits {when}; containerd's "
                "overlayfs snapshotter needs it: take the line out",
                "modprobe.d(5)",
            )
        elif kind == "blacklist":
            yield note(
                "overlay-blacklisted",
                f"{each.file} keeps overlay from loading by itself ({each.line!r}); containerd's pre-start hook loads "
                "it by name, which still works",
                "modprobe.d(5)",
            )


def has_metacopy_option(node: Node) -> bool:
    """Whether an earlier deploy turned metacopy on for good, whatever the running kernel says now."""
    state = node.files.get(paths.MODPROBE)
    return state is not None and state.kind != "absent"


def comes_on(node: Node) -> bool:
    """Whether metacopy is on without a deploy's doing: now, or as soon as the module is loaded."""
    if node.overlay.metacopy or node.overlay.state != "module":
        return node.overlay.metacopy == "Y"
    options = [_turned(rest) for _, kind, rest in _statements(node) if kind == "options"]
    said = [on["metacopy"] for on in options if "metacopy" in on]
    return any(said) or (not said and node.overlay.default == "Y")


def metacopy_conflicts(node: Node, *, metacopy: bool, kept_off: bool = False) -> Iterator[Finding]:
    """What is at odds with metacopy on, or off. `kept_off`: in each boot it was off before containerd's first layer."""
    on = node.overlay.metacopy == "Y" or has_metacopy_option(node) or (comes_on(node) and not kept_off)
    if not metacopy and on and (held := held_layers(node)):
        since = "comes on with its module"
        if node.overlay.metacopy == "Y":
            since = "is on"
        elif has_metacopy_option(node):
            since = f"was turned on by {paths.MODPROBE}"
        yield blocker(
            "metacopy-off-with-snapshots",
            f"overlay_metacopy = False, but metacopy {since} and {held}: each file whose owner or mode was changed "
            'while it was on would give EPERM. Leave it on (True or "auto"), or drain the node and remove '
            "the containers and images there first",
            "measured; containers/storage#815; Linux Documentation/filesystems/overlayfs.rst",
        )
    for each, kind, rest in _statements(node):
        if kind == "options":
            yield from _options(each, rest, metacopy)
    value = "Y" if metacopy else "N"
    if node.overlay.state == "builtin" and (metacopy or node.overlay.metacopy == "Y"):
        yield note(
            "overlay-builtin",
            "overlay is built into this kernel, so that modprobe.d says nothing to it: containerd's pre-start hook "
            f"sets metacopy at each boot. overlay.metacopy={value} on the kernel's command line does so for all mounts",
        )
    if not metacopy:
        return
    else_off = '"auto", which turns it on only where the image of a pod is chowned'
    if comes_on(node):  # which "auto" leaves so
        else_off = "False, where there are no layers yet"
    builders = [name for name in ("docker", "podman") if (unit := node.units.get(name)) and unit.load == "loaded"]
    if builders:
        yield warning(
            "metacopy-and-builds",
            f"{' and '.join(builders)} on this node: with metacopy on, image builds fall back to a slow diff and may "
            f"put whole files into layers. Build elsewhere, or set overlay_metacopy = {else_off}",
            "containers/storage#640; flatcar#403; home-assistant/operating-system#2773",
        )


def held_layers(node: Node) -> str:
    """Who has, or may have, layers that were written with metacopy; "" where nobody has."""
    held = [f"there are layers in {place}" for place in node.other_layers]
    if node.snapshots is not False:
        held.insert(0, "containerd holds snapshots" if node.snapshots else "containerd may hold snapshots, unread")
    return ", ".join(held)


def metacopy_differs(value: str, other: str, group: str, others: str) -> Iterator[Finding]:
    """What to tell of a node of a group whose metacopy is to be `value`, where the node `other` has `others`."""
    if value and others and value != others:
        yield warning(
            "metacopy-differs",
            f"overlay's metacopy is to be {value} here and {others} on {other} of the same group {group}: their pods "
            "need different disk space, and image layers on a disk that moves between them become unreadable (EPERM). "
            "Set overlay_metacopy for the whole group",
            "overlayfs.rst",
        )


def _statements(node: Node) -> Iterator[tuple[ConfLine, str, str]]:
    """Other people's lines about overlay: the line, its command, and what follows the module's name."""
    for each in node.modprobe_lines:
        words = each.line.split(maxsplit=2)
        if each.file != paths.MODPROBE and len(words) > 1:
            yield each, words[0], words[2] if len(words) > 2 else ""


def _turned(options: str) -> dict[str, bool]:
    """Each of a module's options, and whether it is on."""
    values = dict(word.partition("=")[::2] for word in options.split())
    return {name: value.strip("\"'").lower() in _ON for name, value in values.items()}


def _options(each: ConfLine, rest: str, metacopy: bool) -> Iterator[Finding]:
    on = _turned(rest)
    if on.get("metacopy", metacopy) is not metacopy:
        yield warning(
            "modprobe-metacopy",
            f"{each.file} sets overlay's metacopy to another value ({each.line!r}) than the settings do "
            f"({'Y' if metacopy else 'N'}), and the names of the files decide which one counts: take the line out",
            "modprobe.d(5)",
        )
    if metacopy and on.get("nfs_export"):
        yield warning(
            "modprobe-metacopy",
            f"{each.file} turns overlay's nfs_export on ({each.line!r}), which silently turns metacopy off: "
            "choose one of them",
            "Linux fs/overlayfs/params.c",
        )
    if metacopy and on.get("redirect_dir") is False:
        yield note(
            "modprobe-redirect-dir",
            f"{each.file} turns overlay's redirect_dir off ({each.line!r}); metacopy turns it on again for each mount",
            "Linux fs/overlayfs/params.c",
        )
