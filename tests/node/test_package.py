"""install_from = "package" on a real node: the node's own packages, in exact versions, held."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from lab import Lab, LabNode
from lab.mirror import Mirror
from lab.serving import Served
from tests.node.runs import Operator, Run, differences, leftovers, must, start_counter, tree

COMPONENTS = ("containerd", "crun", "runc")
PROGRAMS = [
    "/usr/bin/containerd",
    "/usr/bin/containerd-shim-runc-v2",
    "/usr/bin/crun",
    "/usr/bin/ctr",
    "/usr/sbin/runc",
]
# A package that conflicts with the distribution's as Docker's own does.
DOCKERS = """
    set -e
    mkdir -p /root/docker/DEBIAN
    printf '%s\\n' 'Package: containerd.io' 'Version: 2.1.5-1' 'Architecture: all' 'Maintainer: lab <lab@localhost>' \\
        'Provides: containerd, runc' 'Conflicts: containerd, runc' 'Replaces: containerd, runc' 'Description: played' \\
        >/root/docker/DEBIAN/control
    dpkg-deb --build /root/docker /root/docker.deb
    dpkg --install /root/docker.deb
    rm -r /root/docker /root/docker.deb
"""
# What asking for packages leaves behind, and may.
APT = ("var/lib/apt/", "var/cache/apt/")


@dataclass(frozen=True)
class Packaged:
    """A node whose containerd came from packages, and the run that brought them."""

    operator: Operator
    node: LabNode
    run: Run


@pytest.fixture(scope="module")
def operator(lab: Lab, mirror: Mirror, _releases: Served, tmp_path_factory: pytest.TempPathFactory) -> Operator:
    return Operator(
        lab,
        tmp_path_factory.mktemp("package"),
        install_from="package",
        containerd_version=mirror.versions("containerd")[0],
        runc_version=mirror.versions("runc")[0],
        release_url=_releases.url,
        artifact_lock=str(mirror.lock),
        crun_version=mirror.versions("crun")[0],
    )


@pytest.fixture(scope="module")
def bare(lab: Lab, _releases: Served) -> Iterator[LabNode]:
    """A node with a package repository, and nothing from it."""
    node = lab.node("packaged")
    (node.root / "etc/apt/sources.list").write_text(f"deb [trusted=yes] {_releases.url}/debian ./\n")
    yield node
    node.stop()


@pytest.fixture(scope="module")
def refused(bare: LabNode, operator: Operator) -> tuple[Run, list[str]]:
    """A run for a version that no package has, on the bare node, and what it changed there."""
    before = tree(bare)
    run = operator.deploy(bare, containerd_version="9.9.9")
    return run, [path for path in differences(before, tree(bare)) if not path.startswith(APT)]


@pytest.fixture(scope="module")
def beside_docker(bare: LabNode, operator: Operator, refused: tuple[Run, list[str]]) -> tuple[Run, Run, str]:
    """Runs on the node while it has Docker's containerd.io: refused, and then allowed; and what is installed then."""
    bare.ssh(DOCKERS)
    runs = operator.deploy(bare), operator.deploy(bare, allow=["package-conflicts"])
    left = bare.ssh("dpkg --list containerd.io containerd runc | sed -n 's/^ii *//p'").stdout
    bare.ssh("dpkg --purge containerd.io")
    return *runs, left


@pytest.fixture(scope="module")
def packaged(bare: LabNode, operator: Operator, beside_docker: tuple[Run, Run, str]) -> Packaged:
    return Packaged(operator, bare, must(operator.deploy(bare)))


def test_a_version_that_apt_lacks_is_refused_with_what_it_offers(
    bare: LabNode, refused: tuple[Run, list[str]], mirror: Mirror
) -> None:
    run, changed = refused
    assert (run.code, run.failed) == (1, [bare.name])
    told = [line for line in run.said(bare) if "apt on this node offers no containerd 9.9.9; it offers: " in line]
    assert len(told) == 1
    assert f"it offers: {mirror.versions('containerd')[0]}" in told[0]
    assert not any(line.startswith(("Get:", "Ign:", "Hit:")) for line in run.said(bare)), "apt's chatter"
    assert changed == []


def test_dockers_packages_are_never_taken_away(bare: LabNode, beside_docker: tuple[Run, Run, str]) -> None:
    refused, allowed, left = beside_docker
    assert (refused.code, refused.findings(bare)["package-conflicts"]) == (1, "blocker")
    assert (allowed.code, allowed.findings(bare)["package-conflicts"]) == (1, "warning")
    assert "remove is disabled" in allowed.stderr  # apt's own words
    assert [line.split()[0] for line in left.splitlines()] == ["containerd.io"]


def test_the_packages_are_of_the_exact_upstream_version(packaged: Packaged, mirror: Mirror) -> None:
    lines = packaged.node.ssh(f"dpkg-query -W -f '${{Package}} ${{Version}}\\n' {' '.join(COMPONENTS)}").stdout
    installed = dict(line.split() for line in lines.splitlines())
    for component in COMPONENTS:
        version = mirror.versions(component)[0]
        assert installed[component].startswith((f"{version}+", f"{version}~", f"{version}-"))
        assert version in packaged.node.ssh(f"{component} --version").stdout


def test_the_packages_are_held(packaged: Packaged) -> None:
    assert packaged.node.ssh("apt-mark showhold").stdout.split() == list(COMPONENTS)


