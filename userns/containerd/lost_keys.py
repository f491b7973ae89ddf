"""Settings of a node's own config.toml: which of them the new one, in its place, would take away."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

from userns.containerd.config import STATE
from userns.containerd.extraconfig import (
    CRI,
    IMAGES,
    OF_IMAGES,
    OF_IMAGES_FROM_CONTAINERD,
    OVERLAY,
    RUNTIME,
    STREAMING,
)
from userns.containerd.merge import at, spelled
from userns.containerd.reserved_keys import value_of
from userns.containerd.toml_text import KeyPath
from userns.findings import Finding, warning
from userns.node import ConfigKey, Node
from userns.paths import CONFIG, DROP_INS, DROP_INS_GLOB, REPLACED
from userns.policy import Policy
from userns.tables import PAUSES, branch
from userns.versions import parse, reaches

__all__ = ["cni_elsewhere", "lost"]

# CRI under whichever id: so does the node name its keys.
_CRI = "cri"
_HANDLERS = (_CRI, "containerd", "runtimes")
_SNAPSHOTTER = (_CRI, "snapshotter")
_SANDBOX = (_CRI, "pinned_images", "sandbox")
_CONFIG_PATH = (_CRI, "registry", "config_path")
_BIN_DIR, _BIN_DIRS = (_CRI, "cni", "bin_dir"), (_CRI, "cni", "bin_dirs")
# What the settings decide, or what has a finding of its own, or what containerd 2.x has under another name.
_DECIDED = {
    ("version",),
    ("root",),
    (_CRI, "systemd_cgroup"),
    (_CRI, "containerd", "default_runtime_name"),
    ("plugins", OVERLAY, "slow_chown"),
    ("plugins", "io.containerd.internal.v1.restart"),
    ("plugins", "io.containerd.runtime.v1.linux"),
    ("plugins", "io.containerd.transfer.v1.local", "unpack_config"),
    (_CRI, "containerd", "default_runtime"),
    (_CRI, "containerd", "untrusted_workload_runtime"),
}
_OF_HANDLER = {
    *(("runtime_type",), ("runtime_path",), ("runtime_engine",), ("snapshotter",), ("sandbox_mode",), ("sandboxer",)),
    *(("options", "BinaryName"), ("options", "SystemdCgroup")),
}
# What containerd has by itself, where it does not tell.
_USUAL: Mapping[KeyPath, tuple[str, ...]] = {
    ("state",): (STATE,),
    ("grpc", "address"): (f"{STATE}/containerd.sock",),
    _BIN_DIR: ("", "/opt/cni/bin"),
    _BIN_DIRS: ("/opt/cni/bin",),
    (_CRI, "cni", "conf_dir"): ("", "/etc/cni/net.d"),
}
# What containerd 2.x does by itself and 1.7 has to be told.
_ON_SINCE_2 = {(_CRI, each) for each in ("enable_cdi", "enable_unprivileged_ports", "enable_unprivileged_icmp")}
# Of a containerd that does not tell its defaults these are passed over: they stand in every file that one has printed.
_PRINTED = {(_CRI, "cni", "max_conf_num"), (_CRI, "image_decryption", "key_model")}
# Nobody may set them: the node check, the kubelet and the probes look for containerd in one place.
_FIXED = {("state",), ("grpc", "address"), ("plugins", OVERLAY, "root_path")}
# The longest that fits counts.
_EFFECTS: Mapping[KeyPath, str] = {
    _CONFIG_PATH[:2]: "images are pulled from elsewhere, or not at all",
    (_CRI, "registry", "headers"): "registries get no headers from it",
    (_CRI, "use_local_image_pull"): "images are pulled by the transfer service, which has settings of its own",
    _SANDBOX: "pods need another pause image, which a node without a registry may not have (set sandbox_image)",
    _SNAPSHOTTER: "every image is unpacked anew (set snapshotter)",
    (_CRI, "cni"): "new pods have no network where its plugins or configuration are only there",
    (_CRI, "enable_selinux"): "SELinux keeps no container from another",
    (_CRI, "image_decryption"): "encrypted images cannot be unpacked",
    ("stream_processors",): "encrypted images cannot be unpacked",
    ("proxy_plugins",): "snapshotters that are processes of their own are not known any more",
    ("imports",): "the files that it names are not read any more",
    ("state",): "containers that run now are not found any more: drain the node first",
    ("grpc", "address"): f"whoever looks for its socket has to look at {STATE}/containerd.sock",
    ("plugins", OVERLAY, "root_path"): "the images that lie there are not found any more",
    (*_HANDLERS, "runc", "base_runtime_spec"): "containers lose the limits that it sets",
}
_MOST = 12


def lost(node: Node, policy: Policy, ours: Mapping[str, Any]) -> Iterator[Finding]:
    """What pods would only show later, each in its own way: images that do not come, a network that is not there.

    `ours` is the new config.toml. What a drop-in sets stays.
    """
    kept = _set_by_drop_ins(node)
    gone = [each for each in node.config_keys if not _is_kept(each.path, kept, policy) and _goes(each, policy, ours)]
    if not gone:
        return
    gone.sort(key=lambda each: not _effect(each.path))  # those that hurt first
    names = dict.fromkeys(spelled(_places(_shortened(each.path), policy)[0]) for each in gone)
    effects = dict.fromkeys(effect for each in gone if (effect := _effect(each.path)))
    told, more = list(names)[:_MOST], len(names) - _MOST
    where = node.config_option if node.config_option not in ("", CONFIG) else "config.toml"
    yield warning(
        "config-setting-lost",
        f"{where} sets {', '.join(told)}{f' and {more} more' if more > 0 else ''}, which the new one does not, or sets "
        f"otherwise{', so that ' if effects else ''}{'; '.join(effects)}{_cure([each.path for each in gone], policy)}. "
        f"These are its names in configuration version {policy.config_version}"
        f"{f'; the old file is kept as {REPLACED}/config.toml.DIGEST' if where == 'config.toml' else ''}",
        "containerd docs/cri/config.md; `containerd config default` of the node's own containerd",
    )


def cni_elsewhere(node: Node, policy: Policy, ours: Mapping[str, Any]) -> Iterator[Finding]:
    """A warning where the containerd that is to be installed would not find the plugins of CNI that the node has.

    A distribution's own looks in its directory by default; upstream's in /opt/cni/bin, where most networks put theirs.
    """
    if not node.cni_plugins or policy.install_from == "package":
        return
    if _names_bin_dirs(policy, ours) or _is_kept(_BIN_DIRS, _set_by_drop_ins(node), policy):
        return
    place = _places(_BIN_DIRS, policy)[0]
    value = f'"{node.cni_plugins}"' if place[-1] == "bin_dir" else f'["{node.cni_plugins}"]'
    yield warning(
        "cni-plugins-elsewhere",
        f"the plugins of CNI are in {node.cni_plugins} and not in /opt/cni/bin, where upstream's containerd looks: new "
        "pods have no network, unless yours puts its own there. To have containerd look where they are, put "
        f"{spelled(place)} = {value} into the setting containerd_config",
        "containerd docs/cri/config.md; Debian's patch of that default",
    )


def _set_by_drop_ins(node: Node) -> set[KeyPath]:
    return {path for each in node.drop_ins for path in each.sets}


def _is_kept(path: KeyPath, kept: Collection[KeyPath], policy: Policy) -> bool:
    """Whether a drop-in, which sets `kept`, sets this key so that nothing goes.

    Of hosts of registries a drop-in may have others, and containerd joins its lists with those of config.toml.
    """
    if path in (_BIN_DIR, _BIN_DIRS):
        return any((*_BIN_DIR[:-1], name) in kept for name in _bin_dirs(policy))
    if path in (("imports",), ("disabled_plugins",)) or (path[:2] == _CONFIG_PATH[:2] and path != _CONFIG_PATH):
        return False
    return path in kept


def _bin_dirs(policy: Policy) -> tuple[str, ...]:
    """By which keys this containerd reads where CNI's plugins are, the usual one first: it takes one of them."""
    return ("bin_dirs", "bin_dir") if reaches(policy.containerd_version, "2.1") else ("bin_dir",)


