"""The upstream document's last chapter: a container in a user namespace by `ctr` and an OCI bundle, without CRI."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from lab import LabVM
from tests.vm.daemons import IMAGE, Beside, Daemon

BUNDLE = "/opt/beside/bundle"
NAMESPACES = ("pid", "network", "ipc", "uts", "mount", "cgroup", "user")


@pytest.fixture(scope="module")
def containerd(vms: dict[str, LabVM], beside: Beside) -> Iterator[Daemon]:
    with beside.daemon(vms["newest"], "testing") as daemon:
        yield daemon
        daemon.sh(f"rm -rf {BUNDLE}")


def config(rootfs: str, cgroup: str) -> str:
    """What matters of the document's config.json. Its shell does not wait for a terminal here."""
    ids = [{"containerID": 0, "hostID": 65536, "size": 65536}]
    process = {"user": {"uid": 0, "gid": 0}, "args": ["/bin/sleep", "1000000"], "env": ["PATH=/bin"], "cwd": "/"}
    linux = {
        "uidMappings": ids,
        "gidMappings": ids,
        "cgroupsPath": cgroup,
        "namespaces": [{"type": name} for name in NAMESPACES],
    }
    # As `runc spec` has it: without a /dev of its own, runc leaves in the bundle what a second container trips over.
    dev = {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755", "size=65536k"]}
    mounts = [{"destination": "/proc", "type": "proc", "source": "proc"}, dev]
    whole = {"ociVersion": "1.0.2", "process": process, "root": {"path": rootfs}, "mounts": mounts, "linux": linux}
    return json.dumps(whole)


def test_a_chowned_bundle_runs_in_a_user_namespace(containerd: Daemon) -> None:
    containerd.sh(
        f"""set -e
        mkdir -p {BUNDLE}/rootfs {BUNDLE}/mounted
        ctr images mount {IMAGE} {BUNDLE}/mounted >/dev/null
        cp -a {BUNDLE}/mounted/. {BUNDLE}/rootfs/ && mkdir {BUNDLE}/rootfs/proc
        ctr images unmount --rm {BUNDLE}/mounted >/dev/null && rmdir {BUNDLE}/mounted
        chown -R 65536:65536 {BUNDLE}/rootfs
        cat >{BUNDLE}/config.json""",
        input=config(f"{BUNDLE}/rootfs", f"{containerd.cgroup}/bundle"),
    )
    # `ctr create`, as an older edition of the document has it, is no command.
    assert containerd.sh(f"ctr create --config {BUNDLE}/config.json no", check=False).returncode != 0
    containerd.sh(f"""
        ctr containers create --config {BUNDLE}/config.json userns-test
        ctr tasks start --detach userns-test </dev/null >/dev/null 2>&1""")
    seen = containerd.sh("""
        ctr tasks exec --exec-id look userns-test /bin/sh -c 'read -r map </proc/self/uid_map; echo $map'
        pid=$(ctr tasks ls | awk '$1 == "userns-test" { print $2 }')
        stat -c %u /proc/$pid""").stdout
    assert seen.split() == ["0", "65536", "65536", "65536"]


def test_a_bundle_needs_an_absolute_path_that_its_root_may_walk(containerd: Daemon) -> None:
    """With the bundle of the test before, which did start."""

    def starts(name: str, rootfs: str) -> bool:
        written = config(rootfs, f"{containerd.cgroup}/{name}")
        create = f"cat >{BUNDLE}/{name}.json && ctr containers create --config {BUNDLE}/{name}.json {name}"
        start = f"ctr tasks start --detach {name} </dev/null >/dev/null 2>&1"
        return containerd.sh(f"cd {BUNDLE} && {create} && {start}", check=False, input=written).returncode == 0

    assert not starts("relative", "rootfs")
    assert starts("open", f"{BUNDLE}/rootfs")
    containerd.sh(f"chmod 700 {BUNDLE}")
    assert not starts("closed", f"{BUNDLE}/rootfs")
