"""What the proof makes of the pods that it is told about: how far it went, and what of it refuses the node."""

from __future__ import annotations

from base64 import b64encode

import pytest
from cri_api.v1 import api_pb2 as pb
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.test_proof import row, text
from userns.findings import Severity
from userns.proof import ProofError, judge, parse, pods

# As containerd 2.1.9 answered on Debian's kernels 6.1 and 6.12, with runc 1.3.6 and crun 1.28.
STATUS = (
    "cri\tAAAAAHYKTAoQCgxSdW50aW1lUmVhZHkQAQoQCgxOZXR3b3JrUmVhZHkQAQomCiJDb250YWluZXJkSGFzTm9EZXByZWNhdGlvbldhcm5pbm"
    "dzEAEaBhIECAEQARoMCgRjcnVuEgQIARABGgwKBHJ1bmMSBAgBEAEiAggB"
)
REPORT = (
    "AAAAAXQK8QJ1aWRfbWFwIDAgNjU1MzYgNjU1MzYKZ2lkX21hcCAwIDY1NTM2IDY1NTM2Cm1vdW50IHJ3LHJlbGF0aW1lIC0gb3ZlcmxheSBvdmVy"
    "bGF5IHJ3LGxvd2VyZGlyPS90bXAvb3ZsLWlkbWFwcGVkMTg3NDU4ODQzNi9mcyx1cHBlcmRpcj0vdmFyL2xpYi9jb250YWluZXJkL2lvLmNvbnRh"
    "aW5lcmQuc25hcHNob3R0ZXIudjEub3ZlcmxheWZzL3NuYXBzaG90cy8yNS9mcyx3b3JrZGlyPS92YXIvbGliL2NvbnRhaW5lcmQvaW8uY29udGFp"
    "bmVyZC5zbmFwc2hvdHRlci52MS5vdmVybGF5ZnMvc25hcHNob3RzLzI1L3dvcmsscmVkaXJlY3RfZGlyPW9uLHV1aWQ9b24Kd3JpdHRlbiB5ZXMK"
    "dm9sdW1lIGRpc2sgeWVzIHllcwp2b2x1bWUgdG1wZnMgeWVzIHllcwo="
)
DISK_REPORT = (
    "AAAAAUcKxAJ1aWRfbWFwIDAgNjU1MzYgNjU1MzYKZ2lkX21hcCAwIDY1NTM2IDY1NTM2Cm1vdW50IHJ3LHJlbGF0aW1lIC0gb3ZlcmxheSBvdmVy"
    "bGF5IHJ3LGxvd2VyZGlyPS90bXAvb3ZsLWlkbWFwcGVkNDIzNDU2NTg4NC9mcyx1cHBlcmRpcj0vdmFyL2xpYi9jb250YWluZXJkL2lvLmNvbnRh"
    "aW5lcmQuc25hcHNob3R0ZXIudjEub3ZlcmxheWZzL3NuYXBzaG90cy8yMS9mcyx3b3JrZGlyPS92YXIvbGliL2NvbnRhaW5lcmQvaW8uY29udGFp"
    "bmVyZC5zbmFwc2hvdHRlci52MS5vdmVybGF5ZnMvc25hcHNob3RzLzIxL3dvcmsKd3JpdHRlbiB5ZXMKdm9sdW1lIGRpc2sgeWVzIHllcwo="
)
NO_TMPFS = (
    "failed to create containerd task: failed to create shim task: OCI runtime create failed: runc create failed: "
    "unable to start container process: error during container init: failed to fulfil mount request: failed to set "
    "MOUNT_ATTR_IDMAP on /var/lib/kubelet/userns-node-check/tmpfs: invalid argument (maybe the filesystem used doesn't "
    "support idmap mounts on this kernel?)"
)
WHOLE = f"pod\trunc\tdisk+tmpfs\t19.07\t65536\t65536\t0:0\t0:0\t{REPORT}"
DISK = f"pod\trunc\tdisk\t2.93\t65536\t65536\t0:0\t\t{DISK_REPORT}"
FAILED = f"pod-failed\trunc\tdisk+tmpfs\tStartContainer\t2\t{NO_TMPFS} "
SANDBOX = "pod-failed\trunc\t\tRunPodSandbox\t2\tOCI runtime create failed: no"


def ids(*lines: str, volumes: str = "all", rootfs: str = "idmapped", asked: bool = True) -> list[str]:
    proof = parse(text(row(), STATUS, *lines))
    return [each.id for each in judge(proof, rootfs, volumes=volumes, idmaps_volumes=asked)]


