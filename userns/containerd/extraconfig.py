"""`containerd_config`: the operator's own tables of config.toml, checked against the settings that write the rest.

Which plugin ids apply follows containerd's version: 1.x reads configuration version 2, where CRI is one plugin; 2.x
reads version 3, where it is split in two and only its streaming server keeps the old id (containerd
docs/cri/config.md; the split of the keys: plugins/cri/images/plugin.go, configMigration).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping

from userns.containerd.toml_text import KeyPath
from userns.paths import DROP_INS_GLOB

__all__ = ["UNREAD", "contradictions", "literal", "right_plugin"]

CRI = "io.containerd.grpc.v1.cri"
RUNTIME = "io.containerd.cri.v1.runtime"
IMAGES = "io.containerd.cri.v1.images"
# CRI's ids before containerd 2.x, the latest first.
OLD_IDS = (CRI, "cri")
OVERLAY = "io.containerd.snapshotter.v1.overlayfs"
REGISTRY = ("plugins", IMAGES, "registry")
RUNC_TYPE = "io.containerd.runc."

# A key that a setting writes, and what to do instead.
TAKEN: Mapping[KeyPath, str] = {
    ("version",): "leave it out: it follows containerd_version",
    ("root",): "set containerd_root, which is what gets probed too",
    ("state",): "leave it out: the node check and the kubelet look for containerd in /run/containerd",
    ("grpc", "address"): "leave it out: the node check and the kubelet use /run/containerd/containerd.sock",
    ("plugins", OVERLAY, "slow_chown"): "set slow_chown",
    ("plugins", OVERLAY, "root_path"): "set containerd_root: the snapshots stay below it, where the probes look",
    ("plugins", CRI, "sandbox_image"): "set sandbox_image",
    ("plugins", CRI, "systemd_cgroup"): "set cgroup_driver",
    ("plugins", CRI, "containerd", "snapshotter"): "set snapshotter",
    ("plugins", CRI, "containerd", "default_runtime_name"): "set default_runtime",
    # Deprecated, and what it says replaces default_runtime_name (containerd v1.7 pkg/cri/config/config.go).
    ("plugins", CRI, "containerd", "default_runtime"): "set default_runtime",
    ("plugins", IMAGES, "snapshotter"): "set snapshotter",
    ("plugins", IMAGES, "pinned_images", "sandbox"): "set sandbox_image",
    ("plugins", RUNTIME, "containerd", "default_runtime_name"): "set default_runtime",
}
# The same within runtimes.runc and runtimes.crun.
TAKEN_OF_HANDLER: Mapping[KeyPath, str] = {
    ("runtime_type",): "leave it out: runc and crun are started by the shim io.containerd.runc.v2",
    ("runtime_path",): "leave it out: the shim is the one installed with containerd",
    ("snapshotter",): "set snapshotter",
    (
        "options",
        "BinaryName",
    ): "leave it out: it follows install_from; a program of your own needs a handler of its own",
    ("options", "SystemdCgroup"): "set cgroup_driver",
}
# Where containerd 2.x reads none of these, however near it looks: it warns of an unknown key in its log, and goes on.
UNREAD: Mapping[KeyPath, str] = {
    ("plugins", RUNTIME, "sandbox_image"): "set sandbox_image",
    ("plugins", RUNTIME, "snapshotter"): "set snapshotter",
    ("plugins", RUNTIME, "systemd_cgroup"): "set cgroup_driver",
    ("plugins", RUNTIME, "containerd", "snapshotter"): "set snapshotter",
    ("plugins", RUNTIME, "containerd", "default_runtime"): "set default_runtime",
    ("plugins", IMAGES, "sandbox_image"): "set sandbox_image",
}
# Which of its plugins reads what in configuration version 3 (containerd v2.3.4 internal/cri/config/config.go): the
# streaming server, under the old id, the images, and the runtime.
STREAMING = {
    "disable_tcp_service",
    "stream_server_address",
    "stream_server_port",
    "stream_idle_timeout",
    "enable_tls_streaming",
    "x509_key_pair_streaming",
}
# Those that stood in the table `containerd` before.
OF_IMAGES_FROM_CONTAINERD = {"snapshotter", "disable_snapshot_annotations", "discard_unpacked_layers"}
OF_IMAGES = {
    *OF_IMAGES_FROM_CONTAINERD,
    "registry",
    "image_decryption",
    "max_concurrent_downloads",
    "concurrent_layer_fetch_buffer",
    "image_pull_progress_timeout",
    "image_pull_with_sync_fs",
    "stats_collect_period",
    "sandbox_image",
    "pinned_images",
    "runtime_platforms",
    "use_local_image_pull",
}
OF_RUNTIME = {
    "containerd",
    "cni",
    "enable_selinux",
    "selinux_category_range",
    "max_container_log_line_size",
    "disable_apparmor",
    "restrict_oom_score_adj",
    "disable_proc_mount",
    "unset_seccomp_profile",
    "tolerate_missing_hugetlb_controller",
    "disable_hugetlb_controller",
    "device_ownership_from_security_context",
    "ignore_image_defined_volumes",
    "netns_mounts_under_state_dir",
    "enable_unprivileged_ports",
    "enable_unprivileged_icmp",
    "enable_cdi",
    "cdi_spec_dirs",
    "drain_exec_sync_io_timeout",
    "ignore_deprecation_warnings",
}
# Overlay options that switch metacopy off without a word (Linux fs/overlayfs/params.c).
AGAINST_METACOPY = re.compile(r"userxattr|nfs_export=on|redirect_dir=(?!on$).*")


def contradictions(
    config: Mapping[str, object],
    *,
    config_version: int,
    cgroup_driver: str,
    snapshotter: str,
    overlay_metacopy: object,
    crun: bool,
    transfer_service: bool,
) -> Iterator[str]:
    """Each thing in `config` that a setting says otherwise, with the setting to use.

    `transfer_service`: by default CRI pulls images by it, as from containerd 2.1 on.
    """
    for path, instead in TAKEN.items():
        if (value := _at(config, path)) is not None:
            yield f"{_dotted(path)} = {literal(value)}: {instead}"
    yield from _not_tables(config)
    yield from _lists(config, snapshotter)
    yield from _plugin_ids(config, config_version)
    yield from _mount_options(config, overlay_metacopy)
    yield from _registries(config, config_version)
    if transfer_service:
        yield from _hosts_of_registries(config)
    for id in (CRI, RUNTIME):
        runtimes = _at(config, ("plugins", id, "containerd", "runtimes"))
        if isinstance(runtimes, Mapping):
            for name, handler in runtimes.items():
                yield from _handler(("plugins", id, "containerd", "runtimes", name), handler, cgroup_driver, crun)


def _not_tables(config: Mapping[str, object]) -> Iterator[str]:
    """What stands where a table of ours has to be."""
    runtimes = [("plugins", id, "containerd", "runtimes", "") for id in (CRI, RUNTIME)]
    mirrors = [("plugins", id, "registry", "mirrors", "") for id in (CRI, IMAGES)]
    above = {path[:length]: None for path in (*TAKEN, *runtimes, *mirrors) for length in range(1, len(path))}
    for path in above:
        value = _at(config, path)
        if value is not None and not isinstance(value, Mapping):
            yield f"{_dotted(path)}: this must be a table"


def _lists(config: Mapping[str, object], snapshotter: str) -> Iterator[str]:
    """The two lists at the top that could take away what this project relies on."""
    imports = config.get("imports")
    if imports is not None and (not isinstance(imports, list) or DROP_INS_GLOB not in imports):
        yield f'imports: keep "{DROP_INS_GLOB}" in the list, or the drop-ins of other tools are no longer read'
    needed = {CRI: "CRI", "cri": "CRI", RUNTIME: "CRI", IMAGES: "CRI"}
    needed[f"io.containerd.snapshotter.v1.{snapshotter}"] = "the snapshotter"
    disabled = config.get("disabled_plugins")
    for id in disabled if isinstance(disabled, list) else ():
        if isinstance(id, str) and id in needed:
            yield f'disabled_plugins: take out "{id}": the kubelet needs {needed[id]}'


def _plugin_ids(config: Mapping[str, object], config_version: int) -> Iterator[str]:
    """Plugin ids that this version of the configuration does not know: containerd would not say a word."""
    plugins = config.get("plugins", {})
    for id, table in plugins.items() if isinstance(plugins, Mapping) else ():
        where = _dotted(("plugins", id))
        if "." not in id:
            yield f'{where}: a plugin id is one key with its dots, such as "{OVERLAY}"'
        elif not isinstance(table, Mapping):
            if id not in (CRI, RUNTIME, IMAGES, OVERLAY):
                yield f"{where}: this must be a table"
        elif config_version == 2 and id in (RUNTIME, IMAGES):
            yield f'{where}: containerd 1.x reads its CRI settings under "{CRI}"'
        elif config_version == 3 and id == CRI:
            for key in table:
                if key not in STREAMING and ("plugins", id, key) not in TAKEN:
                    yield f"{where}.{key}: containerd 2.x reads it under {_right_id(key, table[key])}"
        elif config_version == 3 and id in (RUNTIME, IMAGES):
            yield from _misplaced(("plugins", id), table)
        elif id.startswith("io.containerd.server.v1."):
            yield f"{where}: this id is of configuration version 4; write the table at the top ([grpc], [debug], …)"


def _misplaced(path: KeyPath, table: Mapping[str, object]) -> Iterator[str]:
    """What CRI's other plugin reads, or none any more: an operator would believe in a setting that is none."""
    for key, value in table.items():
        here = (*path, key)
        if here in UNREAD:
            yield f"{_dotted(here)} = {literal(value)}: containerd 2.x reads no such key there: {UNREAD[here]}"
        elif right := right_plugin(here):
            right = _right_id(key, value) if key == "containerd" else right
            yield f"{_dotted(here)}: containerd 2.x reads it under {right}"
        elif here == ("plugins", RUNTIME, "containerd") and isinstance(value, Mapping):
            yield from _misplaced(here, value)


