"""The settings: the public names of group and host data, each with its default, its reader and what it allows."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass

from userns import values
from userns.kubelet.idrange import ID_BLOCK, ID_SPACE
from userns.secret import URLS, without
from userns.tables import NEWEST_KUBERNETES
from userns.values import Reader, choice, integer, optional

__all__ = ["DEFAULTS", "FLEETS", "NEWEST_KUBERNETES", "OLDEST_KUBERNETES", "SETTINGS", "Problem", "Setting", "mask"]

# Pods with user namespaces begin with 1.25 (KEP-127).
OLDEST_KUBERNETES = "1.25"


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting. `allowed` ends the sentence that refuses a value."""

    default: object
    read: Reader
    allowed: str


SETTINGS: Mapping[str, Setting] = {
    "kubernetes_version": Setting(
        NEWEST_KUBERNETES,
        values.kubernetes(OLDEST_KUBERNETES),
        f'a string from "{OLDEST_KUBERNETES}" on (the tables know up to "{NEWEST_KUBERNETES}"), with or without a '
        'patch level ("1.33.4")',
    ),
    "containerd_version": Setting(
        None, optional(values.release(3)), 'an exact upstream version such as "2.3.4", or None: the newest locked one'
    ),
    "runc_version": Setting(
        None, optional(values.release(3)), 'an exact upstream version such as "1.4.3", or None: the newest locked one'
    ),
    "crun_version": Setting(
        None, optional(values.release(2)), 'an exact upstream version such as "1.31", or None: not installed'
    ),
    "default_runtime": Setting("runc", choice("runc", "crun"), '"runc" or "crun"'),
    "install_from": Setting("release", choice("release", "package", "bundle"), '"release", "package" or "bundle"'),
    "release_url": Setting(
        "https://github.com", values.url, "an http or https URL, the base of a mirror that keeps the upstream paths"
    ),
    "release_proxy": Setting(
        None,
        optional(values.proxy),
        'the URL of an HTTP proxy such as "http://proxy.example.internal:3128", or None',
    ),
    "artifact_lock": Setting(
        "artifacts/lock.toml", values.text, "the path of a lock file on the controller, absolute or from here"
    ),
    "artifact_bundle": Setting(
        None,
        optional(values.text),
        "the path of a bundle on the controller (from `python -m artifacts bundle`), absolute or from here, or None",
    ),
    "snapshotter": Setting(
        "overlayfs", values.plugin, 'the id of a snapshotter as `ctr plugins ls` prints it ("overlayfs")'
    ),
    "slow_chown": Setting("auto", choice("auto", True, False), '"auto", True or False'),
    "overlay_metacopy": Setting(True, choice(True, "auto", False), 'True, "auto" or False'),
    "cgroup_driver": Setting(
        "systemd", choice("systemd", "cgroupfs"), '"systemd" or "cgroupfs", as the kubelet has it'
    ),
    "sandbox_image": Setting(
        None,
        optional(values.image),
        'an image such as "registry.k8s.io/pause:3.10", or None: containerd\'s own default',
    ),
    "containerd_config": Setting(
        {}, values.toml_table, "a mapping of config.toml tables, of strings, numbers, bools, lists and mappings"
    ),
    "containerd_root": Setting("/var/lib/containerd", values.layer_path, "an absolute, normalised path on the node"),
    "kubelet_root": Setting("/var/lib/kubelet", values.path, "an absolute, normalised path on the node"),
    "max_pods": Setting(110, integer(1, 65535), "a whole number of pods, as the kubelet's maxPods has it"),
    "ids_per_pod": Setting(
        ID_BLOCK,
        integer(ID_BLOCK, ID_SPACE // 4, ID_BLOCK),
        f"a multiple of {ID_BLOCK}, as the kubelet's idsPerPod has it",
    ),
    "kubelet_id_range": Setting(
        None,
        optional(values.id_range),
        "None (the kubelet's own range) or a pair (start, count) such as (65536, 7208960)",
    ),
    "target_kernel": Setting(
        None,
        optional(values.kernel),
        'for an image, a kernel such as "6.12" or "6.12.48+deb13-amd64", or None: the newest in its /lib/modules',
    ),
    "verify_digests": Setting(False, values.boolean, "True or False"),
    "allow": Setting((), values.finding_ids, "a list of ids of findings, as the refusal printed them"),
}

DEFAULTS: Mapping[str, object] = {name: setting.default for name, setting in SETTINGS.items()}

# What fleet.py reads from the same data. It has no list to check them by, and a deploy needs none of them; they are
# here because a slip of one of them is as silent as a slip of a setting.
FLEETS = ("max_unavailable", "kubernetes_node", "fleet_region")


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a setting is refused. `value` is as it was given; printing it masks a password in a URL.

    `meant` is the setting that a name which is none was probably meant to be.
    """

    setting: str
    value: object
    message: str
    meant: str = ""

    def __str__(self) -> str:
        meant = self.meant or self.setting
        # The message names the key; the rest may hold a registry's password. `--data` gives a table as text.
        table = isinstance(self.value, Mapping) or (isinstance(self.value, str) and self.value.lstrip().startswith("{"))
        if meant == "containerd_config" or table:
            return f"{self.setting}: {self.message}"
        return f"{self.setting} = {_shown(meant, self.value)}: {self.message}"


def mask(url: str) -> str:
    """A URL without its user, password and query, for people and logs."""
    masked = re.sub(r"^([a-zA-Z][a-zA-Z0-9+.-]*:/*)?.*@", r"\1***@", url, count=1, flags=re.DOTALL)
    return re.sub(r"\?.*", "?***", masked, count=1, flags=re.DOTALL)


def _shown(setting: str, value: object) -> str:
    if isinstance(value, Mapping | list | tuple):
        value = without(value, ())  # a slip of containerd_config is shown
    if isinstance(value, str) and ("://" in value or setting in URLS):
        value = mask(value)
    try:
        return _SHORT.repr(value)
    except ValueError:  # an int of more than 4300 digits
        return f"<{type(value).__name__}>"


_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 120
