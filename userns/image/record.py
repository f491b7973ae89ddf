"""What an image tells of itself: image.json, for whoever has the image and not the run that baked it. Pure.

Without the clock, the build host's paths or a secret: two bakes of equal inputs give the same text.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

from userns import programs
from userns.findings import Finding
from userns.node import Node
from userns.policy import Policy
from userns.readiness import Readiness
from userns.releases import ARCHITECTURES

__all__ = ["text"]

# Paths of the build host, and its proxy. Of containerd_config the names of its tables alone: values may be passwords.
_NOT_TOLD = ("artifact_lock", "artifact_bundle", "containerd_config", "release_proxy")


def text(node: Node, policy: Policy, ready: Readiness, findings: Iterable[Finding]) -> str:
    """The JSON text: `format`, `kernel`, `readiness`, `programs`, `settings` and `findings`.

    `node` is the image with the kernel that it is baked for.
    """
    arch = ARCHITECTURES.get(node.machine, "")
    settings = {name: value for name, value in policy.to_json().items() if name not in _NOT_TOLD}
    told = {
        "format": 1,
        "machine": node.machine,
        "os": {"id": node.os_id, "version": node.os_version},
        "kernel": {
            "release": node.kernel,
            "in_image": [each.release for each in node.image.kernels] if node.image else [],
            "overlay": node.overlay.state,
        },
        "readiness": {
            "tier": ready.tier,
            "rootfs": ready.rootfs,
            "volumes": ready.volumes,
            "assumed": ready.assumed,
            "reasons": [{"statement": statement, "source": source} for statement, source in ready.reasons],
        },
        "programs": [_program(policy, component, arch) for component in policy.versions],
        "settings": settings | {"containerd_config": sorted(policy.containerd_config)},
        "findings": [
            {
                "id": each.id,
                "severity": each.severity.value,
                "allowed": each.allowed,
                "message": each.message,
                "source": each.source,
            }
            for each in findings
        ],
    }
    return json.dumps(told, indent=2, sort_keys=True, ensure_ascii=True) + "\n"


def _program(policy: Policy, component: str, arch: str) -> dict[str, object]:
    version = policy.versions[component]
    paths = [programs.paths(policy)[name] for name in programs.MEMBERS[component].values()]
    found: dict[str, object] = {"component": component, "version": version, "paths": paths}
    if arch in policy.lock.architectures(component, version):
        asset = policy.lock.asset(component, version, arch)
        found |= {"asset": asset.path, "sha256": asset.sha256}
    return found
