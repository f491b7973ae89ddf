"""An image's bill of materials: what the deploy has installed there, as CycloneDX 1.6 JSON. Pure.

Of containerd, runc and crun alone: what the image's builder installed is for tools that read its package database.
Two bakes of equal inputs give the same text: its serial number is made of its content, and its time is that of
SOURCE_DATE_EPOCH, or none (CycloneDX asks for neither).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import import_module
from typing import TYPE_CHECKING, Any
from uuid import NAMESPACE_URL, uuid5

from userns import __version__, programs
from userns.node import Node
from userns.policy import Policy
from userns.releases import ARCHITECTURES
from userns.secret import SHOWN

if TYPE_CHECKING:
    from cyclonedx.model.component import Component

__all__ = ["text"]


@dataclass(frozen=True, slots=True)
class _Upstream:
    """Who makes a component: its repository on GitHub, how it tags a version, and its licence (SPDX)."""

    supplier: str
    owner: str
    tag: str
    licence: str


# Licences: containerd LICENSE, runc LICENSE, and crun src/crun.c (its COPYING alone does not say "or later").
_UPSTREAM: Mapping[str, _Upstream] = {
    "containerd": _Upstream("containerd", "containerd", "v{}", "Apache-2.0"),
    "runc": _Upstream("Open Container Initiative", "opencontainers", "v{}", "Apache-2.0"),
    "crun": _Upstream("Containers", "containers", "{}", "GPL-2.0-or-later"),
}


def prepare() -> None:
    """Load what `text` needs. Only an image needs it, and it takes as long as all else that a run over nodes loads."""
    for name in ("cyclonedx.model.bom", "cyclonedx.output.json", "packageurl"):
        import_module(name)


def text(node: Node, policy: Policy) -> str:
    """The JSON text for this image under this policy. Paths of the build host and passwords are not in it."""
    from cyclonedx.model.bom import Bom, BomMetaData
    from cyclonedx.model.component import Component, ComponentType
    from cyclonedx.model.lifecycle import LifecyclePhase, PredefinedLifecycle
    from cyclonedx.model.tool import ToolRepository
    from cyclonedx.output.json import JsonV1Dot6

    image = Component(
        type=ComponentType.OPERATING_SYSTEM,
        name=node.os_id or "image",
        version=node.os_version or None,
        bom_ref="image",
    )
    tool = Component(type=ComponentType.APPLICATION, name="userns-node", version=__version__, bom_ref="userns-node")
    components = [_component(node, policy, name) for name in policy.versions]
    metadata = BomMetaData(
        component=image,
        tools=ToolRepository(components=[tool]),
        lifecycles=[PredefinedLifecycle(LifecyclePhase.BUILD)],
        timestamp=datetime.fromtimestamp(0, UTC),
    )
    bom = Bom(components=components, metadata=metadata)
    bom.register_dependency(image, components)
    told: dict[str, Any] = json.loads(JsonV1Dot6(bom).output_as_string())
    epoch = node.image.epoch if node.image else None
    if epoch is None:
        del told["metadata"]["timestamp"]
    else:
        told["metadata"]["timestamp"] = f"{datetime.fromtimestamp(epoch, UTC):%Y-%m-%dT%H:%M:%SZ}"
    del told["serialNumber"]
    told["serialNumber"] = uuid5(NAMESPACE_URL, json.dumps(told, sort_keys=True)).urn
    return json.dumps(told, indent=2, sort_keys=True, ensure_ascii=True) + "\n"


def _component(node: Node, policy: Policy, name: str) -> Component:
    from cyclonedx.model import ExternalReference, ExternalReferenceType, HashAlgorithm, HashType, Property, XsUri
    from cyclonedx.model.component import Component, ComponentType
    from cyclonedx.model.contact import OrganizationalEntity
    from cyclonedx.model.license import DisjunctiveLicense
    from packageurl import PackageURL

    version, upstream = policy.versions[name], _UPSTREAM[name]
    purl = PackageURL("github", upstream.owner, name, upstream.tag.format(version))
    home = f"https://github.com/{upstream.owner}"
    links = [ExternalReference(type=ExternalReferenceType.VCS, url=XsUri(f"{home}/{name}"))]
    digests: list[HashType] = []
    arch = ARCHITECTURES.get(node.machine, "")
    if arch in policy.lock.architectures(name, version):
        asset = policy.lock.asset(name, version, arch)
        digests = [HashType(alg=HashAlgorithm.SHA_256, content=asset.sha256)]
        mirror = policy.safe_release_url.replace("***@", "")
        if SHOWN not in mirror:  # what is left of one that is a secret would be no URL
            url = XsUri(mirror + asset.path)
            links.append(ExternalReference(type=ExternalReferenceType.DISTRIBUTION, url=url, hashes=digests))
    places = [programs.paths(policy)[program] for program in programs.MEMBERS[name].values()]
    return Component(
        type=ComponentType.APPLICATION,
        name=name,
        version=version,
        bom_ref=str(purl),
        purl=purl,
        hashes=digests,
        licenses=[DisjunctiveLicense(id=upstream.licence)],
        supplier=OrganizationalEntity(name=upstream.supplier, urls=[XsUri(home)]),
        external_references=links,
        properties=[Property(name="userns-node:path", value=place) for place in places],
    )