def level(*lines: str, volumes: str = "all", asked: bool = True) -> str:
    proof = parse(text(row(), STATUS, *lines))
    [note] = [
        each for each in judge(proof, "idmapped", volumes=volumes, idmaps_volumes=asked) if each.id == "proof-level"
    ]
    assert note.severity is Severity.NOTE
    return note.message


def test_a_pod_with_volumes_is_the_most_that_can_be_proven() -> None:
    assert ids(WHOLE) == ["proof-level"]
    assert level(WHOLE) == (
        "runc: up to pod-with-volumes: a pod over CRI, with idmapped volumes in the kubelet's root and on tmpfs"
    )


def test_on_a_kernel_without_idmapped_tmpfs_a_pod_is_proven_and_the_words_for_the_rest_are_told() -> None:
    assert ids(FAILED, DISK, volumes="no-tmpfs") == ["proof-level"]
    told = level(FAILED, DISK, volumes="no-tmpfs")
    assert told.startswith("runc: up to pod: a pod over CRI with a volume in the kubelet's root. More fails, as is to")
    assert NO_TMPFS in told


def test_where_the_plan_says_that_tmpfs_works_its_failure_refuses() -> None:
    assert ids(FAILED, DISK) == ["proof-pod-failed", "proof-level"]
    proof = parse(text(row(), STATUS, FAILED, DISK))
    assert NO_TMPFS in judge(proof, "idmapped")[0].message
    assert "as is to be expected" not in level(FAILED, DISK)


def test_a_volume_that_was_not_expected_to_work_is_told() -> None:
    assert ids(WHOLE, volumes="no-tmpfs") == ["proof-better", "proof-level"]


@pytest.mark.parametrize(
    ("volumes", "rootfs", "found"),
    [
        ("all", "idmapped", ["proof-pod-failed", "proof-level"]),
        ("no-tmpfs", "idmapped", ["proof-pod-failed", "proof-level"]),
        # What the operator accepted does not refuse a second time.
        ("none", "idmapped", ["proof-level"]),
        ("all", "none", ["proof-level"]),
    ],
)
def test_a_sandbox_that_fails_refuses_where_pods_should_work(volumes: str, rootfs: str, found: list[str]) -> None:
    assert ids(SANDBOX, volumes=volumes, rootfs=rootfs) == found


def test_before_kubernetes_1_27_a_plain_pod_is_all_there_is_to_prove() -> None:
    plain = DISK.replace("\tdisk\t", "\tplain\t").replace("\t0:0\t\t", "\t\t\t")
    assert ids(plain, asked=False) == ["proof-level"]
    assert level(plain, asked=False).endswith("this Kubernetes asks for no idmapped volumes")
    assert ids(SANDBOX, asked=False) == ["proof-pod-failed", "proof-level"]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("no-pod\tkubelet\t", "a kubelet runs on this node, and ends every pod that it does not know"),
        ("no-pod\ttools\tthe node has no curl", "CRI cannot be spoken to: the node has no curl"),
        ("no-pod\tpause\tregistry.k8s.io/pause:3.10: dial 100%25", "pulled: registry.k8s.io/pause:3.10: dial 100%"),
        ("no-pod\todd\t", "not more: odd"),
    ],
)
def test_why_no_pod_was_tried_is_told_and_refuses_nothing(line: str, words: str) -> None:
    assert ids(line) == ["proof-level"]
    assert level(line).startswith("runc: up to container: a container, through ctr, and not more: ")
    assert level(line).endswith(words)


def test_a_kubelet_that_came_before_the_expected_container_leaves_nothing_known() -> None:
    assert ids(FAILED, "no-pod\tkubelet\tit started meanwhile", volumes="no-tmpfs") == ["proof-level"]


def test_a_handler_that_containerd_does_not_vouch_for_is_refused_by_kubelets() -> None:
    status = "cri\t" + "AAAAAA4aDAoEcnVuYxIECAEQAA=="  # runc, without user namespaces
    found = [each.id for each in judge(parse(text(row(), status, WHOLE)), "idmapped")]
    assert found == ["proof-handler-unclaimed", "proof-level"]


def said_of(claims: dict[str, bool]) -> str:
    """A Status with these handlers, and whether each one claims user namespaces."""
    handlers = [
        pb.RuntimeHandler(name=name, features=pb.RuntimeHandlerFeatures(user_namespaces=claimed))
        for name, claimed in claims.items()
    ]
    message = pb.StatusResponse(runtime_handlers=handlers).SerializeToString()
    return "cri\t" + b64encode(b"\0" + len(message).to_bytes(4, "big") + message).decode()


