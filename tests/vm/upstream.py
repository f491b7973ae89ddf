"""What the tests of the upstream document ask of a pod, and how they try one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from tests.vm import cri
from tests.vm.cri import Container, Cri
from tests.vm.daemons import IMAGE
from userns.diagnose import diagnose

# What containerd itself says, word for word (its document, and client/snapshotter_opts_unix.go).
REFUSAL = (
    'snapshotter "overlayfs" doesn\'t support idmap mounts on this host, '
    "configure `slow_chown` to allow a slower and expensive fallback"
)
HANDLERS = ("runc", "crun")
SHOW_UID_MAP = "read -r map </proc/self/uid_map; echo $map"
SLEEP = ("/bin/sleep", "1000000")


@contextmanager
def running(
    runtime: Cri, handler: str = "", mounts: Sequence[Any] = (), first: int = cri.FIRST_HOST_ID
) -> Iterator[Container]:
    """A container of a pod that has the host's IDs from `first` on, as a kubelet would start it."""
    options = cri.user_namespace(first)
    with runtime.pod(handler, options) as pod, pod.container(IMAGE, SLEEP, mounts) as container:
        yield container


def refused(runtime: Cri, handler: str = "", mounts: Sequence[Any] = (), first: int = cri.FIRST_HOST_ID) -> str:
    """The error that such a container ends with instead of running."""
    with pytest.raises(cri.CriError) as caught, running(runtime, handler, mounts, first):
        pass
    return str(caught.value)


def read(container: Container, path: str) -> str:
    """A file as the container sees it: its image has a shell and no cat."""
    done = container.exec("/bin/sh", "-c", f'while read -r line; do echo "$line"; done <{path}')
    assert done.code == 0, done.stderr
    return done.stdout


def uid_map(container: Container) -> list[str]:
    """How its user IDs are mapped."""
    return read(container, "/proc/self/uid_map").split()


def root_mount(container: Container) -> str:
    """The line of its /proc/self/mountinfo for /."""
    return next(line for line in read(container, "/proc/self/mountinfo").splitlines() if line.split()[4] == "/")


def diagnosed(text: str) -> list[str]:
    """What `python -m userns diagnose` says of an error text."""
    return [each.id for each in diagnose(text)]
