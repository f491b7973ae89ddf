"""containerd 1.6, of which the upstream document says that it silently ignores `hostUsers: false`: so it does."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lab import Lab, LabVM, mirror
from tests.node.runs import Operator
from tests.vm import upstream
from tests.vm.daemons import Beside, Daemon

KERNEL = "6.12"


@pytest.fixture(scope="module")
def containerd(vms: dict[str, LabVM], beside: Beside) -> Iterator[Daemon]:
    with beside.daemon(vms[KERNEL], "bookworm") as daemon:
        yield daemon


@pytest.mark.parametrize("handler", ["runc", "crun"])
def test_1_6_runs_a_pod_with_host_users_false_as_the_hosts_root_and_says_nothing(
    containerd: Daemon, handler: str
) -> None:
    with containerd.cri() as runtime:
        assert runtime.version().runtime_version.startswith("1.6.")
        with upstream.running(runtime, handler) as container:
            shown = upstream.read(container, "/proc/self/uid_map")
            assert shown.split() == ["0", "0", "4294967295"]
            assert "ovl-idmapped" not in upstream.root_mount(container)
        assert "host-users-ignored" in upstream.diagnosed(shown)
    assert {layer.owner for layer in containerd.layers().values()} == {0}


def test_1_6_says_of_no_handler_that_it_can_do_user_namespaces(containerd: Daemon) -> None:
    with containerd.cri() as runtime:
        assert runtime.handlers() == {}


def test_a_deploy_of_1_6_is_refused_by_name(
    vms: dict[str, LabVM], vm_lab: Lab, tmp_path_factory: pytest.TempPathFactory
) -> None:
    releases = mirror.build("testing", "bookworm")
    version = releases.versions("containerd")[-1]
    assert version.startswith("1.6.")
    served = vm_lab.serve(releases)
    operator = Operator(
        vm_lab,
        tmp_path_factory.mktemp("containerd16"),
        release_url=served.url,
        artifact_lock=str(releases.lock),
        containerd_version=version,
    )
    operator.timeout = 3600
    run = operator.deploy(vms[KERNEL])
    served.stop()
    assert (run.code, run.failed) == (1, [vms[KERNEL].name])
    said = "\n".join(run.said(vms[KERNEL]))
    assert f"blocker containerd-ignores-user-namespaces: containerd {version} silently ignores hostUsers: false" in said
    assert run.json["results"]["operations"] == []
