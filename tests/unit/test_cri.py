"""Requests and answers of CRI, held against what the generated code of its protocol makes and takes."""

from __future__ import annotations

from base64 import b64decode

import pytest
from cri_api.v1 import api_pb2 as pb
from hypothesis import given
from hypothesis import strategies as st

from userns.proof import cri
from userns.proof.cri import CriError, Request, read_exec, read_status

DIRECTORY = "/var/lib/kubelet/userns-node-check"
ID = "0123456789abcdef" * 4
# As containerd 2.1 answered on a node with CNI.
STATUS = b64decode(
    "AAAAAHYKTAoQCgxSdW50aW1lUmVhZHkQAQoQCgxOZXR3b3JrUmVhZHkQAQomCiJDb250YWluZXJkSGFzTm9EZXByZWNhdGlvbldhcm5pbmdzEAEa"
    "BhIECAEQARoMCgRjcnVuEgQIARABGgwKBHJ1bmMSBAgBEAEiAggB"
)


def made(**changes: object) -> dict[str, Request]:
    settings = {"handlers": ("runc", "crun"), "cgroup_parent": "system.slice", "directory": DIRECTORY} | changes
    return {each.name: each for each in cri.requests(**settings)}  # type: ignore[arg-type]


def sent(request: Request) -> bytes:
    """The frame that a node sends, with an ID where one belongs."""
    return request.head + (ID.encode() if request.tail or request.head.endswith(b"\x0a\x40") else b"") + request.tail


def message(request: Request) -> bytes:
    frame = sent(request)
    assert frame[0] == 0
    assert int.from_bytes(frame[1:5], "big") == len(frame) - 5
    return frame[5:]


def user_namespace() -> pb.NamespaceOption:
    mapping = [pb.IDMapping(host_id=65536, container_id=0, length=65536)]
    userns = pb.UserNamespace(mode=pb.POD, uids=mapping, gids=mapping)
    return pb.NamespaceOption(network=pb.POD, pid=pb.CONTAINER, ipc=pb.POD, userns_options=userns)


def sandbox(cgroup_parent: str, namespaces: pb.NamespaceOption | None = None) -> pb.PodSandboxConfig:
    name = "userns-node-check"
    security = pb.LinuxSandboxSecurityContext(namespace_options=namespaces or user_namespace())
    return pb.PodSandboxConfig(
        metadata=pb.PodSandboxMetadata(name=name, uid=name, namespace=name),
        hostname=name,
        labels={name: "yes"},
        linux=pb.LinuxPodSandboxConfig(cgroup_parent=cgroup_parent, security_context=security),
    )


@pytest.mark.parametrize("cgroup_parent", ["system.slice", "/"])
def test_a_sandbox_is_asked_for_with_the_options_that_a_kubelet_sets(cgroup_parent: str) -> None:
    for handler in ("runc", "crun"):
        wanted = pb.RunPodSandboxRequest(config=sandbox(cgroup_parent), runtime_handler=handler)
        request = made(cgroup_parent=cgroup_parent)[f"RunPodSandbox.{handler}"]
        assert message(request) == wanted.SerializeToString(deterministic=True)
        assert request.method == "runtime.v1.RuntimeService/RunPodSandbox"
        wanted.config.CopyFrom(sandbox(cgroup_parent, pb.NamespaceOption(pid=pb.CONTAINER)))
        request = made(cgroup_parent=cgroup_parent)[f"RunPodSandbox.{handler}.host"]
        assert message(request) == wanted.SerializeToString(deterministic=True)


@pytest.mark.parametrize("volumes", cri.ATTEMPTS)
def test_a_container_is_asked_for_with_idmapped_volumes(volumes: tuple[str, ...]) -> None:
    mapping = [pb.IDMapping(host_id=65536, container_id=0, length=65536)]
    config = pb.ContainerConfig(
        metadata=pb.ContainerMetadata(name="-".join(("check", *volumes))),
        image=pb.ImageSpec(image=cri.IMAGE),
        command=["/bin/sh", "-c", cri.WAITS],
        mounts=[
            pb.Mount(
                container_path=f"/{name}",
                host_path=f"{DIRECTORY}/{name}",
                selinux_relabel=True,
                uidMappings=mapping,
                gidMappings=mapping,
            )
            for name in volumes
        ],
        stdin=True,
        linux=pb.LinuxContainerConfig(
            security_context=pb.LinuxContainerSecurityContext(namespace_options=user_namespace())
        ),
    )
    wanted = pb.CreateContainerRequest(pod_sandbox_id=ID, config=config, sandbox_config=sandbox("system.slice"))
    request = made()[f"CreateContainer.{cri.volumes_name(volumes)}"]
    assert message(request) == wanted.SerializeToString(deterministic=True)


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("Status", pb.StatusRequest()),
        ("ImageStatus", pb.ImageStatusRequest(image=pb.ImageSpec(image=cri.IMAGE))),
        (
            "ListPodSandbox",
            pb.ListPodSandboxRequest(filter=pb.PodSandboxFilter(label_selector={"userns-node-check": "yes"})),
        ),
        ("StartContainer", pb.StartContainerRequest(container_id=ID)),
        ("ExecSync", pb.ExecSyncRequest(container_id=ID, cmd=["/bin/sh", "-c", cri.INSIDE], timeout=60)),
        ("StopPodSandbox", pb.StopPodSandboxRequest(pod_sandbox_id=ID)),
        ("RemovePodSandbox", pb.RemovePodSandboxRequest(pod_sandbox_id=ID)),
    ],
)
def test_every_other_call_is_as_the_protocol_has_it(name: str, wanted: object) -> None:
    request = made()[name]
    assert message(request) == wanted.SerializeToString(deterministic=True)  # type: ignore[attr-defined]
    service, _, method = request.method.rpartition("/")
    assert method == name
    # Of the generated code, so that a slip in a service's name is found, too.
    api = pb.DESCRIPTOR.services_by_name[service.removeprefix("runtime.v1.")]
    assert method in {each.name for each in api.methods}


