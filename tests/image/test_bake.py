"""A bake writes what a deploy writes on a node, starts nothing, and leaves nothing else, here or in the image."""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from lab import host, kernels
from lab.mirror import Mirror
from tests.image import trees
from tests.image.conftest import Copied
from tests.image.trees import Bake, Builder
from tests.image.written import RANGE, UNITS, USERADDS_OWN, WANTS, WRITTEN
from userns import paths

# Of this machine, where a bake that is not confined would write.
MACHINES = ("etc/containerd", "etc/modprobe.d", "etc/sysctl.d", "etc/systemd/system", "etc/subuid", "etc/passwd")


@dataclass(frozen=True)
class Baked:
    """A tree that was looked at, baked, and baked again; and what this machine was before and after all of it."""

    root: Path
    before: dict[str, str]
    rehearsal: Bake
    rehearsed: dict[str, str]
    bake: Bake
    after: dict[str, str]
    again: Bake
    after_again: dict[str, str]
    machine: list[str]


def machines_files() -> dict[str, str]:
    """What is where a bake would write if it wrote on this machine.

    Without the directories in which signatures are checked: tests do that side by side with this, and a bake does not.
    """
    found: dict[str, str] = {}
    for name in (*MACHINES, "usr/local/libexec", "usr/local/sbin", "var/lib/userns-node", "run", "tmp"):
        top = Path("/", name)
        entries = [top, *top.iterdir()] if top.is_dir() else [top]
        entries = [path for path in entries if not path.name.startswith("userns-node-gpgv-")]
        found |= {str(path): trees.look_at(path) for path in entries if os.path.lexists(path) and not path.is_socket()}
    return {path: about for path, about in found.items() if not about.startswith("d") or "userns-node" in path}


@pytest.fixture(scope="module")
def baked(builder: Builder, copied: Copied) -> Baked:
    """The tree, baked with a range for the kubelet."""
    root = copied()
    machine, files = host.fingerprint(), machines_files()
    before = trees.look(root)
    rehearsal = builder.dry(root, kubelet_id_range=RANGE)
    rehearsed = trees.look(root)
    bake = builder.bake(root, kubelet_id_range=RANGE)
    after = trees.look(root)
    again = builder.bake(root, kubelet_id_range=RANGE)
    same = host.differences(machine, host.fingerprint())
    mine = {path for path in trees.changed(files, machines_files()) if "userns-node" in path or "/tmp" not in path}
    return Baked(root, before, rehearsal, rehearsed, bake, after, again, trees.look(root), [*same, *sorted(mine)])


def test_the_dry_run_tells_all_of_it_and_touches_nothing(baked: Baked) -> None:
    assert baked.rehearsal.code == 0, baked.rehearsal.text
    will = [line for line in baked.rehearsal.said if line.startswith("will ")]
    assert [line for line in will if "install containerd" in line]
    assert [line for line in will if "enable containerd" in line]
    assert "+SystemdCgroup = true" in baked.rehearsal.text
    assert baked.rehearsed == baked.before


def test_a_bake_writes_what_a_node_gets_and_nothing_else(baked: Baked) -> None:
    written = trees.changed(baked.before, baked.after)
    assert written - USERADDS_OWN == WRITTEN


def test_nothing_is_told_to_start_and_all_is_to_start_at_boot(baked: Baked) -> None:
    assert not re.search(r"will (re)?start|will set ", baked.bake.text)
    assert "userns-node-check.service left no " not in baked.bake.text
    for unit in UNITS:
        assert (baked.root / WANTS.lstrip("/") / f"{unit}.service").readlink() == Path(
            f"/etc/systemd/system/{unit}.service"
        )


def test_programs_and_modes_are_those_of_a_node(baked: Baked) -> None:
    for name in ("containerd", "ctr", "containerd-shim-runc-v2", "runc"):
        state = (baked.root / paths.INSTALLED[name].lstrip("/")).stat()
        assert (state.st_mode & 0o7777, state.st_uid, state.st_gid) == (0o755, 0, 0)
    assert (baked.root / "etc/subuid").read_text() == "kubelet:1048576:7208960\n"
    assert "\nkubelet:" in (baked.root / "etc/passwd").read_text()
    assert (baked.root / "etc/machine-id").read_text() == ""


def test_a_second_bake_does_nothing(baked: Baked) -> None:
    assert (baked.again.code, baked.again.operations) == (0, [])
    assert "nothing to do" in baked.again.text
    assert baked.after_again == baked.after


def test_the_bill_of_materials_names_what_is_there(baked: Baked, mirror: Mirror) -> None:
    text = (baked.root / paths.IMAGE_SBOM.lstrip("/")).read_text()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    found = {each["name"]: (each["version"], each["hashes"][0]["content"]) for each in json.loads(text)["components"]}
    assets = {name: mirror.asset(name) for name in ("containerd", "runc")}
    assert found == {name: (asset.version, asset.sha256) for name, asset in assets.items()}
    assert text in "".join(f"{line[1:]}\n" for line in baked.rehearsal.said if line.startswith("+"))


def test_the_dry_run_shows_how_another_program_changes_it(baked: Baked, builder: Builder, mirror: Mirror) -> None:
    version = mirror.versions("crun")[0]
    run = builder.dry(baked.root, kubelet_id_range=RANGE, crun_version=version)
    assert f"+++ {paths.IMAGE_SBOM}" in run.text
    assert f'+      "purl": "pkg:github/containers/crun@{version}",' in run.said
    assert trees.look(baked.root) == baked.after


