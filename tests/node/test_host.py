"""The demo on another host than this one: an ordinary one, whose process 1 is systemd and whose cgroups are version 2.

It is this machine's own Debian, booted a second time in a container, on a layer that takes all writes to /.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from lab import Lab, base, cgroups
from lab.mirror import Mirror
from lab.paths import BUILD, REPO

SECONDS = 900

# In the lab, whose mounts and processes end with it. What would reach the kernel below is masked, as on a node.
HOST = r"""
set -eu
home=$1 group=$2
shift 2
echo $$ >"$group/cgroup.procs"
mount -t tmpfs host "$home"
mkdir "$home/upper" "$home/work" "$home/root"
mount -t overlay -o "lowerdir=/,upperdir=$home/upper,workdir=$home/work" host "$home/root"
cd "$home/root/etc"
: >fstab
for unit in ssh.service systemd-sysctl.service systemd-modules-load.service systemd-binfmt.service \
    proc-sys-fs-binfmt_misc.automount systemd-networkd.service systemd-networkd.socket; do
    ln -sf /dev/null "systemd/system/$unit"
done
cat >../run-demo
chmod +x ../run-demo
env SYSTEMD_NSPAWN_API_VFS_WRITABLE=network systemd-nspawn --quiet --boot --directory="$home/root" \
    --machine=host --register=no --keep-unit --private-network --capability=all --system-call-filter=@known \
    --console=pipe --link-journal=no --resolv-conf=off --timezone=off --bind-ro=/sys/module \
    "$@" systemd.run=/run-demo systemd.unit=kernel-command-line.target >"$home/console" 2>&1 || :
[ -e "$home/root/said" ] || cat "$home/console"
cat "$home/root/said"
"""

DEMO = f"""\
#!/bin/sh
exec >/said 2>&1
echo "process 1: $(cat /proc/1/comm); cgroups: $(stat --file-system --format=%T /sys/fs/cgroup)"
cd '{REPO}'
USERNS_NODE_BUILD='{BUILD}' make demo
echo "exit code: $?"
"""


@pytest.fixture(scope="module")
def said(lab: Lab, mirror: Mirror, tmp_path_factory: pytest.TempPathFactory) -> str:
    """All that it printed there. What its node is built of was built before, and is reached by the same paths."""
    home = tmp_path_factory.mktemp("host")
    base.tar()
    group = lab.cgroup / "host"
    cgroups.create(group)
    places = {str(REPO), str(BUILD), sys.prefix, sys.base_prefix}
    binds = [f"--bind={place}" for place in sorted(places - {"/", "/usr"})]
    # A demo writes its inventory here, and another may do so at the same time.
    binds.append(f"--bind={tmp_path_factory.mktemp('demo')}:{BUILD / 'demo'}")
    inside = Path("/sys/fs/cgroup", lab.cgroup.name, group.name)
    command: list[str | Path] = ["unshare", "--mount", "sh", "-c", HOST, "host", home, inside, *binds]
    return lab.run(command, input=DEMO, timeout=SECONDS).stdout


def test_it_is_such_a_host(said: str) -> None:
    assert said.startswith("process 1: systemd; cgroups: cgroup2fs\n")


def test_the_demo_works_there_and_leaves_the_host_as_it_was(said: str) -> None:
    assert said.endswith("\nexit code: 0\n"), said[-4000:]
    for handler in ("runc", "crun"):
        assert re.search(rf"{handler}: proven: .*uid_map 0 65536 65536, an idmapped rootfs", said)
    assert "nothing to do" in said
    assert "tier idmapped is proven" in said
    assert "This machine is as it was" in said
