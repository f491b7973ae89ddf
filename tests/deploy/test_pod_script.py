"""`pod.sh` against a fake CRI: when pods are tried and when not, what is asked, and that nothing is left.

What a real containerd makes of the requests is proven on real kernels, in tests/vm.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cri_api.v1 import api_pb2 as pb

from tests.conftest import program
from tests.deploy.pod_node import CHECK, CONTAINER, FOREIGN, PAUSE, SANDBOX, Node, running
from userns.proof import Proof, cri, judge, parse

pytestmark = pytest.mark.usefixtures("as_root")


@pytest.fixture(params=["dash", "busybox sh"])
def node(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Node]:
    shell = request.param.split()
    program(shell[0])
    with running(tmp_path, shell) as node:
        yield node


def ids(proof: Proof, volumes: str = "all", rootfs: str = "idmapped") -> list[str]:
    return [each.id for each in judge(proof, rootfs, volumes=volumes)]


def level(proof: Proof) -> str:
    """The one note on how far the proof went, which has to be about all handlers."""
    notes = [each.message for each in judge(proof, "idmapped") if each.id == "proof-level"]
    assert len(notes) == 1, notes
    assert notes[0].startswith("runc, crun: up to ")
    return notes[0].removeprefix("runc, crun: up to ")


WHOLE = ["RunPodSandbox", "CreateContainer", "StartContainer", "ExecSync"]


def test_a_pod_with_all_volumes_is_proven_with_each_handler(node: Node) -> None:
    proof = node.prove()
    assert ids(proof) == ["proof-level"]
    assert level(proof).startswith("pod-with-volumes: ")
    methods = node.methods
    assert methods[:3] == ["Status", "ListPodSandbox", "ImageStatus"]
    assert methods[3:8] == [*WHOLE, "ListPodSandbox"]
    assert methods[8:13] == [*WHOLE, "ListPodSandbox"]
    handlers = [
        pb.RunPodSandboxRequest.FromString(raw).runtime_handler for name, raw in node.sent if name == "RunPodSandbox"
    ]
    assert handlers == ["runc", "crun"]


def test_ids_reach_the_requests_that_are_about_them(node: Node) -> None:
    node.prove()
    sent = dict(node.sent)
    create = pb.CreateContainerRequest.FromString(sent["CreateContainer"])
    assert create.pod_sandbox_id == SANDBOX
    assert [mount.host_path for mount in create.config.mounts] == [f"{node.volumes}/disk", f"{node.volumes}/tmpfs"]
    assert pb.StartContainerRequest.FromString(sent["StartContainer"]).container_id == CONTAINER
    assert pb.ExecSyncRequest.FromString(sent["ExecSync"]).container_id == CONTAINER


def test_only_pods_of_the_check_are_listed_and_each_of_them_is_ended(node: Node) -> None:
    item = pb.PodSandbox(id=SANDBOX, metadata=pb.PodSandboxMetadata(name=cri.NAME), labels={cri.NAME: "yes"})
    node.answers("ListPodSandbox", pb.ListPodSandboxResponse(items=[item, pb.PodSandbox(id=FOREIGN)]))
    node.prove()
    sent = node.sent
    listed = pb.ListPodSandboxRequest.FromString(dict(sent)["ListPodSandbox"])
    assert dict(listed.filter.label_selector) == {cri.NAME: "yes"}
    ended = [pb.StopPodSandboxRequest.FromString(raw).pod_sandbox_id for name, raw in sent if name == "StopPodSandbox"]
    assert ended[:2] == [SANDBOX, FOREIGN]


def test_where_a_volume_fails_the_next_container_has_fewer(node: Node) -> None:
    words = "failed to set MOUNT_ATTR_IDMAP on /x: invalid argument (maybe 100%25)"
    (node.path / "behaviour").write_text(f"""status='0 '
        case $method in
        StartContainer) [ "$(ls "$here"/sent/*.ExecSync 2>/dev/null)" ] || [ -e "$here/once" ] ||
            status='2 {words}'; : >"$here/once" ;;
        esac
    """)
    node.attempts = cri.ATTEMPTS
    proof = node.prove()
    # As the first handler's first container failed, its second one was tried; the other handler's was not.
    creates = [pb.CreateContainerRequest.FromString(raw) for name, raw in node.sent if name == "CreateContainer"]
    assert [len(each.config.mounts) for each in creates] == [2, 1, 2]
    assert ids(proof, "all")[0] == "proof-pod-failed"
    assert "(maybe 100%)" in judge(proof, "idmapped")[0].message
    # Of a node that has no idmapped tmpfs that is to be expected.
    assert "proof-pod-failed" not in ids(proof, "no-tmpfs")


@pytest.mark.parametrize(
    ("method", "words"),
    [("RunPodSandbox", "no pod today"), ("CreateContainer", "no snapshot"), ("ExecSync", "no exec")],
)
def test_a_pod_that_fails_is_a_blocker_with_the_words_of_containerd(node: Node, method: str, words: str) -> None:
    text = f"case $method in {method}) status='2 {words}' ;; esac"
    if method == "RunPodSandbox":  # without a user namespace it starts
        text += '\n! grep -q "$(printf \'\\200\\200\\4\')" "$request" && status="0 "'
    (node.path / "behaviour").write_text(f"status='0 '\n{text}\n")
    proof = node.prove()
    blockers = [each for each in judge(proof, "idmapped") if each.id == "proof-pod-failed"]
    assert len(blockers) == 2
    assert all(words in each.message for each in blockers)
    # Of a node that the operator accepted as it is, nothing was expected.
    assert "proof-pod-failed" not in ids(proof, rootfs="none")


def test_a_pod_that_fails_without_a_user_namespace_too_is_no_fault_of_user_namespaces(node: Node) -> None:
    node.fails("RunPodSandbox", "cpu.weight: no such file")
    proof = node.prove()
    assert ids(proof) == ["proof-level"]
    assert "neither with a user namespace nor without one: cpu.weight: no such file" in level(proof)


def test_what_runs_but_not_as_it_should_proves_nothing(node: Node) -> None:
    said = "uid_map 0 0 4294967295\ngid_map 0 65536 65536\nmount rw - overlay overlay lowerdir=/tmp/ovl-idmapped1/fs\n"
    said += "written yes\nvolume disk no yes\n"
    node.answers("ExecSync", pb.ExecSyncResponse(stdout=said.encode()))
    found = ids(node.prove())
    assert {"proof-uid-map", "proof-volume", "proof-pod-failed"} <= set(found)


NOT_READY = pb.RuntimeCondition(type="NetworkReady", reason="NetworkPluginNotReady", message="cni is not there")


def test_without_a_network_no_pod_is_tried(node: Node) -> None:
    node.answers("Status", pb.StatusResponse(status=pb.RuntimeStatus(conditions=[NOT_READY])))
    proof = node.prove()
    assert (
        level(proof) == "container: a container, through ctr, and not more: pods have no network here: cni is not there"
    )
    assert node.methods == ["Status", "ListPodSandbox"]


def test_a_network_plugin_that_fails_is_no_fault_of_user_namespaces(node: Node) -> None:
    node.fails("RunPodSandbox", 'failed to setup network for sandbox "1": the cluster is not there')
    assert level(node.prove()).endswith("the cluster is not there")


@pytest.mark.parametrize("unit", ["kubelet", "k3s", "k3s-agent", "snap.microk8s.daemon-kubelite"])
def test_while_the_unit_of_a_kubelet_is_active_no_pod_is_tried(node: Node, unit: str) -> None:
    each = f"[ $name = {unit}.service ] && echo activating || echo inactive"
    node.program("systemctl", f"#!/bin/sh\nshift\nfor name; do {each}; done\n")
    assert level(node.prove()).endswith("a kubelet runs on this node, and ends every pod that it does not know")
    assert "RunPodSandbox" not in node.methods


@pytest.mark.parametrize("name", ["kubelet", "kubelite", "k3s-server", "k3s-agent"])
def test_while_the_process_of_a_kubelet_runs_no_pod_is_tried(node: Node, name: str) -> None:
    shutil.copy("/bin/sleep", node.path / name)
    with subprocess.Popen([node.path / name, "infinity"]) as kubelet:
        assert "a kubelet runs" in level(node.prove())
        kubelet.kill()
    assert "RunPodSandbox" not in node.methods


def test_a_kubelet_that_starts_meanwhile_makes_a_failure_mean_nothing(node: Node) -> None:
    (node.path / "behaviour").write_text("""status='0 '
        [ $method != StartContainer ] ||
            { status='2 killed'; printf '#!/bin/sh\necho active\n' >"$here/bin/systemctl"; }
    """)
    proof = node.prove()
    assert ids(proof) == ["proof-level"]
    assert level(proof).endswith(": it started meanwhile")
    assert [method for method in node.methods if method == "RunPodSandbox"] == ["RunPodSandbox"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("printf 'curl 7.29.0\nFeatures: Largefile\n' >curl-version", "the node's curl has no HTTP/2"),
        ("echo '12 unknown service runtime.v1.RuntimeService' >fails/Status", "CRI gave no answer: unknown service"),
    ],
)
def test_without_a_way_to_cri_the_level_is_container(node: Node, change: str, words: str) -> None:
    subprocess.run(["sh", "-c", change], cwd=node.path, check=True)
    assert words in level(node.prove())


def test_a_pause_image_that_is_there_is_left_alone(node: Node) -> None:
    before = node.known_images
    node.prove()
    assert node.known_images == before


def test_a_pause_image_that_had_to_be_pulled_goes_again(node: Node) -> None:
    node.images("docker.io/library/other:1 sha256:9")
    pull = f"""status='0 '; [ $method != RunPodSandbox ] || grep -q pause "$here/k8s" ||
        printf '{PAUSE} sha256:2\nsha256:3 sha256:2\n' >>"$here/k8s"\n"""
    (node.path / "behaviour").write_text(pull)
    assert level(node.prove()).startswith("pod-with-volumes")
    assert node.known_images == ["docker.io/library/other:1 sha256:9"]


def test_a_pause_image_that_cannot_be_pulled_is_named(node: Node) -> None:
    node.images()
    node.fails("RunPodSandbox", "failed to resolve image: dial tcp: no route")
    proof = node.prove()
    assert f"could not be pulled: {PAUSE}: failed to resolve image" in level(proof)
    assert node.methods.count("RunPodSandbox") == 1


def test_a_call_that_hangs_is_given_up_and_no_further_pod_is_tried(node: Node) -> None:
    node.fails("CreateContainer", "context deadline exceeded", code=4)
    proof = node.prove()
    assert "proof-pod-failed" in ids(proof)
    assert node.methods.count("RunPodSandbox") == node.methods.count("CreateContainer") == 1


def test_directories_above_the_volumes_stay_where_they_were(node: Node) -> None:
    kubelet_root = node.volumes.parent
    kubelet_root.mkdir(parents=True)
    (kubelet_root / "config.yaml").touch()
    done = subprocess.run(node.command, env=node.environment, capture_output=True, text=True, timeout=300, check=False)
    assert level(parse(done.stdout)).startswith("pod-with-volumes")
    assert [path.name for path in kubelet_root.iterdir()] == ["config.yaml"]


def wait_for(node: Node, method: str) -> None:
    end = time.monotonic() + 240
    while method not in node.methods:
        assert time.monotonic() < end
        time.sleep(0.05)


# In the midst of a pod it waits until it is let go; the other calls answer.
SLOW = """status='0 '
    if [ "$method" = ExecSync ]; then
        while [ ! -e "$here/go" ] && kill -0 $PPID; do sleep 0.05; done
    fi
