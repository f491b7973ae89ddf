"""Images: which kernel decides, what one gets that a node does not, and that its first boot picks as a deploy would."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping

import pytest

from tasks.files import templates
from tests import nodes
from tests.conftest import program
from userns import paths, readiness
from userns.changes import EnableService, InstallArtifact, RestartService, SetMetacopy, SetSysctl, WriteFile
from userns.findings import Severity
from userns.image import kernels
from userns.node import Image, ImageKernel, Node, Overlay, Probe
from userns.planning import Plan
from userns.reading import read

BUILD_HOST = "6.18.44"
FROM_5_15_TO_6_12 = ("5.15.0-91-generic", "6.1.0-50-amd64", "6.12.48+deb13-amd64")


def image_of(*releases: str, **config: str) -> Node:
    """An image with these kernels, the newest first; what the build host is must not matter."""
    kernels = tuple(ImageKernel(release=each, overlay="module", config=config) for each in releases)
    return nodes.bare(
        kernel=releases[0] if releases else "",
        image=Image(kernels=kernels),
        sysctls={},
        overlay=Overlay(),
        probes={name: Probe(result="unknown") for name in ("containerd-root", "kubelet-root", "tmpfs", "overlay")},
    )


def plan(*releases: str, **settings: object) -> Plan:
    return nodes.plan(image_of(*releases), **settings)


def ids(made: Plan) -> dict[str, Severity]:
    return {each.id: each.severity for each in made.findings}


# --- which kernel --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "boots", "tier"),
    [
        (None, "6.12.48+deb13-amd64", "idmapped"),
        ("6.1.0-50-amd64", "6.1.0-50-amd64", "rootfs-only"),
        ("6.1", "6.1.0-50-amd64", "rootfs-only"),
        ("5.15", "5.15.0-91-generic", "chown"),
        ("6.6", "6.6", "idmapped"),
    ],
)
def test_the_newest_kernel_of_the_image_decides_or_the_one_that_is_named(
    wanted: str | None, boots: str, tier: str
) -> None:
    made = plan(*reversed(FROM_5_15_TO_6_12), target_kernel=wanted)
    assert (made.node.kernel, made.readiness.tier, made.readiness.assumed) == (boots, tier, True)


def test_the_answer_of_an_image_is_read_with_its_kernels_in_order() -> None:
    answer = [
        "userns-node-begin\t1",
        "image\taarch64",
        "image-kernel\t6.12.9-amd64\tmodule",
        "image-kernel\t6.12.48-amd64\tbuiltin",
        "image-kernel\t6.1.0-50-amd64\tunknown",
        "image-config\t6.12.48-amd64\tCONFIG_USER_NS\ty",
        "image-epoch\t1700000000",
        "userns-node-end",
    ]
    found = read(answer)
    assert found.image is not None
    assert [each.release for each in found.image.kernels] == ["6.12.48-amd64", "6.12.9-amd64", "6.1.0-50-amd64"]
    assert found.image.kernels[0].config == {"CONFIG_USER_NS": "y"}
    assert found.image.epoch == 1_700_000_000
    assert (found.kernel, found.machine) == ("6.12.48-amd64", "aarch64")


@pytest.mark.parametrize(
    ("kernel", "overlay"),
    [
        (ImageKernel(release="6.12", overlay="builtin"), Overlay(state="builtin")),
        (
            ImageKernel(release="6.12", config={"CONFIG_OVERLAY_FS": "y", "CONFIG_OVERLAY_FS_METACOPY": "y"}),
            Overlay(state="builtin", metacopy="Y"),
        ),
        (ImageKernel(release="6.12", overlay="absent", config={"CONFIG_OVERLAY_FS": "n"}), Overlay(state="absent")),
        (ImageKernel(release="6.12", overlay="module", config={"CONFIG_OVERLAY_FS": "m"}), Overlay(state="module")),
        (
            ImageKernel(release="6.12", overlay="module", config={"CONFIG_OVERLAY_FS_METACOPY": "y"}),
            Overlay(state="module", default="Y"),
        ),
    ],
)
def test_overlay_is_what_the_images_kernel_has(kernel: ImageKernel, overlay: Overlay) -> None:
    node = image_of("6.12").model_copy(update={"image": Image(kernels=(kernel,))})
    assert kernels.booting(node, nodes.policy()).overlay == overlay


def test_without_a_kernel_or_a_name_for_one_nothing_is_baked() -> None:
    assert ids(plan())["image-has-no-kernel"] is Severity.BLOCKER
    assert ids(plan(target_kernel="6.12"))["image-lacks-target-kernel"] is Severity.WARNING


def test_of_no_kernel_nothing_else_is_told_unless_it_is_to_be_baked_all_the_same() -> None:
    """File systems cannot be to blame where nobody knows which kernel they will be on."""
    assert [each.id for each in plan().blockers] == ["image-has-no-kernel"]
    assert "idmap-not-probed" not in ids(plan())
    old = plan(containerd_version="1.7.34", kubernetes_version="1.30")
    assert ids(old)["containerd-too-old-for-kubernetes"] is Severity.BLOCKER
    allowed = plan(allow=["image-has-no-kernel"])
    assert {each.id for each in allowed.blockers} == {"containerd-root-cannot-idmap", "kubelet-root-cannot-idmap"}


def test_several_kernels_matter_where_they_differ() -> None:
    assert ids(plan("6.12.48", "6.12.9"))["image-several-kernels"] is Severity.NOTE
    assert ids(plan("6.12.48", "5.15.0"))["image-several-kernels"] is Severity.WARNING
    assert "image-several-kernels" not in ids(plan("6.12.48"))


def test_a_kernel_without_user_namespaces_is_refused() -> None:
    made = nodes.plan(image_of("6.12", CONFIG_USER_NS="n"))
    assert ids(made)["kernel-lacks-user-namespaces"] is Severity.BLOCKER


def test_target_kernel_is_not_for_a_node_that_runs() -> None:
    assert ids(nodes.plan(nodes.bare(), target_kernel="6.12"))["target-kernel-without-image"] is Severity.BLOCKER


def test_the_build_hosts_file_systems_do_not_count() -> None:
    node = image_of("6.12")
    types = {name: each.model_copy(update={"type": "nfs"}) for name, each in node.filesystems.items()}
    assert nodes.plan(node.model_copy(update={"filesystems": types})).readiness.tier == "idmapped"


# --- what an image gets --------------------------------------------------------------------------------------------


def test_nothing_of_a_running_system_is_changed() -> None:
    made = plan("6.12.48")
    assert not [each for each in made.changes if isinstance(each, SetSysctl | SetMetacopy | RestartService)]
    assert {each.unit for each in made.changes if isinstance(each, EnableService)} == {
        "containerd.service",
        "userns-node-check.service",
        "userns-node-first-boot.service",
    }
    assert {each.component for each in made.changes if isinstance(each, InstallArtifact)} == {"containerd", "runc"}


def test_an_image_has_a_node_s_files_and_those_for_its_first_boot() -> None:
    written = {each.path for each in plan("6.12.48").changes if isinstance(each, WriteFile)}
    assert written == set(paths.MANAGED) - {paths.SUBUID, paths.SUBGID} | set(paths.IMAGE)


def test_what_the_first_boot_replaces_is_mounted_before_and_no_state_is_asked_for() -> None:
    """No target waits for a mount with nofail. That of /var may fail, and the machine is fitted all the same."""
    unit = next(
        each for each in plan("6.12.48").changes if isinstance(each, WriteFile) and each.path == paths.FIRST_BOOT_UNIT
    )
    (line,) = (each for each in unit.content.splitlines() if each.startswith("RequiresMountsFor="))
    assert line.partition("=")[2].split() == [paths.FIRST_BOOT, paths.CONFIG]


def test_a_password_of_the_operators_is_in_no_readable_rendering() -> None:
    made = plan("6.12.48", containerd_config={"debug": {"level": "hunter2"}})
    secret = [each for each in made.changes if isinstance(each, WriteFile) and "hunter2" in each.content]
    assert {each.path for each in secret} == {paths.CONFIG, *paths.CONFIG_FOR.values()}
    assert {each.mode for each in secret} == {"600"}


def test_the_image_tells_what_it_is_without_a_secret_or_a_path_of_the_build_host() -> None:
    made = plan(
        "6.12.48",
        release_url="https://user:secret@mirror.example",
        containerd_config={"debug": {"level": "secret"}},
    )
    text = next(c.content for c in made.changes if isinstance(c, WriteFile) and c.path == paths.IMAGE_RECORD)
    told = json.loads(text)
    assert "secret" not in text
    assert "lock.toml" not in text
    assert (told["kernel"]["release"], told["readiness"]["tier"], told["readiness"]["assumed"]) == (
        "6.12.48",
        "idmapped",
        True,
    )
    programs = {each["component"]: each for each in told["programs"]}
    assert set(programs) == {"containerd", "runc"}
    for change in made.changes:
        if isinstance(change, InstallArtifact):
            program = programs[change.component]
            assert (program["version"], program["sha256"]) == (change.version, change.sha256)
    assert told["settings"]["kubernetes_version"] == made.policy.kubernetes_version
    assert {each["id"] for each in told["findings"]} >= {"idmap-not-probed"}


# --- the first boot picks what a deploy would write ----------------------------------------------------------------

# Kernels as upstream has them, one for each tier, with what they answer to the probes.
NO = Probe(result="cannot", step="mount_setattr", errno="EINVAL")
NEVER = Probe(result="cannot", step="mount_setattr", errno="ENOSYS")
YES = Probe(result="ok")
RUNNING: Mapping[str, Mapping[str, Probe]] = {
    "5.10.223": dict.fromkeys(("containerd-root", "kubelet-root", "tmpfs", "overlay", "containerd-check"), NEVER),
    "5.15.0": {"containerd-root": YES, "kubelet-root": YES, "tmpfs": NO, "overlay": NO, "containerd-check": NO},
    "6.1.176": {"containerd-root": YES, "kubelet-root": YES, "tmpfs": NO, "overlay": YES},
    "6.12.48": {"containerd-root": YES, "kubelet-root": YES, "tmpfs": YES, "overlay": YES},
}
SETTINGS: tuple[Mapping[str, object], ...] = (
    {},
    {"slow_chown": True},
    {"slow_chown": False},
    {"allow": ["kernel-lacks-tmpfs-idmap"]},
    {"kubernetes_version": "1.26", "containerd_version": "1.7.34"},
    {"snapshotter": "devmapper"},
    {"containerd_root": "/data/containerd", "overlay_metacopy": False},
    {"sandbox_image": "mirror.example/pause:1", "kubernetes_version": "1.30"},
)


@pytest.mark.parametrize("running", RUNNING)
@pytest.mark.parametrize("baked_for", ["5.15", "6.12"])
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_what_is_baked_for_a_kernel_is_what_a_deploy_writes_there(
    running: str, baked_for: str, settings: Mapping[str, object]
) -> None:
    node = nodes.bare(kernel=running, probes=dict(RUNNING[running]))
    live = {each.path: each.content for each in nodes.plan(node, **settings).changes if isinstance(each, WriteFile)}
    tier = readiness.of_node(node, nodes.policy(**settings)).tier
    baked = {
        each.path: each.content
        for each in nodes.plan(image_of(baked_for), **settings).changes
        if isinstance(each, WriteFile)
    }
    assert baked[paths.CHECK_FOR[tier]] == live[paths.CHECK]
    picked = baked[paths.FIRST_BOOT].partition(f"\n{tier}) rendering=")[2].partition(" ")[0]
    assert baked[picked] == live[paths.CONFIG]


def test_the_first_boots_script_is_sh_that_shellcheck_has_nothing_to_say_of() -> None:
    program("shellcheck")
    made = plan("6.12.48")
    text = next(each.content for each in made.changes if isinstance(each, WriteFile) and each.path == paths.FIRST_BOOT)
    said = subprocess.run(
        ["shellcheck", "--shell=sh", "--severity=style", "-"], input=text, capture_output=True, text=True, check=False
    )
    assert said.stdout == ""


def test_a_node_that_runs_gets_nothing_of_this() -> None:
    assert not [each for each in nodes.plan(nodes.bare()).changes if getattr(each, "path", "") in paths.IMAGE]
    assert not [name for name in templates() if name == "image.sh"]
    assert BUILD_HOST not in str(plan("6.12.48").changes)


def test_what_a_cut_off_bake_left_is_a_change_of_its_own() -> None:
    made = plan("6.12.48")
    done = nodes.done(made.node, made)
    assert done.image
    assert nodes.plan(done).changes == ()
    left = done.model_copy(update={"image": done.image.model_copy(update={"leftovers": ("baking", "lock")})})
    (change,) = nodes.plan(left).changes
    assert change.summary.startswith("remove baking, lock in /var/lib/userns-node: an image does not need it")
    assert nodes.plan(nodes.done(left, nodes.plan(left))).changes == ()
