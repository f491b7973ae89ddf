"""The table of bad input on a node: files that lie there, and what has to be said of them (test_bad_input.py)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

CONF_D = "etc/containerd/conf.d"
CRI_2, CRI_3 = "io.containerd.grpc.v1.cri", "io.containerd.cri.v1.runtime"
IMAGES, OVERLAY = "io.containerd.cri.v1.images", "io.containerd.snapshotter.v1.overlayfs"
RANGE = (65536, 110 * 65536)
OLD = {"kubernetes_version": "1.26", "containerd_version": "1.7.34"}
NVIDIA = f"version = 3\n[plugins.'{CRI_3}'.containerd.runtimes.nvidia]\nruntime_type = 'io.containerd.runc.v2'\n"


@dataclass(frozen=True)
class OnNode:
    """A node on which these files lie: it is refused or goes on, and what is told of it has to hold all of `says`."""

    id: str
    files: Mapping[str, str | bytes]
    says: tuple[str, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)
    refused: bool = True


DROP_INS = [
    OnNode(
        "version-above-ours",
        {f"{CONF_D}/99-nvidia.toml": "version = 4\n"},
        ("drop-in-version-mismatch", "99-nvidia.toml has version = 4; config.toml has version = 3"),
    ),
    OnNode(
        "version-below-ours",
        {f"{CONF_D}/x.toml": "version = 2\n"},
        ("drop-in-version-mismatch", "x.toml has version = 2", "Write `version = 3`"),
    ),
    OnNode(
        "version-not-named",
        {f"{CONF_D}/x.toml": f"[plugins.'{OVERLAY}']\nupperdir_label = true\n"},
        ("drop-in-version-mismatch", "names no version, which means 1"),
    ),
    OnNode(
        "version-as-text", {f"{CONF_D}/x.toml": 'version = "3"\n'}, ("drop-in-version-mismatch", "names no version")
    ),
    OnNode(
        "section-replaced-on-1.7",
        {f"{CONF_D}/x.toml": f'version = 2\n[plugins."{CRI_2}".containerd]\nsnapshotter = "native"\n'},
        ("drop-in-replaces-section", "loses what stands there", "containerd_config"),
        OLD,
    ),
    OnNode(
        "root-moved",
        {f"{CONF_D}/x.toml": 'version = 3\nroot = "/elsewhere"\n'},
        ("drop-in-moves-root", "x.toml sets root"),
    ),
    OnNode(
        "nvidias-own",
        {f"{CONF_D}/99-nvidia.toml": NVIDIA},
        ("will write /etc/containerd/config.toml",),
        refused=False,
    ),
    OnNode(
        "keys-of-both",
        {f"{CONF_D}/x.toml": f"version = 3\n[plugins.'{IMAGES}']\nmax_concurrent_downloads = 5\n"},
        ("note drop-in-overrides", "containerd takes the drop-in's"),
        refused=False,
    ),
    OnNode(
        "snapshotter-of-a-drop-in",
        {f"{CONF_D}/x.toml": f"version = 3\n[plugins.'{IMAGES}']\nsnapshotter = 'native'\n"},
        ("drop-in-overrides-proven", 'snapshotter = "native" instead of "overlayfs"'),
    ),
    OnNode(
        "nvidia-as-default",
        {f"{CONF_D}/99-nvidia.toml": f"{NVIDIA}[plugins.'{CRI_3}'.containerd]\ndefault_runtime_name = 'nvidia'\n"},
        ("warning drop-in-overrides-setting", 'default_runtime_name = "nvidia"', "will write /etc/containerd/config"),
        refused=False,
    ),
    OnNode(
        "headers-within-a-string",
        {f"{CONF_D}/x.toml": 'version = 3\nnote = """\nversion = 9\n[plugins]\nroot = 5\n"""\n'},
        ("will write /etc/containerd/config.toml",),
        refused=False,
    ),
    OnNode(
        "commands-as-headers",
        {f"{CONF_D}/x.toml": "version = 3\n[$(touch canary)]\n`touch canary` = 1\n"},
        ("will write /etc/containerd/config.toml",),
        refused=False,
    ),
    OnNode("drop-in-of-bytes", {f"{CONF_D}/x.toml": b"\xff\xfe\x00version = 3\n"}, ("drop-in-version-mismatch",)),
    OnNode("drop-in-that-is-empty", {f"{CONF_D}/x.toml": ""}, ("drop-in-version-mismatch", "names no version")),
    OnNode(
        "drop-in-of-another-name",
        {f"{CONF_D}/x.toml.bak": "version = 9\n"},
        ("will write /etc/containerd/config.toml",),
        refused=False,
    ),
]

FILES = [
    OnNode(
        "config-that-is-no-toml",
        {"etc/containerd/config.toml": "[[[ by hand\n"},
        ("will write /etc/containerd/config.toml: its text differs",),
        refused=False,
    ),
    OnNode(
        "config-of-bytes",
        {"etc/containerd/config.toml": b"\x00\xff\n\x1b[2J"},
        ("will write /etc/containerd/config.toml: its text differs",),
        refused=False,
    ),
    OnNode(
        "config-with-tables-twice",
        {"etc/containerd/config.toml": "version = 3\n[debug]\n[debug]\n"},
        ("will write /etc/containerd/config.toml: its text differs",),
        refused=False,
    ),
    OnNode(
        "config-with-another-root",
        {
            "etc/containerd/config.toml": 'root = "/data/cd"\n',
            "data/cd/io.containerd.snapshotter.v1.overlayfs/snapshots/1/x": "",
        },
        ("containerd-root-moves", "/data/cd"),
    ),
    OnNode(
        "unit-with-another-root",
        {
            "etc/systemd/system/containerd.service.d/site.conf": "[Service]\nExecStart=\n"
            "ExecStart=/usr/local/bin/containerd --root /data/cd --config $(touch canary)\n",
        },
        ("containerd-ignores-config", "--root /data/cd"),
    ),
    OnNode(
        "config-with-a-command-for-root",
        {"etc/containerd/config.toml": 'root = "$(touch canary)`touch canary`"\n'},
        ("will write /etc/containerd/config.toml",),
        refused=False,
    ),
    OnNode(
        "subuid-of-nonsense",
        {
            "etc/subuid": ":::\nkubelet:x:y\n$(touch canary)\nkubelet:1\n99999999999999999999:1:1\n",
            "etc/subgid": "a:b\n",
        },
        ("will write /etc/subuid",),
        {"kubelet_id_range": RANGE},
        refused=False,
    ),
    OnNode(
        "subuid-for-a-terminal",
        {"etc/subuid": "\x1b[2J:1:2\n"},
        ("sub-id-unreadable", "Make it a file of plain text"),
        {"kubelet_id_range": RANGE},
    ),
    OnNode(
        "subuid-of-bytes",
        {"etc/subuid": b"\xff\xfe:1:2\n"},
        ("sub-id-unreadable", "/etc/subuid could not be read byte for byte"),
        {"kubelet_id_range": RANGE},
    ),
    OnNode(
        "subuid-with-somebody-in-our-range",
        {"etc/subuid": "alice:65536:65536\n", "etc/subgid": "alice:65536:65536\n"},
        ("kubelet-id-range-overlaps", "alice"),
        {"kubelet_id_range": RANGE},
    ),
    OnNode(
        "subuid-of-no-concern",
        {"etc/subuid": b"\xff\xfe:::\n"},
        ("will write /etc/containerd/config.toml",),
        refused=False,
    ),
    OnNode(
        "record-of-nonsense",
        {"var/lib/userns-node/manifest": "program\t/usr/local/bin/containerd\nfile\n\x1b[2J\n$(touch canary)\n"},
        ("will install containerd",),
        refused=False,
    ),
    OnNode(
        "os-release-of-nonsense",
        {"etc/os-release": "ID=$(touch canary)\nVERSION_ID='\x1b[2J\n"},
        ("will write /etc/containerd/config.toml",),
        refused=False,
    ),
    OnNode(
        "modprobe-line-against-us",
        {"etc/modprobe.d/x.conf": "options overlay metacopy=N\ninstall overlay /bin/false\n"},
        ("overlay",),
    ),
]

ON_NODES = [*DROP_INS, *FILES]
