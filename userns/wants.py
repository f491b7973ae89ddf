"""What a policy wants of a node, as far as something there can stand in its way."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Wants"]


@dataclass(frozen=True, slots=True)
class Wants:
    """What the policy wants of a node, as far as something there can stand in its way.

    `metacopy`: on, off, or None (left as it is); `metacopy_kept_off`: the hook that is there turns it off in each boot.
    `installs`: whether this run puts programs in place; `removes`: the paths that it takes away; `confines`: whether
    the config turns SELinux on for containers. `image`: the node is a root directory that boots later; nothing that
    runs belongs to it.
    """

    kubernetes_version: str = ""
    containerd_version: str = ""
    containerd_root: str = "/var/lib/containerd"
    install_from: str = "release"
    snapshotter: str = "overlayfs"
    metacopy: bool | None = None
    metacopy_kept_off: bool = False
    max_user_namespaces: int = 0
    installs: bool = True
    removes: frozenset[str] = frozenset()
    confines: bool = False
    kubelet_id_range: tuple[int, int] | None = None
    ids_per_pod: int = 65536
    max_pods: int = 110
    image: bool = False