@pytest.mark.parametrize(
    ("claims", "said"),
    [
        ({"runc": True, "": True}, None),
        ({"runc": True, "runsc": False, "": False}, "pods without a RuntimeClass: "),
        ({"runc": False, "": False}, "runc: "),
    ],
)
def test_the_handler_of_pods_without_a_runtime_class_is_judged_too(claims: dict[str, bool], said: str | None) -> None:
    """A drop-in may have made another one the default."""
    status = said_of(claims)
    found = [each for each in judge(parse(text(row(), status, WHOLE)), "idmapped") if each.id != "proof-level"]
    assert [each.message.startswith(said or "-") for each in found] == ([True] if said else [])


@pytest.mark.parametrize(
    ("claims", "knows"),
    [({"crun": True, "": True}, "It knows crun. "), ({}, "It names none, as containerd 1.x does. ")],
)
def test_a_handler_that_containerd_does_not_name_is_none_that_a_kubelet_uses(
    claims: dict[str, bool], knows: str
) -> None:
    """ctr is given the runtime's path, so that its container says nothing of the config."""
    found = judge(parse(text(row(), said_of(claims), WHOLE)), "idmapped")
    assert [each.id for each in found] == ["proof-handler-unclaimed", "proof-level"]
    assert "the containerd that runs does not know this handler" in found[0].message
    assert knows in found[0].message


def test_containerd_1_7_names_no_handler_and_its_kubelets_ask_of_none() -> None:
    plain = DISK.replace("\tdisk\t", "\tplain\t").replace("\t0:0\t\t", "\t\t\t")
    proof = parse(text(row(), said_of({}), plain))
    assert [each.id for each in judge(proof, "idmapped", idmaps_volumes=False)] == ["proof-level"]
    # Nor does it refuse a second time what the operator accepted.
    assert [each.id for each in judge(proof, "none")] == ["proof-level"]


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        ("\t65536\t65536\t", "\t0\t0\t", {"proof-host-uid", "proof-pod-failed"}),
        ("\t65536\t65536\t", "\t65536\t0\t", {"proof-owner", "proof-pod-failed"}),
        ("\t65536\t65536\t", "\t\t\t", {"proof-host-uid", "proof-pod-failed"}),
        ("\t0:0\t0:0\t", "\t0:0\t65536:65536\t", {"proof-volume", "proof-pod-failed"}),
        ("\t0:0\t0:0\t", "\t0:0\t\t", {"proof-volume", "proof-pod-failed"}),
        (REPORT, "AAAAAAIYAQ==", {"proof-uid-map", "proof-gid-map", "proof-volume", "proof-not-writable"}),
    ],
)
def test_a_pod_that_runs_but_not_as_it_should_is_no_proof(old: str, new: str, found: set[str]) -> None:
    assert found <= set(ids(WHOLE.replace(old, new)))
    assert "up to container" in level(WHOLE.replace(old, new))


@pytest.mark.parametrize(
    "line",
    [
        "pod\trunc\tdisk",
        WHOLE.replace("disk+tmpfs", "floppy"),
        WHOLE.replace("19.07", "soon"),
        WHOLE.replace(REPORT, "AAAA"),
        WHOLE.replace(REPORT, "no base64!"),
        "pod-failed\trunc\tfloppy\tStartContainer\t2\tno",
        "pod-failed\trunc",
        "cri\tAAAA",
        "no-pod\tkubelet",
    ],
)
def test_a_broken_line_is_a_proof_error(line: str) -> None:
    with pytest.raises(ProofError):
        parse(text(row(), line))


FIELD = st.one_of(
    st.sampled_from(["runc", "disk", "disk+tmpfs", "plain", "", "0:0", "65536", "1.0", "nan", "²", REPORT, "A", "2"]),
    st.text(max_size=6),
)
LINE = st.tuples(st.sampled_from(["pod", "pod-failed", "no-pod", "cri", "row"]), st.lists(FIELD, max_size=9))


@given(st.lists(LINE.map(lambda line: row() if line[0] == "row" else "\t".join((line[0], *line[1]))), max_size=5))
def test_any_lines_about_pods_are_judged_or_are_a_proof_error(lines: list[str]) -> None:
    try:
        proof = parse(text(*lines))
    except ProofError:
        return
    for rootfs in ("idmapped", "chown", "none"):
        for volumes in ("all", "no-tmpfs", "none"):
            for finding in judge(proof, rootfs, volumes=volumes):
                assert finding.message
    assert isinstance(proof.summary, tuple)
    assert proof.pods.level("runc") in (pods.CONTAINER, pods.POD, pods.POD_WITH_VOLUMES)
