"""The nodes that are measured, with a Python on them, because Ansible needs one."""

from __future__ import annotations

from lab import Lab, LabNode, debs, mirror

SUITE = "testing"
PORT = 8000
ID_RANGE = (65536, 110 * 65536)


def settings(lab: Lab) -> dict[str, object]:
    """The policy of all nodes: everything that the deploy can set up is in it."""
    release = mirror.build(SUITE)
    return {
        "release_url": lab.serve(release, PORT).url,
        "artifact_lock": str(release.lock),
        **{f"{name}_version": release.versions(name)[0] for name in ("containerd", "runc", "crun")},
        "kubelet_id_range": ID_RANGE,
    }


def boot(lab: Lab, count: int) -> list[LabNode]:
    """Real nodes, all booting at once, each with a Python."""
    nodes = [lab.node(f"bench{number:02}", SUITE, wait=False) for number in range(1, count + 1)]
    for node in nodes:
        node.wait()
        give_python(lab, node)
    return nodes


def give_python(lab: Lab, node: LabNode) -> None:
    """Unpack Debian's python3 on a node. pyinfra needs none there; Ansible's modules are Python programs."""
    for deb in sorted(debs.for_a_node("python3").glob("*.deb")):
        lab.run(debs.laying_over(deb, node.root))
    node.ssh("python3 -c 'import json, ssl, hashlib, ctypes'")
