"""Conflicts: what containerd.service starts, with which configuration and root, and other containerds beside it."""

from __future__ import annotations

import pytest

from tests.unit.test_conflicts import NODE, found, node, unit, wants
from userns import paths
from userns.findings import Severity
from userns.node import Binary, ExecDropIn, Package

SITE = "/etc/containerd/site.toml"
DROP_IN = f"{paths.UNIT}.d/20-site.conf"


def test_a_distributions_own_unit_is_no_conflict_for_a_release_which_hides_it() -> None:
    packaged = unit(load="loaded", fragment="/lib/systemd/system/containerd.service", exec_start="/usr/bin/containerd")
    assert found(node(units=packaged)) == {}


def test_a_unit_that_starts_another_binary_is_told() -> None:
    drop_in = unit(load="loaded", fragment=paths.UNIT, exec_start="/opt/containerd/bin/containerd --config /x")
    said = found(node(units=drop_in))["containerd-unit-starts-another"].message
    assert "/opt/containerd/bin/containerd" in said
    stale = unit(load="loaded", fragment=paths.UNIT, exec_start="/usr/local/bin/containerd")
    assert "containerd-unit-starts-another" in found(node(units=stale), wants(install_from="package"))


def test_a_second_containerd_is_left_alone_and_told() -> None:
    both = NODE.binaries | {"/usr/bin/containerd": Binary(version="1.7.24"), "/usr/bin/ctr": Binary()}
    said = found(node(binaries=both, packages={"containerd.io": Package(version="1.7.24-1")}))["containerd-second"]
    assert said.severity is Severity.NOTE
    assert "/usr/bin/containerd (1.7.24) of the package containerd.io" in said.message


def test_a_containerd_of_ours_that_this_run_takes_away_is_no_second_one() -> None:
    stale = unit(load="loaded", fragment=paths.UNIT, exec_start="/usr/local/bin/containerd")
    both = NODE.binaries | {"/usr/bin/containerd": Binary(version="1.7.24")}
    leaving = wants(install_from="package", removes=frozenset({paths.UNIT, "/usr/local/bin/containerd"}))
    assert found(node(units=stale, binaries=both), leaving) == {}


def test_containerd_does_not_leave_a_root_that_holds_something() -> None:
    some = found(node(other_root="/srv/containerd"), wants(containerd_root="/var/lib/containerd"))
    assert some["containerd-root-moves"].severity is Severity.BLOCKER
    assert "in /srv/containerd, and containerd_root is /var/lib/containerd" in some["containerd-root-moves"].message


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"config": SITE}, f"--config {SITE}: {paths.CONFIG}, which is written here, is never read"),
        ({"root": "/data"}, "--root /data: its root is not containerd_root"),
        ({"config": SITE, "root": "/data"}, f"--config {SITE} --root /data: {paths.CONFIG}"),
    ],
)
def test_a_drop_in_whose_command_line_takes_another_config_or_root_blocks(options: dict[str, str], said: str) -> None:
    """It stays when the unit is replaced: what is written and proven would not be what runs."""
    drop_in = ExecDropIn(path=DROP_IN, program=paths.INSTALLED["containerd"], **options)
    some = found(node(exec_drop_ins=(drop_in,), config_option=drop_in.config))
    assert list(some) == ["containerd-ignores-config"]
    assert some["containerd-ignores-config"].severity is Severity.BLOCKER
    assert f"{DROP_IN} starts containerd with {said}" in some["containerd-ignores-config"].message


def test_a_drop_in_whose_command_line_agrees_is_none_of_ours() -> None:
    program = paths.INSTALLED["containerd"]
    drop_in = ExecDropIn(path=DROP_IN, program=program, config=paths.CONFIG, root="/var/lib/containerd/")
    assert found(node(exec_drop_ins=(drop_in,), config_option=paths.CONFIG)) == {}


def test_of_several_drop_ins_the_last_one_counts() -> None:
    program = paths.INSTALLED["containerd"]
    first = ExecDropIn(path=f"{paths.UNIT}.d/10-site.conf", program=program, config=SITE)
    last = ExecDropIn(path="/run/systemd/system/containerd.service.d/90.conf", program=program)
    assert found(node(exec_drop_ins=(last, first))) == {}


def test_a_drop_in_that_starts_another_binary_is_told_before_the_unit_is_ours() -> None:
    packaged = unit(load="loaded", fragment="/lib/systemd/system/containerd.service", exec_start="/opt/containerd")
    drop_in = ExecDropIn(path=DROP_IN, program="/opt/containerd")
    said = found(node(units=packaged, exec_drop_ins=(drop_in,)))["containerd-unit-starts-another"].message
    assert f"({DROP_IN}) starts /opt/containerd and not" in said


def test_a_unit_whose_config_lies_elsewhere_is_told_that_it_counts_no_more() -> None:
    kops = unit(load="loaded", fragment="/lib/systemd/system/containerd.service", exec_start="/usr/bin/containerd")
    some = found(node(units=kops, config_option=SITE))
    assert {id: each.severity.value for id, each in some.items()} == {"containerd-config-elsewhere": "warning"}
    assert f"by {SITE} now. After this run it reads {paths.CONFIG}" in some["containerd-config-elsewhere"].message


def test_a_packages_unit_stays_and_so_does_what_its_command_line_names() -> None:
    packaged = unit(load="loaded", fragment=paths.UNIT, exec_start=paths.PACKAGED["containerd"])
    some = found(node(units=packaged, config_option=SITE), wants(install_from="package"))
    assert some["containerd-ignores-config"].severity is Severity.BLOCKER
    some = found(node(units=packaged, root_option="/data"), wants(install_from="package"))
    assert f"{paths.UNIT} starts containerd with --root /data" in some["containerd-ignores-config"].message
    leaving = wants(install_from="package", removes=frozenset({paths.UNIT}))
    assert "containerd-ignores-config" not in found(node(units=packaged, config_option=SITE), leaving)