"""


@pytest.mark.usefixtures("signals_are_heard")
@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_with_all_of_it_cleaned(node: Node, number: signal.Signals) -> None:
    (node.path / "behaviour").write_text(SLOW)
    with subprocess.Popen(
        node.command, env=node.environment, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        wait_for(node, "ExecSync")
        process.send_signal(number)
        (node.path / "go").touch()
        output = process.communicate(timeout=240)[0]
    assert parse(output).untried == f"stopped by {number.name}"
    assert list((node.path / "tmp").iterdir()) == []
    assert not (node.path / "var").exists()
    assert node.known_images == [f"{PAUSE} sha256:2", "sha256:3 sha256:2"]
    assert node.methods[-1] == "ListPodSandbox"


def test_the_next_run_takes_away_what_a_killed_one_left(node: Node) -> None:
    (node.path / "behaviour").write_text(SLOW)
    node.images()  # so that the pause image is one that was pulled, too
    pull = f"[ $method != RunPodSandbox ] || printf '{PAUSE} sha256:2\n' >>\"$here/k8s\"\n"
    (node.path / "behaviour").write_text(SLOW + pull)
    with subprocess.Popen(
        node.command, env=node.environment, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        wait_for(node, "ExecSync")
        os.killpg(process.pid, signal.SIGKILL)
    assert (node.volumes / "disk").is_dir()
    assert [name.split()[0] for name in node.known_images] == [CHECK, PAUSE]
    item = pb.PodSandbox(id=SANDBOX, labels={cri.NAME: "yes"})
    node.answers("ListPodSandbox", pb.ListPodSandboxResponse(items=[item]))
    (node.path / "behaviour").write_text("status='0 '\n")
    node.program("systemctl", "#!/bin/sh\necho inactive\n")
    node.fails("RunPodSandbox", "failed to resolve image")
    proof = node.prove()
    assert "pulled" in level(proof)
    assert node.known_images == []
    assert "RemovePodSandbox" in node.methods
