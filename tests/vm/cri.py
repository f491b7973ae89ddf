"""The kubelet's part, played over CRI: pods and containers with the user namespace options that a kubelet sets.

    with cri.connect(machine) as runtime:
        assert runtime.network_ready
        with runtime.pod("crun") as pod, pod.container(IMAGE, ["sleep", "600"], [cri.mount("/srv", "/srv")]) as inside:
            assert inside.exec("cat", "/proc/self/uid_map").stdout.split() == ["0", "65536", "65536"]

An error of containerd or of the runtime is a `CriError` with its own text. Whatever happens, the pod is removed.
"""

from __future__ import annotations

import secrets
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import grpc
from cri_api.v1 import api_pb2 as pb

from lab import Lab

SOCKET = "/run/containerd/containerd.sock"
FIRST_HOST_ID = 65536
IDS = 65536
# A call takes seconds in an emulated machine, and minutes where the machine around that is busy.
SECONDS = 600

Answer = TypeVar("Answer")


class CriError(Exception):
    """What containerd answered instead: `code` is gRPC's name for it, the text is containerd's own."""

    def __init__(self, code: str, details: str) -> None:
        super().__init__(details)
        self.code = code


class Machine(Protocol):
    """What a client needs of a node or VM of the lab."""

    name: str
    lab: Lab

    def ssh_command(self, command: str = "") -> list[str]: ...


@dataclass(frozen=True)
class Exec:
    """What a command in a container ended with."""

    code: int
    stdout: str
    stderr: str


def ids(first: int = FIRST_HOST_ID, count: int = IDS) -> list[pb.IDMapping]:
    """The mapping of a pod's IDs: 0 in the pod is `first` on the node."""
    return [pb.IDMapping(container_id=0, host_id=first, length=count)]


def user_namespace(first: int = FIRST_HOST_ID, count: int = IDS) -> pb.UserNamespace:
    """What a kubelet asks for where a pod has `hostUsers: false`."""
    return pb.UserNamespace(mode=pb.POD, uids=ids(first, count), gids=ids(first, count))


def mount(host_path: str, container_path: str, *, idmapped: bool = True, readonly: bool = False) -> pb.Mount:
    """A volume: idmapped, as a kubelet (1.27 and later) asks for it in a pod with a user namespace."""
    mapping = ids() if idmapped else []
    return pb.Mount(
        host_path=host_path, container_path=container_path, readonly=readonly, uidMappings=mapping, gidMappings=mapping
    )


class Cri:
    """containerd's CRI on one machine. `call` is for what has no method of its own here."""

    def __init__(self, channel: grpc.Channel, cgroup_parent: str = "system.slice") -> None:
        """`cgroup_parent` is a slice for the cgroup driver `systemd`, a path ("/lab") for `cgroupfs`."""
        self._channel = channel
        self.cgroup_parent = cgroup_parent

    def call(self, method: str, request: Any, answer: type[Answer]) -> Answer:
        """One call, by its service and name ("RuntimeService/Version"); a CriError where it fails."""
        invoke = self._channel.unary_unary(
            f"/runtime.v1.{method}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=answer.FromString,  # type: ignore[attr-defined]
        )
        try:
            answered: Answer = invoke(request, timeout=SECONDS)
        except grpc.RpcError as error:
            raise CriError(error.code().name, error.details()) from None
        return answered

    def version(self) -> pb.VersionResponse:
        """The name and version of the runtime."""
        return self.call("RuntimeService/Version", pb.VersionRequest(), pb.VersionResponse)

    def status(self, *, verbose: bool = False) -> pb.StatusResponse:
        """Conditions, runtime handlers with their features; with `verbose` also containerd's own configuration."""
        return self.call("RuntimeService/Status", pb.StatusRequest(verbose=verbose), pb.StatusResponse)

    @property
    def network_ready(self) -> bool:
        """CNI is configured."""
        return any(each.type == "NetworkReady" and each.status for each in self.status().status.conditions)

    def handlers(self) -> dict[str, bool]:
        """Each runtime handler by its name ("" is the default), and whether it claims user namespaces."""
        return {each.name: each.features.user_namespaces for each in self.status().runtime_handlers}

    def images(self) -> list[str]:
        """The names of the images that CRI knows."""
        listed = self.call("ImageService/ListImages", pb.ListImagesRequest(), pb.ListImagesResponse)
        return [tag for image in listed.images for tag in image.repo_tags]

    def pods(self) -> list[str]:
        """The IDs of all pod sandboxes, in whatever state."""
        listed = self.call("RuntimeService/ListPodSandbox", pb.ListPodSandboxRequest(), pb.ListPodSandboxResponse)
        return [pod.id for pod in listed.items]

    @contextmanager
    def pod(self, handler: str = "", userns: pb.UserNamespace | None = None, name: str = "pod") -> Iterator[Pod]:
        """Run a pod sandbox, by default in a user namespace; it is stopped and removed with all that is in it."""
        options = pb.NamespaceOption(
            network=pb.POD, pid=pb.CONTAINER, ipc=pb.POD, userns_options=userns or user_namespace()
        )
        config = pb.PodSandboxConfig(
            metadata=pb.PodSandboxMetadata(name=name, uid=secrets.token_hex(8), namespace="default"),
            hostname=name,
            log_directory="/tmp/cri-test-logs",
            linux=pb.LinuxPodSandboxConfig(
                cgroup_parent=self.cgroup_parent,
                security_context=pb.LinuxSandboxSecurityContext(namespace_options=options),
            ),
        )
        request = pb.RunPodSandboxRequest(config=config, runtime_handler=handler)
        id = self.call("RuntimeService/RunPodSandbox", request, pb.RunPodSandboxResponse).pod_sandbox_id
        try:
            yield Pod(self, id, config)
        finally:
            stop = pb.StopPodSandboxRequest(pod_sandbox_id=id)
            self.call("RuntimeService/StopPodSandbox", stop, pb.StopPodSandboxResponse)
            remove = pb.RemovePodSandboxRequest(pod_sandbox_id=id)
            self.call("RuntimeService/RemovePodSandbox", remove, pb.RemovePodSandboxResponse)