def right_plugin(path: KeyPath) -> str:
    """Where containerd 2.x reads a key of the plugins of CRI that stands at `path`; "" where it stands right."""
    match path:
        case ("plugins", str(id), key, *_) if id in (RUNTIME, IMAGES, "cri") and key in STREAMING:
            return f'"{CRI}"'
        case ("plugins", str(id), key, *_) if id in (RUNTIME, *OLD_IDS) and key in OF_IMAGES:
            return f'"{IMAGES}"'
        case ("plugins", str(id), "containerd", key, *_) if (
            id in (RUNTIME, *OLD_IDS) and key in OF_IMAGES_FROM_CONTAINERD
        ):
            return f'"{IMAGES}", without .containerd'
        case ("plugins", str(id), key, *_) if id == IMAGES and key in OF_RUNTIME:
            return f'"{RUNTIME}"'
        case ("plugins", str(id), key, *_) if id in OLD_IDS and key not in STREAMING:
            return f'"{RUNTIME}"'
    return ""


def _right_id(key: str, table: object) -> str:
    if key in OF_IMAGES:
        return f'"{IMAGES}"'
    if key == "containerd" and isinstance(table, Mapping) and OF_IMAGES_FROM_CONTAINERD & set(table):
        moved = ", ".join(sorted(OF_IMAGES_FROM_CONTAINERD & set(table)))
        return f'"{RUNTIME}" ({moved}: "{IMAGES}", without .containerd)'
    return f'"{RUNTIME}"'


