"""Settings of a node's own containerd.service: whichever our unit would take away is named, with what keeps it."""

from __future__ import annotations

from typing import Any

import pytest

from tests import nodes
from userns import paths
from userns.findings import Finding, Severity
from userns.node import FileState, Unit
from userns.reading import read

PACKAGED = "/usr/lib/systemd/system/containerd.service"
BEHIND_A_PROXY: dict[str, Any] = {"environment": ("HTTP_PROXY", "NO_PROXY"), "environment_files": ("-/etc/proxy",)}


def said(fragment: str = PACKAGED, *, file: FileState | None = None, plan: Any = None, **unit: Any) -> list[Finding]:
    """The findings for a node whose containerd.service sets these."""
    node = nodes.bare(units={"containerd": Unit(load="loaded", fragment=fragment, **unit)})
    if file:
        node = node.model_copy(update={"files": {**node.files, paths.UNIT: file}})
    found = [each for each in nodes.plan(node, **(plan or {})).findings if each.id == "unit-setting-lost"]
    assert {each.severity for each in found} <= {Severity.WARNING}
    return found


@pytest.mark.parametrize(
    ("limit", "goes"),
    [
        ("infinity", True),
        ("1048576", True),
        ("1024:1048576", True),
        ("65536:524288", True),
        ("1024:524288", False),
        ("1024", False),
        ("512", False),
        ("", False),
        ("many", False),
        ("9" * 400, False),
    ],
)
def test_a_limit_of_open_files_goes_where_it_is_higher_than_ours(limit: str, goes: bool) -> None:
    assert bool(said(limit_nofile=limit)) is goes


def test_the_limit_is_named_with_what_comes_of_it_and_the_lines_that_keep_it() -> None:
    (finding,) = said(limit_nofile="infinity")
    assert finding.message.startswith(
        f"{PACKAGED} is replaced by a containerd.service that does not have LimitNOFILE=infinity: "
        "containers that start later get 1024 open files"
    )
    assert f"write the lines below into {paths.UNIT}.d/10-kept.conf, before the deploy" in finding.message
    assert finding.lines == ("[Service]", "LimitNOFILE=infinity")
    assert "proxy, images" not in finding.message


def test_variables_are_named_and_their_lines_are_the_operators_to_copy() -> None:
    (finding,) = said(environment=BEHIND_A_PROXY["environment"])
    assert "does not have Environment= with HTTP_PROXY, NO_PROXY: where they name a proxy, images" in finding.message
    assert f"copy the Environment= lines of HTTP_PROXY, NO_PROXY from {PACKAGED}, before the deploy" in finding.message
    assert finding.lines == ()


def test_all_of_it_is_one_finding() -> None:
    (finding,) = said(limit_nofile="1048576", **BEHIND_A_PROXY)
    assert "LimitNOFILE=1048576; EnvironmentFile=-/etc/proxy; Environment= with HTTP_PROXY, NO_PROXY" in finding.message
    assert finding.lines == ("[Service]", "LimitNOFILE=1048576", "EnvironmentFile=-/etc/proxy")


def test_a_unit_of_the_operators_in_etc_goes_too_and_a_deploys_own_does_not() -> None:
    theirs = nodes.file_state("[Service]\nEnvironmentFile=-/etc/proxy\n")
    assert said(paths.UNIT, file=theirs, **BEHIND_A_PROXY)
    assert said(paths.UNIT, file=theirs.model_copy(update={"recorded": True}), **BEHIND_A_PROXY) == []


def test_a_packages_unit_that_stays_loses_nothing() -> None:
    versions = {"containerd_version": "2.1.4", "runc_version": "1.3.3"}
    assert said(limit_nofile="infinity", plan={"install_from": "package", **versions}) == []


def test_a_converged_node_has_no_such_finding() -> None:
    bare = nodes.bare(units={"containerd": Unit(load="loaded", fragment=PACKAGED, limit_nofile="infinity")})
    after = nodes.plan(nodes.converged(bare))
    assert after.changes == ()
    assert [each for each in after.findings if each.id == "unit-setting-lost"] == []


def test_what_the_node_says_of_its_unit_is_read() -> None:
    unit = Unit(load="loaded", fragment=PACKAGED, limit_nofile="infinity", **BEHIND_A_PROXY)
    assert read(nodes.answer(nodes.bare(units={"containerd": unit})).splitlines()).units["containerd"] == unit
