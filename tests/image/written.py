"""What a bake leaves in a tree: the same whatever the tree, and whoever built it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.image import trees
from userns import paths

RANGE = (1_048_576, 7_208_960)
WANTS = "/etc/systemd/system/multi-user.target.wants"
UNITS = ("containerd", "userns-node-check", "userns-node-first-boot")
# Without the kubelet's range.
PLAIN = {
    *(path for name, path in paths.INSTALLED.items() if name != "crun"),
    *(set(paths.MANAGED) | set(paths.IMAGE)) - {paths.SUBUID, paths.SUBGID},
    *(f"{WANTS}/{unit}.service" for unit in UNITS),
    *("/etc/containerd", "/etc/systemd/system/containerd.service.d", paths.LIBEXEC, paths.STATE, paths.MANIFEST),
}
# With it. The last line is what useradd writes.
WRITTEN = {
    *PLAIN,
    *(paths.SUBUID, paths.SUBGID),
    *(f"/etc/{name}{end}" for name in ("passwd", "shadow", "group", "gshadow") for end in ("", "-")),
}
# Directories that Debian has from 13 on, and until 12 (later only with a package that not every image has).
NOT_EVERYWHERE = {"/usr/local/libexec", "/etc/sysctl.d"}
USERADDS_OWN = {"/etc/.pwd.lock", "/etc/subuid-", "/etc/subgid-"}


def by(before: Mapping[str, str], root: Path) -> set[str]:
    """The paths that are not as `before`, but for what useradd keeps for itself."""
    return trees.changed(before, trees.look(root)) - USERADDS_OWN - NOT_EVERYWHERE


def enabled(root: Path) -> set[str]:
    """The units of ours that will start at boot, and are there to be started."""
    links = {unit: root / WANTS.lstrip("/") / f"{unit}.service" for unit in UNITS}
    return {
        unit
        for unit, link in links.items()
        if link.is_symlink() and (root / str(link.readlink()).lstrip("/")).is_file()
    }


def record(root: Path) -> dict[str, Any]:
    """What the image tells of itself."""
    found: dict[str, Any] = json.loads((root / paths.IMAGE_RECORD.lstrip("/")).read_text())
    return found