@given(st.text(min_size=1, max_size=300), st.text(max_size=200))
def test_any_path_and_handler_is_encoded_as_the_protocol_has_it(directory: str, handler: str) -> None:
    requests = made(handlers=(handler,), directory=directory)
    sandbox_request = pb.RunPodSandboxRequest.FromString(message(requests[f"RunPodSandbox.{handler}"]))
    assert sandbox_request.runtime_handler == handler
    container = pb.CreateContainerRequest.FromString(message(requests["CreateContainer.disk+tmpfs"]))
    assert [mount.host_path for mount in container.config.mounts] == [f"{directory}/disk", f"{directory}/tmpfs"]


def test_where_kubernetes_maps_no_volumes_only_a_plain_container_is_asked_for() -> None:
    names = [name for name in made(attempts=cri.PLAIN) if name.startswith("CreateContainer")]
    assert names == ["CreateContainer.plain"]


def test_a_request_is_one_line_of_words_that_a_shell_can_read() -> None:
    for request in made().values():
        name, method, head, *tail = request.line.split(" ")
        assert (name, method) == (request.name, request.method)
        assert (b64decode(head), b64decode("".join(tail))) == (request.head, request.tail)


def test_what_containerd_says_of_itself_is_read() -> None:
    status = read_status(STATUS)
    assert [(each.type, each.status) for each in status.conditions[:2]] == [
        ("RuntimeReady", True),
        ("NetworkReady", True),
    ]
    assert dict(status.handlers) == {"": True, "crun": True, "runc": True}


def frame(message: bytes) -> bytes:
    return b"\0" + len(message).to_bytes(4, "big") + message


CONDITIONS = st.lists(st.tuples(st.text(), st.booleans(), st.text(), st.text()), max_size=4)
HANDLERS = st.lists(st.tuples(st.text(), st.booleans(), st.booleans()), max_size=4)


@given(CONDITIONS, HANDLERS, st.dictionaries(st.text(), st.text(), max_size=3))
def test_any_status_is_read_as_it_was_meant(
    conditions: list[tuple[str, bool, str, str]], handlers: list[tuple[str, bool, bool]], info: dict[str, str]
) -> None:
    answer = pb.StatusResponse(
        status=pb.RuntimeStatus(
            conditions=[
                pb.RuntimeCondition(type=type, status=status, reason=reason, message=words)
                for type, status, reason, words in conditions
            ]
        ),
        info=info,
        runtime_handlers=[
            pb.RuntimeHandler(
                name=name,
                features=pb.RuntimeHandlerFeatures(user_namespaces=userns, recursive_read_only_mounts=readonly),
            )
            for name, userns, readonly in handlers
        ],
    )
    read = read_status(frame(answer.SerializeToString()))
    assert [(each.type, each.status, each.reason, each.message) for each in read.conditions] == conditions
    assert list(read.handlers) == [(name, userns) for name, userns, _ in handlers]


@given(st.integers(0, 2**31 - 1), st.text(), st.text())
def test_any_end_of_a_command_is_read_as_it_was_meant(code: int, stdout: str, stderr: str) -> None:
    answer = pb.ExecSyncResponse(exit_code=code, stdout=stdout.encode(), stderr=stderr.encode())
    assert read_exec(frame(answer.SerializeToString())) == cri.Exec(code, stdout, stderr)


@given(st.one_of(st.binary(), st.binary().map(frame), st.integers(0, len(STATUS)).map(lambda end: STATUS[:end])))
def test_any_bytes_are_an_answer_or_an_error_of_cri(anything: bytes) -> None:
    for read in (read_status, read_exec):
        try:
            read(anything)
        except CriError:
            continue


def test_fields_that_are_not_known_are_passed_over() -> None:
    unknown = b"\x79" + b"8" * 8 + b"\x7d" + b"4444" + b"\x78\x05"
    assert read_exec(frame(unknown + pb.ExecSyncResponse(stdout=b"said").SerializeToString())).stdout == "said"


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (b"", "not one whole frame: it has 0 bytes"),
        (STATUS[:-1], "not one whole frame"),
        (b"\1" + STATUS[1:], "not one whole frame"),
        (frame(b"\x0a\x05ab"), "cut off in a field"),
        (frame(b"\x0a"), "cut off in a number"),
        (frame(b"\xff" * 11), "does not end"),
        (frame(b"\x0b"), "unknown kind 3"),
        (frame(b"\x08\x01"), "a number where a text"),
    ],
)
def test_what_is_no_answer_says_so(broken: bytes, words: str) -> None:
    with pytest.raises(CriError, match=words):
        read_status(broken)