def _mount_options(config: Mapping[str, object], overlay_metacopy: object) -> Iterator[str]:
    options = _at(config, ("plugins", OVERLAY, "mount_options"))
    for option in options if isinstance(options, list) else ():
        where = f"{_dotted(('plugins', OVERLAY, 'mount_options'))} has {literal(option)}"
        if str(option).startswith("metacopy"):
            yield f"{where}: set overlay_metacopy"
        elif overlay_metacopy is not False and AGAINST_METACOPY.fullmatch(str(option)):
            yield f"{where}, which switches metacopy off: take it out, or set overlay_metacopy = False"


def _registries(config: Mapping[str, object], config_version: int) -> Iterator[str]:
    """Both ways to say where registries are, which 1.7 (ValidatePluginConfig) and 2.x (ValidateImageConfig) refuse."""
    registry = ("plugins", IMAGES if config_version > 2 else CRI, "registry")
    if _at(config, (*registry, "mirrors")) and _at(config, (*registry, "config_path")):
        yield (
            f"{_dotted((*registry, 'mirrors'))}: with config_path beside it CRI does not load, and the kubelet has no "
            "runtime: take one of the two out"
        )


def _hosts_of_registries(config: Mapping[str, object]) -> Iterator[str]:
    """A list of directories, which the transfer service takes for the path of one (containerd/containerd#12808)."""
    path = (*REGISTRY, "config_path")
    value = _at(config, path)
    if isinstance(value, str) and ":" in value and not _at(config, ("plugins", IMAGES, "use_local_image_pull")):
        yield (
            f"{_dotted(path)} = {literal(value)}: name one directory: of several, containerd would ignore every "
            f"hosts.toml without a word. Or set {_dotted((*path[:2], 'use_local_image_pull'))} = true"
        )


