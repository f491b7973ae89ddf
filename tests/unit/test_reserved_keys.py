"""Drop-ins that set what a setting writes: what the proof is of refuses the node, the rest is a warning."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests import nodes
from tests.unit.test_dropins import PATH, ours
from userns.containerd.dropins import lint
from userns.containerd.extraconfig import IMAGES, OVERLAY, RUNTIME
from userns.containerd.reserved_keys import reserved
from userns.containerd.toml_text import KeyPath
from userns.findings import Finding
from userns.node import DropIn, ReservedKey
from userns.reading import read

HANDLERS = ("plugins", RUNTIME, "containerd", "runtimes")
RUNC = (*HANDLERS, "runc")
DEFAULT = ("plugins", RUNTIME, "containerd", "default_runtime_name")
SANDBOX = ("plugins", IMAGES, "pinned_images", "sandbox")
ROOT_PATH = ("plugins", OVERLAY, "root_path")
SLOW_CHOWN = ("plugins", OVERLAY, "slow_chown")


def drop_in(path: KeyPath, value: object, version: int = 3) -> DropIn:
    text = value.text if isinstance(value, Raw) else json.dumps(value)
    return DropIn(path=PATH, version=version, keys=(ReservedKey(path=path, value=text),))


class Raw:
    """A value as it stands in the file."""

    def __init__(self, text: str) -> None:
        self.text = text


def said(path: KeyPath, value: object, version: int = 3, **other: Any) -> list[Finding]:
    return lint([drop_in(path, value, version)], version, ours(version, **other))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ((*RUNC, "options", "BinaryName"), "/usr/bin/runc"),
        ((*RUNC, "options", "BinaryName"), Raw("?")),
        ((*RUNC, "options", "SystemdCgroup"), False),
        ((*RUNC, "options", "SystemdCgroup"), "true"),
        ((*RUNC, "runtime_type"), "io.containerd.runsc.v1"),
        ((*RUNC, "runtime_path"), "/opt/shim"),
        ((*RUNC, "snapshotter"), "native"),
        (("plugins", IMAGES, "snapshotter"), "native"),
        (ROOT_PATH, "/data"),
    ],
)
def test_what_is_proven_may_not_be_overridden(path: KeyPath, value: object) -> None:
    (finding,) = said(path, value)
    assert (finding.id, finding.severity.value) == ("drop-in-overrides-proven", "blocker")
    assert finding.message.startswith(f"{PATH} sets plugins.")
    assert f"{path[-1]} = " in finding.message


def test_the_refusal_names_both_values_and_what_to_do() -> None:
    (finding,) = said((*RUNC, "options", "BinaryName"), "/usr/bin/runc")
    assert (
        'runtimes.runc.options.BinaryName = "/usr/bin/runc" instead of "/usr/local/sbin/runc" (leave it out: it '
        "follows install_from; a program of your own needs a handler of its own). containerd takes the drop-in's, so "
        "that pods would use other programs" in finding.message
    )


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ((*RUNC, "options", "BinaryName"), "/usr/local/sbin/runc"),
        ((*RUNC, "options", "BinaryName"), Raw("'/usr/local/sbin/runc'")),
        ((*RUNC, "options", "SystemdCgroup"), True),
        ((*RUNC, "runtime_type"), "io.containerd.runc.v2"),
        ((*RUNC, "runtime_path"), ""),
        ((*RUNC, "snapshotter"), "overlayfs"),
        ((*RUNC, "snapshotter"), ""),
        (("plugins", IMAGES, "snapshotter"), "overlayfs"),
        (DEFAULT, "runc"),
        (SLOW_CHOWN, False),
        (ROOT_PATH, f"/var/lib/containerd/{OVERLAY}"),
        (("grpc", "address"), "/run/containerd/containerd.sock"),
        (("debug", "level"), "debug"),
        ((*HANDLERS, "nvidia", "options", "BinaryName"), "/usr/bin/nvidia-container-runtime"),
    ],
)
def test_the_same_value_and_what_is_not_ours_are_nothing_to_tell(path: KeyPath, value: object) -> None:
    assert said(path, value) == []


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (DEFAULT, "nvidia", 'and not with "runc"; it is not installed from here, and no proof is of it'),
        (SANDBOX, "registry.example/pause:3.10", "set sandbox_image"),
        (SLOW_CHOWN, True, "set slow_chown"),
        (("grpc", "address"), "/run/other.sock", "leave it out: the node check and the kubelet use"),
    ],
)
def test_the_rest_is_a_warning(path: KeyPath, value: object, words: str) -> None:
    (finding,) = said(path, value)
    assert (finding.id, finding.severity.value) == ("drop-in-overrides-setting", "warning")
    assert f"{path[-1]} = {json.dumps(value)} (" in finding.message
    assert words in finding.message


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (
            ("plugins", RUNTIME, "containerd", "snapshotter"),
            "native",
            'containerd.snapshotter = "native" (set snapshotter',
        ),
        (("plugins", RUNTIME, "containerd", "snapshotter"), "overlayfs", "(set snapshotter)"),
        (("plugins", RUNTIME, "sandbox_image"), "pause:1", "(set sandbox_image)"),
        (("plugins", IMAGES, "sandbox_image"), "pause:1", "(set sandbox_image)"),
        (("plugins", RUNTIME, "systemd_cgroup"), True, "(set cgroup_driver)"),
    ],
)
def test_what_containerd_does_not_read_there_is_a_warning_and_overrides_nothing(
    path: KeyPath, value: object, words: str
) -> None:
    (finding,) = said(path, value)
    assert (finding.id, finding.severity.value) == ("drop-in-key-unread", "warning")
    assert words in finding.message
    assert "instead of" not in finding.message
    assert said(path, value, 2) == []


def test_another_handler_of_ours_as_the_default_is_the_settings_matter() -> None:
    both = {"runc": "/usr/local/sbin/runc", "crun": "/usr/local/bin/crun"}
    config = {**ours(3), "plugins": {RUNTIME: {"containerd": {"default_runtime_name": "runc", "runtimes": both}}}}
    (finding,) = lint([drop_in(DEFAULT, "crun")], 3, config)
    assert (finding.id, "set default_runtime" in finding.message) == ("drop-in-overrides-setting", True)


def test_a_crun_of_a_drop_ins_own_is_one_warning() -> None:
    keys = tuple(
        ReservedKey(path=(*HANDLERS, "crun", *path), value='"x"')
        for path in (("runtime_type",), ("options", "BinaryName"), ("options", "SystemdCgroup"))
    )
    (finding,) = lint([DropIn(path=PATH, version=3, keys=keys)], 3, ours(3))
    assert finding.id == "drop-in-overrides-setting"
    assert finding.message.count("set crun_version") == 1


def test_of_containerd_17_only_what_is_no_section_of_cri_counts() -> None:
    assert said((*RUNC, "options", "BinaryName"), "/usr/bin/runc", 2) == []
    assert [each.id for each in said(ROOT_PATH, "/data", 2)] == ["drop-in-overrides-proven"]


def test_a_node_with_such_a_drop_in_is_refused_and_allow_accepts_it() -> None:
    node = nodes.bare(drop_ins=(drop_in((*RUNC, "options", "BinaryName"), "/usr/bin/runc"),))
    assert [each.id for each in nodes.plan(node).blockers] == ["drop-in-overrides-proven"]
    assert not nodes.plan(node, allow=["drop-in-overrides-proven"]).refused
    assert read(nodes.answer(node).splitlines()).drop_ins == node.drop_ins


@pytest.mark.parametrize("value", ["[1]", "{a = 1}", "nan", "?", "", "1979-05-27"])
@pytest.mark.parametrize("path", [*reserved(), ()])
def test_any_value_is_judged(path: KeyPath, value: str) -> None:
    assert len(said(path, Raw(value))) <= 1
