"""Settings of a node's own config.toml: which of them the new one, in its place, would take away."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from userns.containerd.config import STATE
from userns.containerd.dropins import path_of
from userns.containerd.extraconfig import CRI, IMAGES, OF_IMAGES, OVERLAY, RUNTIME, STREAMING
from userns.containerd.merge import Path, at, spelled
from userns.containerd.reserved_keys import value_of
from userns.findings import Finding, warning
from userns.node import ConfigKey, DropIn, Node
from userns.paths import CONFIG, DROP_INS, DROP_INS_GLOB, REPLACED
from userns.policy import Policy

__all__ = ["lost"]

# CRI under whichever id: so does the node name its keys.
_CRI = "cri"
_HANDLERS = (_CRI, "containerd", "runtimes")
_SANDBOX = (_CRI, "pinned_images", "sandbox")
_CONFIG_PATH = (_CRI, "registry", "config_path")
# What the settings decide, or what has a finding of its own, or what containerd 2.x has under another name.
_DECIDED = {
    ("version",),
    ("root",),
    (_CRI, "systemd_cgroup"),
    (_CRI, "use_local_image_pull"),
    (_CRI, "containerd", "default_runtime_name"),
    ("plugins", OVERLAY, "slow_chown"),
    ("plugins", "io.containerd.internal.v1.restart"),
    ("plugins", "io.containerd.runtime.v1.linux"),
    ("plugins", "io.containerd.transfer.v1.local", "unpack_config"),
    (_CRI, "containerd", "default_runtime"),
    (_CRI, "containerd", "untrusted_workload_runtime"),
}
_OF_HANDLER = {
    *(("runtime_type",), ("runtime_path",), ("runtime_engine",), ("snapshotter",), ("sandbox_mode",)),
    *(("options", "BinaryName"), ("options", "SystemdCgroup")),
}
# Where upstream's containerd has them; a distribution's may look elsewhere, too.
_USUAL: Mapping[Path, frozenset[str]] = {
    ("state",): frozenset({STATE}),
    ("grpc", "address"): frozenset({f"{STATE}/containerd.sock"}),
    (_CRI, "cni", "bin_dir"): frozenset({"", "/opt/cni/bin"}),
    (_CRI, "cni", "bin_dirs"): frozenset({"/opt/cni/bin"}),
    (_CRI, "cni", "conf_dir"): frozenset({"", "/etc/cni/net.d"}),
}
_EFFECTS: Mapping[Path, str] = {
    _CONFIG_PATH[:2]: "images are pulled from elsewhere, or not at all",
    _SANDBOX: "pods need another pause image, which a node without a registry may not have (set sandbox_image)",
    (_CRI, "snapshotter"): "every image is unpacked anew (set snapshotter)",
    (_CRI, "cni"): "new pods have no network where its plugins or configuration are only there",
    (_CRI, "enable_selinux"): "SELinux keeps no container from another",
    (_CRI, "image_decryption"): "encrypted images cannot be unpacked",
    ("stream_processors",): "encrypted images cannot be unpacked",
    ("proxy_plugins",): "snapshotters that are processes of their own are not known any more",
    ("imports",): "the files that it names are not read any more",
    ("state",): "containers that run now are not found any more: drain the node first",
    ("grpc", "address"): "the kubelet and others have to look for its socket at /run/containerd/containerd.sock",
    ("plugins", OVERLAY, "root_path"): "the images that lie there are not found any more",
    (*_HANDLERS, "runc", "base_runtime_spec"): "containers lose the limits that it sets",
}
_MOST = 12


def lost(node: Node, policy: Policy, ours: Mapping[str, Any]) -> Iterator[Finding]:
    """What pods would only show later, each in its own way: images that do not come, a network that is not there.

    `ours` is the new config.toml. A key counts as kept where a drop-in opens its table.
    """
    opened = [path for each in node.drop_ins for path in _opened(each)]
    gone = [each.path for each in node.config_keys if _goes(each, policy, ours) and not _is_kept(each.path, opened)]
    if not gone:
        return
    gone.sort(key=lambda path: not _effects(path))  # those that hurt first
    names = list(dict.fromkeys(spelled(_places(_shortened(path), policy.config_version)[0]) for path in gone))
    effects = list(dict.fromkeys(text for path in gone for text in _effects(path)))
    told, more = names[:_MOST], len(names) - _MOST
    or_else = f", or into a drop-in in {DROP_INS}" if policy.config_version > 2 else ""
    where = node.config_option if node.config_option not in ("", CONFIG) else "config.toml"
    kept = f"; the old file is kept as {REPLACED}/config.toml.DIGEST" if where == "config.toml" else ""
    yield warning(
        "config-setting-lost",
        f"{where} sets {', '.join(told)}{f' and {more} more' if more > 0 else ''}, which the new one does not"
        f"{', so that ' if effects else ''}{'; '.join(effects)}. What has to stay, put into the setting "
        f"containerd_config{or_else}, before the deploy (these are its names in configuration version "
        f"{policy.config_version}){kept}",
        "containerd docs/cri/config.md; `containerd config default` of the node's own containerd",
    )


def _effects(path: Path) -> list[str]:
    return [text for above, text in _EFFECTS.items() if path[: len(above)] == above]


def _goes(key: ConfigKey, policy: Policy, ours: Mapping[str, Any]) -> bool:
    """Whether the new config.toml does without this key, or has another value where ours is told."""
    path, version = key.path, policy.config_version
    if any(path[: len(each)] == each for each in _DECIDED):
        return False
    if path[:3] == _HANDLERS:  # a handler that goes as a whole is told as such
        here = ("plugins", RUNTIME if version > 2 else CRI, *_HANDLERS[1:])
        return len(path) > 4 and path[3] in at(ours, here) and path[4:] not in _OF_HANDLER
    value, usual = value_of(key.value), key.state == "default"
    if path in _USUAL:
        if {*(value if isinstance(value, list) else [value])} <= _USUAL[path]:
            return False
        if usual and policy.install_from == "package":
            return False
    elif path == ("imports",):
        return isinstance(value, list) and not {*value} <= {DROP_INS_GLOB, *policy.containerd_config.get("imports", ())}
    elif usual or (key.state == "unknown" and not _effects(path)):
        return False
    elif path == (_CRI, "snapshotter"):
        return value != policy.snapshotter
    elif path == ("disabled_plugins",) and isinstance(value, list) and {*value} <= {_CRI, CRI}:
        return False  # so is the file of Docker's package: no kubelet could do with that
    written = [each for each in _places(path, version) if each[-1] in at(ours, each[:-1])]
    return not written or (path in (_CONFIG_PATH, ("state",)) and at(ours, written[0][:-1])[path[-1]] != value)


def _opened(drop_in: DropIn) -> Iterator[Path]:
    for header in drop_in.tables:
        path = path_of(header) or ()
        yield (_CRI, *path[2:]) if path[:1] == ("plugins",) and {CRI, RUNTIME, IMAGES, "cri"} & {*path[1:2]} else path


def _is_kept(path: Path, opened: list[Path]) -> bool:
    return any(each[: len(path)] == path or (len(each) > 1 and each == path[:-1]) for each in opened)


def _shortened(path: Path) -> Path:
    """Without what a table has as many of as the operator likes: hosts, and plugins' own settings."""
    return path if path[:3] == _HANDLERS else path[: 3 if path[0] in (_CRI, "plugins") else 2]


def _places(path: Path, config_version: int) -> tuple[Path, ...]:
    """Where a key that the node told may stand in a config.toml of this version, the usual place first."""
    if path[0] != _CRI or len(path) == 1:
        return (path,)
    rest = path[1:]
    if config_version > 2:
        plugin = CRI if rest[0] in STREAMING else IMAGES if rest[0] in OF_IMAGES else RUNTIME
        return tuple(("plugins", each, *rest) for each in dict.fromkeys((plugin, IMAGES, RUNTIME, CRI)))
    if path == _SANDBOX:
        rest = ("sandbox_image",)
    elif rest[0] in ("snapshotter", "disable_snapshot_annotations", "discard_unpacked_layers"):
        rest = ("containerd", *rest)
    return (("plugins", CRI, *rest),)