def _handler(path: KeyPath, handler: object, cgroup_driver: str, crun: bool) -> Iterator[str]:
    """One runtime handler: ours may be extended, another's must agree on the cgroup driver."""
    name = path[-1]
    if not isinstance(handler, Mapping):
        yield f"{_dotted(path)}: this must be a table"
        return
    if not isinstance(handler.get("options", {}), Mapping):
        yield f"{_dotted((*path, 'options'))}: this must be a table"
        return
    if name in ("runc", "crun"):
        for key, instead in TAKEN_OF_HANDLER.items():
            if (value := _at(handler, key)) is not None:
                yield f"{_dotted(path + key)} = {literal(value)}: {instead}"
        if name == "crun" and not crun:
            yield f"{_dotted(path)}: set crun_version, which brings this handler, or give your own another name"
        return
    type_ = handler.get("runtime_type")
    ours = type_ is None or (isinstance(type_, str) and type_.startswith(RUNC_TYPE))
    wanted = cgroup_driver == "systemd"
    found = _at(handler, ("options", "SystemdCgroup"))
    if ours and (False if found is None else found) is not wanted:
        yield (
            f"{_dotted((*path, 'options', 'SystemdCgroup'))} must be {literal(wanted)} as cgroup_driver is "
            f'"{cgroup_driver}": every handler of the type io.containerd.runc.v2 has to use the same cgroup driver '
            f"(it is {'not set, which means false' if found is None else literal(found)})"
        )


def _at(table: object, path: KeyPath) -> object:
    """The value at `path`, or None where there is none (TOML has no null)."""
    for key in path:
        if not isinstance(table, Mapping):
            return None
        table = table.get(key)
    return table


def _dotted(path: KeyPath) -> str:
    """Like `spelled` in merge.py, and in ASCII: nobody has looked yet whether these keys are text at all."""
    return ".".join(key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else json.dumps(key) for key in path)


def literal(value: object) -> str:
    """A TOML scalar as it is written; a table is not shown."""
    return json.dumps(value)[:80] if isinstance(value, str | int | float) else "…"