def test_this_machine_is_as_it_was(baked: Baked) -> None:
    assert baked.machine == []


def test_the_kernel_of_the_image_decides_and_not_this_machines(baked: Baked, builder: Builder) -> None:
    release = kernels.fetched(trees.KERNEL).release
    run = builder.run(baked.root, deploy=("fact", "tasks.node.Node"))
    facts = json.loads(run.stdout)
    node = next(iter(facts.values())) if "kernel" not in facts else facts
    told = json.dumps(node)
    assert release in told
    assert os.uname().release not in told
    assert f'"{release}", "overlay": "module"' in told.replace("'", '"')
    assert '"CONFIG_USER_NS": "y"' in told
    assert "(assumed from versions: not everything was probed)" in baked.bake.text
    assert "tmpfs can from Linux 6.3 on" in baked.rehearsal.text


def test_pyinfras_own_name_for_it_is_as_safe(baked: Baked, builder: Builder) -> None:
    run = builder.run("--dry", inventory=f"@chroot/{baked.root}", kubelet_id_range=RANGE)
    assert run.code == 0, run.text
    assert "nothing to do" in run.text
    assert "connector is in beta" not in run.text


def counting(root: Path) -> Path:
    """Make the tree count how often it was read: the file of its own that has a line for each time."""
    id, count = root / "usr/bin/id", root / "count"
    id.rename(root / "usr/bin/id.real")
    id.write_text('#!/bin/sh\necho read >>/count\nexec id.real "$@"\n')
    id.chmod(0o755)
    return count


def test_a_tree_is_read_once_and_ahead_for_a_deploy_alone(builder: Builder, copied: Copied, tmp_path: Path) -> None:
    root, first, nothing = copied(), tmp_path / "first.py", tmp_path / "nothing.py"
    count = counting(root)
    assert builder.dry(root).code == 0
    assert count.read_text() == "read\n"
    nothing.write_text("")
    assert builder.run(root, "--dry", deploy=(str(nothing),)).code == 0
    assert count.read_text() == "read\n"
    # What is done before a deploy is seen by it, by whatever way it was done.
    first.write_text(f"from pathlib import Path; Path({str(root / 'etc/containerd')!r}).mkdir()\n")
    first.open("a").write(f"Path({str(root / paths.CONFIG[1:])!r}).write_text('mine')\n")
    bake = builder.run(root, "--dry", "--diff", deploy=(str(first), "deploy.py"))
    assert count.read_text() == "read\nread\n"
    assert "-mine" in bake.text


def test_what_was_read_ahead_and_is_asked_for_no_more_holds_nobody_up(
    builder: Builder, copied: Copied, tmp_path: Path
) -> None:
    root = copied()
    (root / "usr/bin/id").unlink()
    (root / "usr/bin/id").write_text("#!/bin/sh\nexec sleep 60\n")
    (root / "usr/bin/id").chmod(0o755)
    began = time.monotonic()
    run = builder.run(root, "--dry", containerd_root="relative")
    assert run.code == 1
    assert "containerd_root" in run.text
    assert "Traceback" not in run.text
    assert time.monotonic() - began < 30


def test_two_bakes_give_the_same_bytes_and_times(builder: Builder, copied: Copied) -> None:
    roots = copied(), copied()
    before = trees.look(roots[0])
    for root in roots:
        builder.bake(root, kubelet_id_range=RANGE, environment={"SOURCE_DATE_EPOCH": "1700000000"})
    written = trees.changed(before, trees.look(roots[0]))
    assert written - USERADDS_OWN == WRITTEN
    first, second = (trees.contents(root, sorted(written)) for root in roots)
    assert first == second
    # A backup keeps the time of what it is one of.
    times = {about.split()[2] for path, about in first.items() if not path.endswith("-")}
    assert times == {"1700000000000000000"}


def test_one_bad_image_leaves_the_others_alone(builder: Builder, copied: Copied, home: Path) -> None:
    root = copied()
    run = builder.run(root, home / "nowhere", "-y")
    assert run.code == 1
    assert "nowhere: there is no such directory" in run.text
    assert (root / "usr/local/bin/containerd").exists()


def test_what_the_builder_had_written_is_kept_and_a_kept_set_is_not(builder: Builder, copied: Copied) -> None:
    root = copied()
    config, old = root / paths.CONFIG.lstrip("/"), root / paths.STATE.lstrip("/") / "previous"
    config.parent.mkdir()
    config.write_text("version = 3 # the builder's own\n")
    old.mkdir(parents=True)
    builder.bake(root)
    (kept,) = (root / paths.REPLACED.lstrip("/")).iterdir()
    assert kept.read_text() == "version = 3 # the builder's own\n"
    assert config.read_text() != kept.read_text()
    assert not old.exists()


def test_a_bake_that_cannot_fetch_leaves_the_tree_as_it_was(
    builder: Builder, copied: Copied, mirror: Mirror, tmp_path: Path
) -> None:
    """Nor what was fetched before: another try would lay it beside."""
    root = copied()
    lock = tmp_path / "lock.toml"
    digest = hashlib.sha256((mirror.root / mirror.asset("runc").path.lstrip("/")).read_bytes()).hexdigest()
    lock.write_text(mirror.lock.read_text().replace(digest, "0" * 64))
    before = trees.look(root)
    run = builder.run(root, "-y", artifact_lock=str(lock))
    assert run.code == 1
    assert "expected " + "0" * 64 in run.text, run.text
    assert trees.changed(before, trees.look(root)) == set()
