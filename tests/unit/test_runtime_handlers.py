"""Runtime handlers that the node's own config.toml has: whichever a deploy would take away is named, with its cure."""

from __future__ import annotations

from typing import Any

import pytest

from tests import nodes
from userns.containerd.runtime_handlers import of_tables
from userns.findings import Severity
from userns.node import DropIn

RUNTIMES = 'plugins."io.containerd.cri.v1.runtime".containerd.runtimes'
NVIDIA = {"runtime_type": "io.containerd.runc.v2", "options": {"SystemdCgroup": True, "BinaryName": "/usr/bin/nvidia"}}
V1_7: dict[str, Any] = {"kubernetes_version": "1.26", "containerd_version": "1.7.34", "runc_version": "1.2.9"}


def extra(name: str) -> dict[str, Any]:
    return {"plugins": {"io.containerd.cri.v1.runtime": {"containerd": {"runtimes": {name: NVIDIA}}}}}


def said(*handlers: str, drop_ins: tuple[DropIn, ...] = (), **settings: Any) -> list[str]:
    plan = nodes.plan(nodes.bare(handlers=handlers, drop_ins=drop_ins), **settings)
    found = [each for each in plan.findings if each.id == "runtime-handler-lost"]
    assert {each.severity for each in found} <= {Severity.WARNING}
    return [each.message for each in found]


@pytest.mark.parametrize(
    ("headers", "handlers"),
    [
        ([], ()),
        ([f"{RUNTIMES}.nvidia", f"{RUNTIMES}.nvidia.options", f"{RUNTIMES}.runc"], ("nvidia", "runc")),
        (["plugins.cri.containerd.runtimes.kata"], ("kata",)),
        ([RUNTIMES, "plugins", "[", "x.y.containerd.runtimes.no", "plugins.x.other.runtimes.no"], ()),
    ],
)
def test_a_handler_is_read_from_headers_of_any_version(headers: list[str], handlers: tuple[str, ...]) -> None:
    assert of_tables(headers) == handlers


def test_each_handler_that_goes_is_named_with_the_tables_that_keep_it() -> None:
    (message,) = said("runc", "nvidia", "kata-fc")
    assert message.startswith("config.toml has the runtime handlers nvidia, kata-fc, which the new one takes away:")
    assert f"put [{RUNTIMES}.nvidia] and [{RUNTIMES}.kata-fc] into the setting containerd_config" in message
    assert "/etc/containerd/conf.d" in message


def test_of_containerd_17_no_drop_in_is_advised_which_would_replace_the_section() -> None:
    (message,) = said("nvidia", **V1_7)
    assert 'put [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.nvidia] into the setting' in message
    assert "conf.d" not in message


def test_crun_is_kept_by_its_setting() -> None:
    (message,) = said("runc", "crun")
    assert message.endswith("To keep it: for crun, set crun_version")
    assert said("runc", "crun", crun_version="1.17") == []


@pytest.mark.parametrize("handlers", [(), ("runc",), ("runc", "nvidia")])
def test_nothing_is_said_where_nothing_goes(handlers: tuple[str, ...]) -> None:
    assert said(*handlers, containerd_config=extra("nvidia")) == []


def test_a_drop_in_that_brings_it_keeps_it() -> None:
    drop_in = DropIn(path="/etc/containerd/conf.d/99-nvidia.toml", version=3, tables=(f"{RUNTIMES}.nvidia.options",))
    assert said("nvidia", drop_ins=(drop_in,)) == []


@pytest.mark.parametrize("plugin", ["io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images", "cri"])
def test_a_drop_in_keeps_no_handler_where_containerd_2_does_not_read_it(plugin: str) -> None:
    table = f'plugins."{plugin}".containerd.runtimes.nvidia'
    drop_in = DropIn(path="/etc/containerd/conf.d/99-nvidia.toml", version=3, tables=(table,))
    assert len(said("runc", "nvidia", drop_ins=(drop_in,))) == 1


def test_a_drop_in_keeps_no_handler_where_containerd_17_does_not_read_it() -> None:
    drop_in = DropIn(path="/etc/containerd/conf.d/99-nvidia.toml", version=2, tables=(f"{RUNTIMES}.nvidia",))
    assert len(said("nvidia", drop_ins=(drop_in,), **V1_7)) == 1
