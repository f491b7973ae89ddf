"""The file systems of which the upstream document says that Linux 6.3 idmaps them, probed on a later kernel."""

from __future__ import annotations

import subprocess
import tarfile
from pathlib import Path

import pytest

from lab import Lab, LabVM, cache, debs
from lab.paths import REPO
from lab.processes import tool
from tests.vm.daemons import PATIENCE

PACKAGES = ("btrfs-progs", "dosfstools", "e2fsprogs", "xfsprogs")
MKFS = {
    "btrfs": "mkfs.btrfs --quiet",
    "ext4": "mkfs.ext4 -q",
    "vfat": "mkfs.fat",
    "xfs": "mkfs.xfs -q",
}
HOME = "/opt/filesystems"


def programs() -> Path:
    """A directory with a tar of what makes these file systems, and of the libraries that it needs."""

    def build(into: Path) -> None:
        apt = debs.Apt("testing", into / "apt")
        needed = {each for package in PACKAGES for each in apt.dependencies(package)}
        # The nodes have libc, and nothing that makes a file system needs Unicode's tables.
        libraries = sorted(
            each for each in needed if each.startswith("lib") and not each.startswith(("libc6", "libicu"))
        )
        packages, tree = into / "debs", into / "tree"
        packages.mkdir()
        apt.download([*PACKAGES, *libraries], packages)
        for deb in packages.iterdir():
            subprocess.run([tool("dpkg-deb"), "--extract", str(deb), str(tree)], check=True)
        with tarfile.open(into / "filesystems.tar", "w") as tar:
            for file in (*tree.glob("usr/*bin/mk*fs*"), *tree.glob("usr/lib/*/*.so.*")):
                tar.add(file, file.name)
        for directory in (into / "apt", packages, tree):
            cache.remove_tree(directory)

    return cache.once("filesystems", cache.digest(Path(__file__).read_text()), build)


@pytest.fixture(scope="module")
def probed(vms: dict[str, LabVM], vm_lab: Lab) -> dict[str, list[str]]:
    """What the probe that a deploy makes says of each file system: result, failed step, errno."""
    vm = vms["6.12"]
    served = vm_lab.serve(programs())
    vm.put(f"{HOME}/probe.sh", (REPO / "tasks/scripts/probe.sh").read_bytes())
    makes = "\n".join(f"make {name} {command}" for name, command in MKFS.items())
    script = f"""
        cd {HOME}
        curl -sSf {served.url}/filesystems.tar | tar -x --no-same-owner
        make() {{
            name=$1; shift
            mkdir $name && truncate -s 400M $name.img && LD_LIBRARY_PATH=$PWD PATH=$PWD:$PATH "$@" $name.img >&2 &&
            mount -o loop $name.img $name
        }}
        {makes}
        mkdir lower upper work overlay
        mount -t overlay overlay -o lowerdir=lower,upperdir=upper,workdir=work overlay
        sh probe.sh {" ".join(f"$PWD/{name}" for name in (*MKFS, "overlay"))}
        umount {" ".join(MKFS)} overlay
        cd / && rm -rf --one-file-system {HOME}"""
    done = vm.ssh(script, check=False, timeout=PATIENCE)
    served.stop()
    answers = [line.split("\t") for line in done.stdout.splitlines() if line.startswith("probe\t")]
    found = {name.removeprefix(f"{HOME}/"): answer for _, name, *answer in answers}
    assert found, done.stderr
    return found


@pytest.mark.parametrize("filesystem", ["btrfs", "ext4", "tmpfs", "vfat", "xfs"])
def test_a_kernel_after_6_3_idmaps_this_file_system(probed: dict[str, list[str]], filesystem: str) -> None:
    assert probed[filesystem][0] == "ok", probed[filesystem]


@pytest.mark.parametrize("filesystem", ["btrfs", "ext4", "xfs"])
def test_overlay_over_idmapped_directories_works_on_this_file_system(
    probed: dict[str, list[str]], filesystem: str
) -> None:
    assert probed[f"{filesystem} overlay"][0] == "ok", probed[f"{filesystem} overlay"]


def test_a_mount_of_overlay_is_not_idmapped_itself(probed: dict[str, list[str]]) -> None:
    assert probed["overlay"][:3] == ["cannot", "mount_setattr", "EINVAL"]