def _names_bin_dirs(policy: Policy, ours: Mapping[str, Any]) -> bool:
    return not at(ours, _places(_BIN_DIRS, policy)[0][:-1]).keys().isdisjoint(_bin_dirs(policy))


def _cure(paths: Collection[KeyPath], policy: Policy) -> str:
    fixed = [spelled(path) for path in dict.fromkeys(paths) if path in _FIXED]
    or_else = f", or into a drop-in in {DROP_INS}" if policy.config_version > 2 else ""
    said = f". {', '.join(fixed)} cannot stay" if fixed else ""
    if not {*paths} - _FIXED:
        return said
    what = "What else has to stay" if fixed else "What has to stay"
    return f"{said}. {what}, put into the setting containerd_config{or_else}, before the deploy"


def _effect(path: KeyPath) -> str:
    fitting = (path[:length] for length in range(len(path), 0, -1) if path[:length] in _EFFECTS)
    return _EFFECTS.get(next(fitting, ()), "")


def _goes(key: ConfigKey, policy: Policy, ours: Mapping[str, Any]) -> bool:
    """Whether the new config.toml does without this key, or has another value where ours is told."""
    path = key.path
    if any(path[: len(each)] == each for each in _DECIDED) or (path[0] == "plugins" and not _is_id(path[1:2])):
        return False
    if path[:3] == _HANDLERS:  # a handler that goes as a whole is told as such
        here = at(ours, _places(_HANDLERS, policy)[0])
        return len(path) > 4 and path[3] in here and path[4:] not in _OF_HANDLER
    value = value_of(key.value)
    if path == ("imports",):
        return not _within(value, (DROP_INS_GLOB, *policy.containerd_config.get("imports", ())))
    doubtful = path not in _USUAL and (not _effect(path) or _is_printed(path, value))
    if key.state == "default" or _stays_so(path, value, policy) or (key.state == "unknown" and doubtful):
        return False
    if path in (_BIN_DIR, _BIN_DIRS):
        return not _names_bin_dirs(policy, ours)
    written = [each for each in _places(path, policy) if each[-1] in at(ours, each[:-1])]
    if written and path in (_CONFIG_PATH, _SNAPSHOTTER, ("state",)):
        return not _within(value, (at(ours, written[0][:-1])[path[-1]],))
    return not written


