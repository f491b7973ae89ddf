"""CRI, the kubelet's side of it: the requests of a pod in a user namespace as bytes for gRPC, and answers read back.

The bytes are written here and not by PyPI's `container-runtime-interface-api`, because importing that loads grpcio: a
native library of 15 MB with threads of its own in a process that gevent runs. What is asked for is a few dozen fields
of Protocol Buffers, which never change their numbers; tests compare every request with what that package makes of it.

A node sends them with curl: a unary call of gRPC is a POST of one frame over HTTP/2.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

IMAGE = "userns-node.invalid/check:1"
NAME = "userns-node-check"
FIRST_HOST_ID = 65536
IDS = 65536
# containerd's IDs of sandboxes and containers: 64 hexadecimal digits.
ID_LENGTH = 64

# The volumes of each container that is tried in a pod, the one that asks for most first.
Volumes = tuple[str, ...]
ATTEMPTS: tuple[Volumes, ...] = (("disk", "tmpfs"), ("disk",), ())
PLAIN: tuple[Volumes, ...] = ((),)

# What a shell in the container says of it. It has no other program than itself, so builtins only.
INSIDE = """\
uid="" gid="" root="" written=no
while read -r a b c; do uid="${uid:+$uid, }$a $b $c"; done </proc/self/uid_map
while read -r a b c; do gid="${gid:+$gid, }$a $b $c"; done </proc/self/gid_map
while read -r a a a a at how; do [ "$at" != / ] || root=$how; done </proc/self/mountinfo
(: >/written) 2>/dev/null && written=yes
printf "%s\\n" "uid_map $uid" "gid_map $gid" "mount $root" "written $written"
for volume in disk tmpfs; do
    [ -e "/$volume/seed" ] || continue
    owned=no written=no
    [ -O "/$volume/seed" ] && owned=yes
    (: >"/$volume/written") 2>/dev/null && written=yes
    printf "%s\\n" "volume $volume $owned $written"
done
"""
# The container's own process: it waits for a line that nobody sends.
WAITS = "read -r a"


class CriError(ValueError):
    """These bytes are not the answer that was expected."""


def _varint(number: int) -> bytes:
    low, rest = number & 0x7F, number >> 7
    return bytes([low]) if not rest else bytes([low | 0x80]) + _varint(rest)


def _number(field: int, value: int) -> bytes:
    """A field that is a number, an enumeration or a truth. Zero is left out, as proto3 does it."""
    return _varint(field << 3) + _varint(value) if value else b""


def _bytes(field: int, value: str | bytes) -> bytes:
    """A field that is a text, or a message made of other fields. An empty text is left out, a message never is."""
    raw = value.encode() if isinstance(value, str) else value
    return b"" if value == "" else _varint(field << 3 | 2) + _varint(len(raw)) + raw


_MAPPING = _number(1, FIRST_HOST_ID) + _number(2, 0) + _number(3, IDS)
# NamespaceOption: a pod's own network and IPC, a PID namespace for each container; then also mapped IDs.
_NAMESPACES = _number(2, 1)
_USER_NAMESPACE = _NAMESPACES + _bytes(5, _bytes(2, _MAPPING) + _bytes(3, _MAPPING))


def _sandbox(cgroup_parent: str, namespaces: bytes = _USER_NAMESPACE) -> bytes:
    """PodSandboxConfig."""
    metadata = _bytes(1, NAME) + _bytes(2, NAME) + _bytes(3, NAME)
    linux = _bytes(1, cgroup_parent) + _bytes(2, _bytes(1, namespaces))
    return _bytes(1, metadata) + _bytes(2, NAME) + _bytes(6, _label()) + _bytes(8, linux)


def _label() -> bytes:
    return _bytes(1, NAME) + _bytes(2, "yes")


def _container(volumes: Volumes, directory: str) -> bytes:
    """ContainerConfig. Volumes are idmapped and relabelled for SELinux, as a kubelet asks for its own."""
    mounts = [
        _bytes(1, f"/{name}")
        + _bytes(2, f"{directory}/{name}")
        + _number(4, 1)
        + _bytes(6, _MAPPING)
        + _bytes(7, _MAPPING)
        for name in volumes
    ]
    return (
        _bytes(1, _bytes(1, "-".join(("check", *volumes))))
        + _bytes(2, _bytes(1, IMAGE))
        + b"".join(_bytes(3, word) for word in ("/bin/sh", "-c", WAITS))
        + b"".join(_bytes(7, mount) for mount in mounts)
        + _number(12, 1)
        + _bytes(15, _bytes(2, _bytes(3, _USER_NAMESPACE)))
    )


@dataclass(frozen=True, slots=True)
class Request:
    """One call. Where it names a sandbox or a container, that ID belongs between `head` and `tail`."""

    name: str
    method: str
    head: bytes
    tail: bytes = b""

    @property
    def line(self) -> str:
        """What the script on the node reads: fields separated by one space, bytes in base64."""
        return " ".join((self.name, self.method, b64encode(self.head).decode(), b64encode(self.tail).decode())).rstrip()


def _call(name: str, message: bytes = b"", service: str = "RuntimeService") -> Request:
    return Request(name, f"runtime.v1.{service}/{name.partition('.')[0]}", _prefix(len(message)) + message)


def _call_of(name: str, rest: bytes = b"") -> Request:
    """A call about one sandbox or container, whose ID is the first field of each such request."""
    key = _varint(1 << 3 | 2) + _varint(ID_LENGTH)
    length = len(key) + ID_LENGTH + len(rest)
    return Request(name, f"runtime.v1.RuntimeService/{name.partition('.')[0]}", _prefix(length) + key, rest)


def _prefix(length: int) -> bytes:
    """A frame of gRPC begins with a zero (not compressed) and the length of its message."""
    return b"\0" + length.to_bytes(4, "big")


def volumes_name(volumes: Volumes) -> str:
    """How requests and the proof call a container by its volumes."""
    return "+".join(volumes) or "plain"


def requests(
    handlers: Sequence[str], cgroup_parent: str, directory: str, attempts: Sequence[Volumes] = ATTEMPTS
) -> list[Request]:
    """All that the proof may ask for: sandboxes with each handler, a container for each attempt, and their end.

    `cgroup_parent` is a slice for the cgroup driver systemd, a path for cgroupfs. The volumes lie in `directory`.
    """
    sandbox = _sandbox(cgroup_parent)
    return [
        _call("Status"),
        _call("ListPodSandbox", _bytes(1, _bytes(3, _label()))),
        _call("ImageStatus", _bytes(1, _bytes(1, IMAGE)), "ImageService"),
        *(_call(f"RunPodSandbox.{name}", _bytes(1, sandbox) + _bytes(2, name)) for name in handlers),
        # What fails with and without a user namespace says nothing of user namespaces.
        *(
            _call(f"RunPodSandbox.{name}.host", _bytes(1, _sandbox(cgroup_parent, _NAMESPACES)) + _bytes(2, name))
            for name in handlers
        ),
        *(
            _call_of(
                f"CreateContainer.{volumes_name(volumes)}",
                _bytes(2, _container(volumes, directory)) + _bytes(3, sandbox),
            )
            for volumes in attempts
        ),
        _call_of("StartContainer"),
        _call_of("ExecSync", b"".join(_bytes(2, word) for word in ("/bin/sh", "-c", INSIDE)) + _number(3, 60)),
        _call_of("StopPodSandbox"),
        _call_of("RemovePodSandbox"),
    ]


@dataclass(frozen=True, slots=True)
class Condition:
    """What containerd says of the runtime or of the network."""

    type: str
    status: bool = False
    reason: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True)
class Status:
    """What CRI's Status says. `handlers`: whether each one claims user namespaces; containerd 1.7 names none."""

    conditions: tuple[Condition, ...] = ()
    handlers: tuple[tuple[str, bool], ...] = ()


