"""containerd 1.7 for Kubernetes 1.26 on a real node: refused where it must be, chowned where it may be, upgraded."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from lab import Lab, LabNode
from lab.mirror import Mirror
from tests.node.runs import Operator, Run, differences, leftovers, must, start_counter, tree

CRI = "io.containerd.grpc.v1.cri"


@dataclass(frozen=True)
class Old:
    """The oldest containerd and runc of the mirror, and a node for them."""

    operator: Operator
    node: LabNode
    containerd: str
    runc: str

    def deploy(self, kubernetes: str, *allow: str) -> Run:
        """Deploy them for this Kubernetes."""
        return self.operator.deploy(
            self.node,
            kubernetes_version=kubernetes,
            containerd_version=self.containerd,
            runc_version=self.runc,
            sandbox_image="lab.invalid/pause:1",
            allow=list(allow),
        )


@pytest.fixture(scope="module")
def old(lab: Lab, mirror_with_stable: Mirror, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Old]:
    mirror = mirror_with_stable
    served = lab.serve(mirror)
    operator = Operator(
        lab,
        tmp_path_factory.mktemp("containerd17"),
        release_url=served.url,
        artifact_lock=str(mirror.lock),
        crun_version=mirror.versions("crun")[0],
    )
    node = lab.node("old")
    containerd, runc = mirror.versions("containerd")[-1], mirror.versions("runc")[-1]
    assert containerd.startswith("1.7.")
    assert runc.startswith("1.1.")
    yield Old(operator, node, containerd, runc)
    node.stop()
    served.stop()


def acceptable(run: Run) -> list[str]:
    """The ids that a refusal says an operator may accept."""
    found = re.search(r"What the operator may accept: allow = (\[.*\])", run.stderr)
    assert found
    ids: list[str] = json.loads(found[1])
    return ids


@pytest.fixture(scope="module")
def refusal(old: Old) -> tuple[Run, list[str]]:
    """What an operator gets who allows nothing, and what that changed."""
    before = tree(old.node)
    run = old.deploy("1.26")
    return run, differences(before, tree(old.node))


@pytest.fixture(scope="module")
def deployed(old: Old, refusal: tuple[Run, list[str]]) -> Run:
    """The run that an operator makes who accepts each advisory by its id."""
    return must(old.deploy("1.26", *acceptable(refusal[0])))


def test_for_kubernetes_1_33_it_is_refused_by_name(old: Old) -> None:
    before = tree(old.node)
    run = old.deploy("1.33")
    said = "\n".join(run.said(old.node))
    assert (run.code, run.failed) == (1, [old.node.name])
    assert (
        f"blocker containerd-too-old-for-kubernetes: containerd {old.containerd} refuses the idmapped volumes" in said
    )
    assert "containerd-too-old-for-kubernetes" in acceptable(run)
    assert differences(before, tree(old.node)) == []


def test_for_kubernetes_1_26_only_its_advisories_refuse_it(old: Old, refusal: tuple[Run, list[str]]) -> None:
    run, changed = refusal
    assert (run.code, run.failed) == (1, [old.node.name])
    assert {id.partition("-")[0] for id in acceptable(run)} == {"advisory"}
    assert changed == []


def test_what_is_allowed_is_still_told(old: Old, deployed: Run, refusal: tuple[Run, list[str]]) -> None:
    for id in acceptable(refusal[0]):
        assert any(line.startswith(f"warning {id} ") for line in deployed.said(old.node))
    assert any(line.startswith("tier chown: ") for line in deployed.said(old.node))


def test_its_config_is_of_version_2_and_it_knows_every_key(old: Old, deployed: Run) -> None:
    assert old.containerd in old.node.ssh("containerd --version").stdout
    written = tomllib.loads(old.node.ssh("cat /etc/containerd/config.toml").stdout)
    assert written["version"] == 2
    assert set(written["plugins"]) == {CRI}, "no slow_chown, which it would not know"
    dumped = old.node.ssh("containerd config dump")
    assert "unknown key" not in dumped.stderr.lower()
    journal = old.node.ssh("journalctl --quiet --unit containerd --output cat").stdout
    assert "unknown key" not in journal.lower()
    cri = tomllib.loads(dumped.stdout)["plugins"][CRI]
    assert cri["sandbox_image"] == "lab.invalid/pause:1"
    assert cri["containerd"]["snapshotter"] == "overlayfs"
    for name, binary in (("runc", "/usr/local/sbin/runc"), ("crun", "/usr/local/bin/crun")):
        options = cri["containerd"]["runtimes"][name]["options"]
        assert (options["BinaryName"], options["SystemdCgroup"]) == (binary, True)


@pytest.mark.parametrize("handler", ["runc", "crun"])
def test_the_proof_shows_a_chowned_rootfs(old: Old, deployed: Run, handler: str) -> None:
    proven = [line for line in deployed.said(old.node) if line.startswith(f"{handler}: proven")]
    assert len(proven) == 1
    assert "uid_map 0 65536 65536, a chowned copy of the rootfs" in proven[0]


def test_a_second_run_does_nothing(old: Old, deployed: Run, refusal: tuple[Run, list[str]]) -> None:
    again = must(old.deploy("1.26", *acceptable(refusal[0])))
    assert again.json["results"]["operations"] == []
    assert leftovers(old.node) == []


def test_it_is_upgraded_to_containerd_2_under_a_running_container(old: Old, deployed: Run) -> None:
    node = old.node
    counter = start_counter(node)
    run = must(old.operator.deploy(node))
    will = run.will(node)
    assert f"/usr/local/bin/containerd is {old.containerd}" in will[0]
    assert f"/usr/local/sbin/runc is {old.runc}" in will[1]
    assert will[-1] == "restart containerd.service: new containerd, runc"
    assert tomllib.loads(node.ssh("cat /etc/containerd/config.toml").stdout)["version"] == 3
    assert "remap-ids" in node.ssh("ctr plugins ls -d id==overlayfs").stdout
    proven = [line for line in run.said(node) if ": proven" in line]
    assert len(proven) == 2
    assert all("an idmapped rootfs" in line for line in proven)
    assert counter.stopped_counting() == ""
    assert counter.gap() == ""
    assert counter.unknown() == ""
    assert must(old.operator.deploy(node)).json["results"]["operations"] == []