def _stays_so(path: KeyPath, value: object, policy: Policy) -> bool:
    """Whether the new containerd does by itself what the old one had to be told."""
    if path == _SANDBOX:
        row = PAUSES.get(branch(parse(policy.containerd_version)))
        return row is not None and value == row.image
    if path in _USUAL:
        return _within(value, _USUAL[path])
    if path == _CONFIG_PATH:
        return value == ""
    if path == ("disabled_plugins",):  # so is the file of Docker's package: no kubelet could do with that
        return _within(value, (_CRI, CRI))
    return path in _ON_SINCE_2 and value is True and policy.config_version > 2


def _is_id(plugin: KeyPath) -> bool:
    """Whether it is none of configuration version 1, whose ids have no dot."""
    return any("." in each for each in plugin)


def _within(value: object, allowed: Collection[object]) -> bool:
    """Whether a text, or each of a list of them, is one of these: as paths, and a drop-in by any pattern."""
    every = value if isinstance(value, list) else [value]
    known = {_normal(each) for each in allowed if isinstance(each, str)}
    return all(isinstance(each, str) and _normal(each) in known for each in every)


def _normal(text: str) -> str:
    """A path without what makes no difference: /var/run is a link, and imports begin beside config.toml."""
    path = PurePosixPath(CONFIG).parent / text
    if path.is_relative_to("/var/run"):
        path = PurePosixPath("/", path.relative_to("/var"))
    return DROP_INS_GLOB if str(path.parent) == DROP_INS and path.suffix == ".toml" else str(path)


def _is_printed(path: KeyPath, value: object) -> bool:
    if path == _SANDBOX:
        return any(value == row.image for row in PAUSES.values())
    ocicrypt = any(each.startswith("io.containerd.ocicrypt.") for each in path[1:2])
    return path in _PRINTED or (path[0] == "stream_processors" and ocicrypt)


def _shortened(path: KeyPath) -> KeyPath:
    """Without what a table has as many of as the operator likes: hosts, and plugins' own settings."""
    return path if path[:3] == _HANDLERS else path[: 3 if path[0] in (_CRI, "plugins") else 2]


def _places(path: KeyPath, policy: Policy) -> tuple[KeyPath, ...]:
    """Where a key that the node told may stand in the new config.toml, the usual place first."""
    if path[0] != _CRI or len(path) == 1:
        return (path,)
    rest = path[1:] if path not in (_BIN_DIR, _BIN_DIRS) else ("cni", _bin_dirs(policy)[0])
    if policy.config_version > 2:
        plugin = CRI if rest[0] in STREAMING else IMAGES if rest[0] in OF_IMAGES else RUNTIME
        return tuple(("plugins", each, *rest) for each in dict.fromkeys((plugin, IMAGES, RUNTIME, CRI)))
    if path == _SANDBOX:
        rest = ("sandbox_image",)
    elif rest[0] in OF_IMAGES_FROM_CONTAINERD:
        rest = ("containerd", *rest)
    return (("plugins", CRI, *rest),)