@dataclass(frozen=True, slots=True)
class Exec:
    """What a command in a container ended with."""

    code: int
    stdout: str
    stderr: str


def read_status(frame: bytes) -> Status:
    """Read a frame with a StatusResponse. Raises CriError, as the others below, and nothing else."""
    conditions, handlers = [], []
    for field, value in _fields(_message(frame)):
        if field == 1:
            conditions += [_condition(raw) for number, raw in _fields(_raw(value)) if number == 1]
        elif field == 3:
            handlers.append(_handler(_raw(value)))
    return Status(tuple(conditions), tuple(handlers))


def read_exec(frame: bytes) -> Exec:
    """Read a frame with an ExecSyncResponse."""
    found = dict(_fields(_message(frame)))
    code = found.get(3, 0)
    if not isinstance(code, int):
        raise CriError("the exit code of a command in the container is not a number")
    return Exec(code, _text(found.get(1, b"")), _text(found.get(2, b"")))


def _condition(value: bytes | int) -> Condition:
    found = dict(_fields(_raw(value)))
    return Condition(
        _text(found.get(1, b"")), bool(found.get(2, 0)), _text(found.get(3, b"")), _text(found.get(4, b""))
    )


def _handler(raw: bytes) -> tuple[str, bool]:
    found = dict(_fields(raw))
    return _text(found.get(1, b"")), bool(dict(_fields(_raw(found.get(2, b"")))).get(2, 0))


def _message(frame: bytes) -> bytes:
    if len(frame) < 5 or frame[0] != 0 or int.from_bytes(frame[1:5], "big") != len(frame) - 5:
        raise CriError(f"an answer of containerd is not one whole frame: it has {len(frame)} bytes")
    return frame[5:]


def _fields(message: bytes) -> Iterator[tuple[int, bytes | int]]:
    """The fields of a message, in their order: numbers of variable length and what has a length; others are skipped."""
    at = 0
    while at < len(message):
        key, at = _read_varint(message, at)
        match key & 7:
            case 0:
                number, at = _read_varint(message, at)
                yield key >> 3, number
                continue
            case 2:
                length, at = _read_varint(message, at)
            case 1 | 5 as kind:
                length = 8 if kind == 1 else 4
            case kind:
                raise CriError(f"an answer of containerd has a field of the unknown kind {kind}")
        if at + length > len(message):
            raise CriError("an answer of containerd is cut off in a field")
        if key & 7 == 2:
            yield key >> 3, message[at : at + length]
        at += length


def _read_varint(message: bytes, at: int) -> tuple[int, int]:
    number = 0
    for shift in range(0, 70, 7):
        if at >= len(message):
            raise CriError("an answer of containerd is cut off in a number")
        byte = message[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, at
    raise CriError("an answer of containerd has a number that does not end")


def _raw(value: bytes | int) -> bytes:
    if isinstance(value, int):
        raise CriError("an answer of containerd has a number where a text or a message belongs")
    return value


def _text(value: bytes | int) -> str:
    return _raw(value).decode(errors="replace")