@dataclass(frozen=True)
class Pod:
    """A running pod sandbox."""

    cri: Cri
    id: str
    config: pb.PodSandboxConfig

    @contextmanager
    def container(
        self, image: str, command: Sequence[str], mounts: Sequence[pb.Mount] = (), name: str = "container"
    ) -> Iterator[Container]:
        """Create and start a container in the pod, in the pod's user namespace."""
        options = self.config.linux.security_context.namespace_options
        config = pb.ContainerConfig(
            metadata=pb.ContainerMetadata(name=name),
            image=pb.ImageSpec(image=image),
            command=command,
            log_path=f"{name}.log",
            mounts=mounts,
            linux=pb.LinuxContainerConfig(security_context=pb.LinuxContainerSecurityContext(namespace_options=options)),
        )
        create = pb.CreateContainerRequest(pod_sandbox_id=self.id, config=config, sandbox_config=self.config)
        id = self.cri.call("RuntimeService/CreateContainer", create, pb.CreateContainerResponse).container_id
        try:
            start = pb.StartContainerRequest(container_id=id)
            self.cri.call("RuntimeService/StartContainer", start, pb.StartContainerResponse)
            yield Container(self.cri, id)
        finally:
            remove = pb.RemoveContainerRequest(container_id=id)
            self.cri.call("RuntimeService/RemoveContainer", remove, pb.RemoveContainerResponse)

    @property
    def address(self) -> str:
        """Its address in the pods' network."""
        request = pb.PodSandboxStatusRequest(pod_sandbox_id=self.id)
        answer = self.cri.call("RuntimeService/PodSandboxStatus", request, pb.PodSandboxStatusResponse)
        return answer.status.network.ip


@dataclass(frozen=True)
class Container:
    """A running container."""

    cri: Cri
    id: str

    def exec(self, *words: str) -> Exec:
        """Run a command in it, as an exec probe does."""
        request = pb.ExecSyncRequest(container_id=self.id, cmd=words, timeout=SECONDS)
        done = self.cri.call("RuntimeService/ExecSync", request, pb.ExecSyncResponse)
        return Exec(done.exit_code, done.stdout.decode(), done.stderr.decode())

    @property
    def running(self) -> bool:
        """Whether it runs."""
        request = pb.ContainerStatusRequest(container_id=self.id)
        answer = self.cri.call("RuntimeService/ContainerStatus", request, pb.ContainerStatusResponse)
        return answer.status.state == pb.CONTAINER_RUNNING


@contextmanager
def connect(machine: Machine, socket: str = SOCKET, cgroup_parent: str = "system.slice") -> Iterator[Cri]:
    """A client of the containerd on a machine, through SSH."""
    # Not below build/: a socket's path has at most 107 characters.
    with tempfile.TemporaryDirectory(prefix="cri-") as directory:
        local = Path(directory, "sock")
        log = machine.lab.home / f"cri-{machine.name}.log"
        program, *rest = machine.ssh_command()
        forward = [program, "-N", "-o", "ExitOnForwardFailure=yes", "-L", f"{local}:{socket}", *rest]
        process = machine.lab.start(forward, log)
        try:
            _await(local, process, log)
            with grpc.insecure_channel(f"unix:{local}") as channel:
                yield Cri(channel, cgroup_parent)
        finally:
            process.terminate()
            process.wait()


def _await(socket: Path, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + SECONDS
    while not socket.exists():
        assert process.poll() is None, f"ssh ended:\n{log.read_text()}"
        assert time.monotonic() < end, f"ssh did not open {socket} within {SECONDS} s:\n{log.read_text()}"
        time.sleep(0.05)
