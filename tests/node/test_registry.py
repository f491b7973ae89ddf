"""A kubelet's pull of an image, over CRI, from a registry that the operator's hosts.toml leads to."""

from __future__ import annotations

from pathlib import Path

import pytest
from cri_api.v1 import api_pb2 as pb

from lab import Lab
from lab.mirror import Mirror
from lab.serving import Served
from tests.node import registry
from tests.node.conftest import BootNode
from tests.node.runs import Operator, image, must
from tests.vm import cri

HOSTS = f"""
server = "https://registry.invalid"
[host."{registry.url()}"]
capabilities = ["pull", "resolve"]
"""
IMAGES = "io.containerd.cri.v1.images"
NATIVE = "/var/lib/containerd/io.containerd.snapshotter.v1.native/snapshots"


@pytest.fixture
def operator(lab: Lab, mirror: Mirror, releases: Served, tmp_path: Path) -> Operator:
    return Operator(lab, tmp_path, release_url=releases.url, artifact_lock=str(mirror.lock))


def pull(runtime: cri.Cri, name: str) -> str:
    """The ID of the image that was pulled."""
    request = pb.PullImageRequest(image=pb.ImageSpec(image=name))
    return runtime.call("ImageService/PullImage", request, pb.PullImageResponse).image_ref


def test_an_image_is_pulled_from_where_hosts_toml_says_with_each_snapshotter(
    lab: Lab, operator: Operator, fresh_node: BootNode
) -> None:
    """Nothing has to be set for it. Another snapshotter than overlayfs needs a pull without the transfer service."""
    node = fresh_node()
    must(operator.deploy(node))
    node.ssh("mkdir -p /etc/containerd/certs.d/registry.invalid")
    node.put("/etc/containerd/certs.d/registry.invalid/hosts.toml", HOSTS.encode())
    with registry.serving(lab, image(node, "registry.invalid/check:1")) as requests:
        with cri.connect(node) as runtime:
            assert pull(runtime, "registry.invalid/check:1").startswith("sha256:")
        assert "/v2/check/manifests/1\n" in requests.read_text()
        must(operator.deploy(node, snapshotter="native"))
        with cri.connect(node) as runtime:
            assert pull(runtime, "registry.invalid/other:2").startswith("sha256:")
        assert "/v2/other/manifests/2\n" in requests.read_text()
    assert node.ssh(f"ls {NATIVE}/*/bin/sh").returncode == 0


def test_mirrors_in_the_old_way_are_left_to_work(lab: Lab, operator: Operator, fresh_node: BootNode) -> None:
    mirrors = {"mirrors": {"registry.invalid": {"endpoint": [registry.url()]}}}
    node = fresh_node()
    must(operator.deploy(node, containerd_config={"plugins": {IMAGES: {"registry": mirrors}}}))
    with registry.serving(lab, image(node, "registry.invalid/check:1")), cri.connect(node) as runtime:
        assert pull(runtime, "registry.invalid/check:1").startswith("sha256:")