def test_the_handlers_are_the_packages_own_programs(packaged: Packaged) -> None:
    config = tomllib.loads(packaged.node.ssh("containerd config dump").stdout)
    runtimes = config["plugins"]["io.containerd.cri.v1.runtime"]["containerd"]["runtimes"]
    binaries = {name: each["options"]["BinaryName"] for name, each in runtimes.items()}
    assert binaries == {"runc": "/usr/sbin/runc", "crun": "/usr/bin/crun"}
    owners = packaged.node.ssh(f"dpkg-query --search {' '.join(PROGRAMS)}").stdout.splitlines()
    assert [line.split(": ")[1] for line in sorted(owners, key=lambda line: line.split(": ")[1])] == PROGRAMS


def test_the_packages_own_unit_runs_with_our_hook(packaged: Packaged) -> None:
    node = packaged.node
    shown = node.ssh("systemctl show --property FragmentPath,DropInPaths,UnitFileState,ActiveState containerd").stdout
    assert set(shown.splitlines()) == {
        "FragmentPath=/usr/lib/systemd/system/containerd.service",
        "DropInPaths=/etc/systemd/system/containerd.service.d/50-userns-node.conf",
        "UnitFileState=enabled",
        "ActiveState=active",
    }
    running = "readlink /proc/$(systemctl show --property MainPID --value containerd)/exe"
    assert node.ssh(running).stdout == "/usr/bin/containerd\n"
    assert node.ssh("ls /usr/local/bin /usr/local/sbin").stdout.split() == ["/usr/local/bin:", "/usr/local/sbin:"]
    assert node.ssh("stat -c %a /var/lib/userns-node").stdout == "700\n"


@pytest.mark.parametrize("handler", ["runc", "crun"])
def test_user_namespaces_are_proven_with_the_packages(packaged: Packaged, handler: str) -> None:
    proven = [each for each in packaged.run.said(packaged.node) if each.startswith(f"{handler}: proven")]
    assert "uid_map 0 65536 65536, an idmapped rootfs" in proven[0]
    assert leftovers(packaged.node) == []


def test_a_second_run_does_nothing(packaged: Packaged) -> None:
    before = tree(packaged.node)
    run = must(packaged.operator.deploy(packaged.node))
    assert run.json["results"]["operations"] == []
    assert differences(before, tree(packaged.node)) == []


def test_what_somebody_unheld_or_replaced_is_put_right_under_a_running_container(packaged: Packaged) -> None:
    node = packaged.node
    counter = start_counter(node, runtime="/usr/sbin/runc")
    wanted = node.ssh(f"sha256sum {' '.join(PROGRAMS)}").stdout
    node.ssh("apt-mark unhold containerd; cp /bin/true /usr/bin/crun.new; mv /usr/bin/crun.new /usr/bin/crun")
    run = must(packaged.operator.deploy(node))
    will = run.will(node)
    assert len(will) == 3
    assert will[0].startswith("hold package containerd: ")
    assert will[0].endswith("is not held, so an upgrade of the node would replace it")
    assert "install package crun" in will[1]
    assert will[1].endswith("its files are not the ones that the record names")
    assert will[2] == "restart containerd.service: new crun"
    assert node.ssh("apt-mark showhold").stdout.split() == list(COMPONENTS)
    assert node.ssh(f"sha256sum {' '.join(PROGRAMS)}").stdout == wanted
    assert counter.stopped_counting() == ""
    assert counter.gap() == ""
    counter.remove()
    assert must(packaged.operator.deploy(node)).json["results"]["operations"] == []


def test_a_node_moves_from_packages_to_releases_and_back_under_a_running_container(packaged: Packaged) -> None:
    node, operator = packaged.node, packaged.operator
    counter = start_counter(node, runtime="/usr/sbin/runc")
    shim = "/usr/local/bin/containerd-shim-runc-v2"
    running = "readlink /proc/$(systemctl show --property MainPID --value containerd)/exe"
    must(operator.deploy(node, install_from="release"))
    assert node.ssh(running).stdout == "/usr/local/bin/containerd\n"
    assert must(operator.deploy(node, install_from="release")).json["results"]["operations"] == []
    assert counter.stopped_counting() == ""
    assert counter.unknown() == ""
    assert counter.gap() == ""
    counter.remove()
    counter = start_counter(node, runtime="/usr/local/sbin/runc")
    back = must(operator.deploy(node))
    assert not any("containerd-second" in line or "containerd-unit-starts" in line for line in back.said(node))
    assert node.ssh(running).stdout == "/usr/bin/containerd\n"
    assert must(operator.deploy(node)).json["results"]["operations"] == []
    assert node.ssh("ls /usr/local/bin/containerd /etc/systemd/system/containerd.service", check=False).stdout == ""
    assert counter.stopped_counting() == ""
    assert counter.unknown() == ""
    assert counter.gap() == ""
    # containerd finds its shim again by this path alone.
    assert node.ssh(f"readlink {shim}").stdout == "/usr/bin/containerd-shim-runc-v2\n"
    counter.remove()
    # Forward over the link, and back without anybody who needs it.
    must(operator.deploy(node, install_from="release"))
    assert node.ssh(f"test ! -L {shim} && test -x {shim}").stdout == ""
    must(operator.rollback(node))
    assert node.ssh(running).stdout == "/usr/bin/containerd\n"
    assert node.ssh(f"readlink {shim}", check=False).stdout == "/usr/bin/containerd-shim-runc-v2\n"
    assert must(operator.deploy(node)).json["results"]["operations"] == []
