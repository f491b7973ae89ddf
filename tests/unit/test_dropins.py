"""Drop-ins in conf.d: what they do to config.toml once `imports` names them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from userns.containerd import config
from userns.containerd.config import Settings
from userns.containerd.dropins import lint
from userns.findings import Severity
from userns.node import DropIn

CRI = 'plugins."io.containerd.grpc.v1.cri"'
RUNTIME = "plugins.'io.containerd.cri.v1.runtime'"
IMAGES = "plugins.'io.containerd.cri.v1.images'"
OVERLAYFS = 'plugins."io.containerd.snapshotter.v1.overlayfs"'
PATH = "/etc/containerd/conf.d/10-mine.toml"


def ours(version: int, **other: Any) -> dict[str, Any]:
    return config.intended(
        Settings(
            version=version,
            root="/var/lib/containerd",
            cgroup_driver="systemd",
            handlers={"runc": "/usr/local/sbin/runc"},
            default_runtime="runc",
            snapshotter="overlayfs",
            **other,
        )
    )


def found(root: int, *tables: str, version: int | None = -1, **other: Any) -> list[tuple[str, str]]:
    drop_in = DropIn(path=PATH, version=root if version == -1 else version, tables=tables)
    return [(each.id, each.severity.value) for each in lint([drop_in], root, ours(root, **other))]


@pytest.mark.parametrize(
    ("root", "version", "agrees"),
    [(2, 2, True), (3, 3, True), (2, 3, False), (3, 2, False), (3, 4, False), (2, None, False), (3, None, False)],
)
def test_a_drop_in_has_the_version_of_config_toml(root: int, version: int | None, agrees: bool) -> None:
    assert found(root, version=version) == ([] if agrees else [("drop-in-version-mismatch", "blocker")])


@pytest.mark.parametrize(
    ("version", "says"), [(2, "has version = 2"), (None, "names no version, which means 1"), (4, "has version = 4")]
)
def test_the_mismatch_names_the_file_its_version_and_what_to_write(version: int | None, says: str) -> None:
    (finding,) = lint([DropIn(path=PATH, version=version)], 3, ours(3))
    assert finding.message.startswith(f"{PATH} {says}; config.toml has version = 3,")
    assert "Write `version = 3` as its first line" in finding.message
    assert finding.source


def test_an_unreadable_drop_in_is_refused_and_nothing_else_is_said_of_it() -> None:
    (finding,) = lint([DropIn(path=PATH, unreadable=True)], 3, ours(3))
    assert (finding.id, finding.severity) == ("drop-in-unreadable", Severity.BLOCKER)
    assert PATH in finding.message


@pytest.mark.parametrize(
    "header",
    [
        CRI,
        f"{CRI}.registry",
        f"[{CRI}.registry.configs]",
        f"[ {CRI} . containerd ]  # mine",
        f"[[{CRI}.things]]",
        "plugins.'io.containerd.grpc.v1.cri'.registry",
        f"{CRI}.enable_selinux ",
    ],
)
def test_containerd_1_7_takes_a_drop_ins_section_instead_of_ours(header: str) -> None:
    assert found(2, header) == [("drop-in-replaces-section", "blocker")]


def test_a_section_that_is_opened_twice_is_named_once() -> None:
    (finding,) = lint([DropIn(path=PATH, version=2, tables=(CRI, f"{CRI}.registry"))], 2, ours(2))
    assert f"{PATH} opens {CRI}, " in finding.message
    assert "containerd_config" in finding.message


def test_on_1_7_the_overlayfs_section_is_safe_while_config_toml_does_not_write_it() -> None:
    assert found(2, OVERLAYFS) == []
    extra = {"plugins": {"io.containerd.snapshotter.v1.overlayfs": {"mount_options": ["metacopy=on"]}}}
    assert found(2, OVERLAYFS, extra=extra) == [("drop-in-replaces-section", "blocker")]


@pytest.mark.parametrize(
    "header",
    [
        "plugins",
        "grpc",
        "proxy_plugins.stargz",
        'grpc."io.containerd.grpc.v1.cri"',
        'plugins."io.containerd.nri.v1.nri"',
    ],
)
def test_on_1_7_other_tables_are_left_alone(header: str) -> None:
    assert found(2, header) == []


@pytest.mark.parametrize("header", [RUNTIME, f"{RUNTIME}.containerd.runtimes.nvidia", f"{IMAGES}.registry"])
def test_on_1_7_a_table_of_a_plugin_of_containerd_2_does_nothing(header: str) -> None:
    (finding,) = lint([DropIn(path=PATH, version=2, tables=(header, header))], 2, ours(2))
    assert (finding.id, finding.severity) == ("drop-in-key-unread", Severity.WARNING)
    assert "which containerd 1.7 does not read" in finding.message
    assert 'into the setting containerd_config, under "io.containerd.grpc.v1.cri"' in finding.message


@pytest.mark.parametrize("header", [f"{RUNTIME}.containerd", f"{RUNTIME}.containerd.default_runtime_name"])
def test_containerd_2_joins_sections_and_says_whose_keys_win(header: str) -> None:
    assert found(3, header) == [("drop-in-overrides", "note")]


@pytest.mark.parametrize(
    "header",
    [
        *(RUNTIME, f"{RUNTIME}.containerd.runtimes.nvidia", OVERLAYFS, f"{RUNTIME}.cni"),
        *(CRI, f"{CRI}.x509_key_pair_streaming"),
    ],
)
def test_on_2_a_table_of_their_own_is_left_alone(header: str) -> None:
    assert found(3, header) == []


@pytest.mark.parametrize(
    ("headers", "words"),
    [
        ((f"{RUNTIME}.registry.configs.a", f"{RUNTIME}.registry.configs.b"), 'runtime".registry (containerd 2.x reads'),
        ((f"{IMAGES}.cni",), 'under "io.containerd.cri.v1.runtime")'),
        ((f"{IMAGES}.x509_key_pair_streaming",), 'under "io.containerd.grpc.v1.cri")'),
        ((f"{RUNTIME}.containerd.discard_unpacked_layers",), 'images", without .containerd)'),
        (
            (f"{CRI}.containerd.runtimes.nvidia", f"{CRI}.containerd.runtimes.nvidia.options"),
            'v1.cri".containerd (containerd 2.x reads it under "io.containerd.cri.v1.runtime")',
        ),
        ((f"{CRI}.registry.mirrors.'docker.io'",), 'registry (containerd 2.x reads it under "io.containerd.cri.v1.im'),
        ((f"{CRI}.containerd.snapshotter",), 'snapshotter (containerd 2.x reads it under "io.containerd.cri.v1.images'),
        (("plugins.cri.cni",), 'plugins.cri.cni (containerd 2.x reads it under "io.containerd.cri.v1.runtime")'),
        (("plugins.cri.x509_key_pair_streaming",), 'under "io.containerd.grpc.v1.cri")'),
    ],
)
def test_on_2_a_table_under_the_wrong_plugin_of_cri_does_nothing(headers: tuple[str, ...], words: str) -> None:
    (finding,) = lint([DropIn(path=PATH, version=3, tables=headers)], 3, ours(3))
    assert (finding.id, finding.severity) == ("drop-in-key-unread", Severity.WARNING)
    assert words in finding.message
    assert finding.message.count("containerd 2.x reads it under") == 1


@pytest.mark.parametrize(
    ("header", "written", "ids"),
    [
        (f"{IMAGES}.registry.mirrors.'docker.io'", True, ["drop-in-mirrors"]),
        (f"{IMAGES}.registry.mirrors.'docker.io'", False, []),
        (f"{IMAGES}.registry.configs.'docker.io'.auth", True, []),
        (f"{IMAGES}.registry", True, ["drop-in-overrides"]),
    ],
)
def test_mirrors_beside_the_directory_of_hosts_would_leave_no_cri(header: str, written: bool, ids: list[str]) -> None:
    assert [id for id, _ in found(3, header, registry_hosts=written)] == ids


def test_on_2_the_overlayfs_table_is_shared_where_slow_chown_is_written() -> None:
    assert found(3, OVERLAYFS, slow_chown=True) == [("drop-in-overrides", "note")]


@pytest.mark.parametrize("root", [2, 3])
@pytest.mark.parametrize("key", ["root", "state "])
def test_a_drop_in_must_not_move_containerds_directories(root: int, key: str) -> None:
    assert found(root, key) == [("drop-in-moves-root", "blocker")]


def test_each_drop_in_is_judged_in_turn() -> None:
    drop_ins = [DropIn(path=f"/{version}.toml", version=version) for version in (4, 3, 2)]
    assert [each.message.split()[0] for each in lint(drop_ins, 3, ours(3))] == ["/4.toml", "/2.toml"]


@given(st.lists(st.one_of(st.text(), st.text("[].\"' ab#\n=", max_size=9)), max_size=3), st.sampled_from([2, 3]))
def test_any_header_is_judged_or_passed_over(headers: list[str], root: int) -> None:
    lint([DropIn(path=PATH, version=root, tables=tuple(headers))], root, ours(root))
