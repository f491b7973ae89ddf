"""The requirement sets of containerd's document on user namespaces, as `python -m userns explain` gives them back.

Each test is one statement; docs/upstream-statements.md lists them all. Kernels are judged by their version here, as the
document does it; tests/vm has the same kernels really running.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from userns.__main__ import main
from userns.readiness import REFUSAL
from userns.requirements import stack
from userns.tables import BOUNDARIES, FILESYSTEMS
from userns.versions import parse

Explain = dict[str, Any]
# The requirement sets alone: holes that a version has are told too, but are not the document's matter.
_OTHERS = ("advisory-", "open-advisories-", "end-of-life-")


def explained(capsys: pytest.CaptureFixture[str], **versions: str) -> Explain:
    """The answer for these versions."""
    words = [word for name, version in versions.items() for word in (f"--{name.replace('_', '-')}", version)]
    main(["explain", "--json", "--today", "2026-11-24", *words])
    (answer,) = json.loads(capsys.readouterr().out).values()
    return dict(answer)


def refusals(answer: Explain) -> set[str]:
    """The ids of what refuses these versions."""
    found = {each["id"] for each in answer["findings"] if each["severity"] == "blocker"}
    return {id for id in found if not id.startswith(_OTHERS)}


@pytest.mark.parametrize("kubernetes", ["1.25", "1.26", "1.27", "1.33", "1.36"])
@pytest.mark.parametrize("containerd", ["1.6.20", "1.6.39", "1.5.18"])
def test_containerd_1_6_or_older_ignores_host_users_false_and_is_refused(
    capsys: pytest.CaptureFixture[str], kubernetes: str, containerd: str
) -> None:
    answer = explained(capsys, kernel="6.12", kubernetes=kubernetes, containerd=containerd)
    assert "containerd-ignores-user-namespaces" in refusals(answer)
    assert answer["tier"] == "unsupported"


def test_user_namespaces_begin_with_kubernetes_1_25(capsys: pytest.CaptureFixture[str]) -> None:
    assert "kubernetes-too-old" in refusals(explained(capsys, kubernetes="1.24", containerd="1.7.34"))
    assert "kubernetes-too-old" not in refusals(explained(capsys, kubernetes="1.25", containerd="1.7.34"))


def test_the_requirements_change_with_kubernetes_1_27() -> None:
    before, after = stack("1.26", "2.0.0"), stack("1.27", "2.0.0")
    assert before is not None
    assert after is not None
    assert (before.idmaps_volumes, after.idmaps_volumes) == (False, True)


@pytest.mark.parametrize("kubernetes", ["1.25", "1.26"])
@pytest.mark.parametrize(
    ("kernel", "runtime"),
    [
        ("5.10", {"runc": "1.1.0"}),
        *[(kernel, runtime) for kernel in ("5.15", "6.12") for runtime in ({"runc": "1.1.0"}, {"crun": "1.4.3"})],
    ],
)
def test_kubernetes_1_25_and_1_26_are_content_with_containerd_1_7_runc_1_1_or_crun_1_4_3(
    capsys: pytest.CaptureFixture[str], kubernetes: str, kernel: str, runtime: dict[str, str]
) -> None:
    answer = explained(capsys, kernel=kernel, kubernetes=kubernetes, containerd="1.7.34", **runtime)
    assert not refusals(answer)
    assert (answer["tier"], answer["rootfs"]) == ("chown", "chown")


@pytest.mark.parametrize(("kernel", "refused"), [("5.10", {"crun-cannot-mount-shm"}), ("5.12", set())])
def test_the_document_is_optimistic_crun_needs_linux_5_12_with_containerd_1_7(
    capsys: pytest.CaptureFixture[str], kernel: str, refused: set[str]
) -> None:
    answer = explained(capsys, kernel=kernel, kubernetes="1.26", containerd="1.7.34", crun="1.21")
    assert refusals(answer) == refused
    beside = explained(capsys, kernel=kernel, kubernetes="1.26", containerd="1.7.34", runc="1.1.0", crun="1.21")
    assert not refusals(beside)


@pytest.mark.parametrize(("runtime", "version"), [("runc", "1.0.3"), ("crun", "1.4.2")])
def test_an_older_runtime_is_not_enough_for_containerd_1_7(
    capsys: pytest.CaptureFixture[str], runtime: str, version: str
) -> None:
    answer = explained(capsys, kubernetes="1.26", containerd="1.7.34", **{runtime: version})
    assert refusals(answer) == {f"{runtime}-too-old"}


@pytest.mark.parametrize("kubernetes", ["1.25", "1.26"])
@pytest.mark.parametrize(("runtime", "old", "enough"), [("runc", "1.1.15", "1.2.0"), ("crun", "1.8.7", "1.9")])
def test_containerd_2_asks_kubernetes_1_25_and_1_26_for_the_runtimes_of_1_27(
    capsys: pytest.CaptureFixture[str], kubernetes: str, runtime: str, old: str, enough: str
) -> None:
    versions = {"kernel": "5.19", "kubernetes": kubernetes, "containerd": "2.0.11"}
    assert refusals(explained(capsys, **versions, **{runtime: old})) == {f"{runtime}-too-old"}
    assert not refusals(explained(capsys, **versions, **{runtime: enough}))


@pytest.mark.parametrize(("kernel", "tier"), [("5.15", "chown"), ("5.19", "idmapped"), ("6.1", "idmapped")])
def test_with_containerd_2_those_kubernetes_run_on_linux_5_15_by_chown_and_on_5_19_without(
    capsys: pytest.CaptureFixture[str], kernel: str, tier: str
) -> None:
    answer = explained(capsys, kernel=kernel, kubernetes="1.26", containerd="2.0.11", runc="1.2.9")
    assert not refusals(answer)
    assert (answer["tier"], answer["slow_chown"]) == (tier, tier == "chown")


def test_kubernetes_1_27_asks_for_linux_6_3(capsys: pytest.CaptureFixture[str]) -> None:
    versions = {"kubernetes": "1.27", "containerd": "2.0.11", "runc": "1.2.9"}
    assert refusals(explained(capsys, kernel="6.2", **versions)) == {"kernel-lacks-tmpfs-idmap"}
    enough = explained(capsys, kernel="6.3", **versions)
    assert not refusals(enough)
    assert enough["tier"] == "idmapped"


@pytest.mark.parametrize("kubernetes", ["1.27", "1.28", "1.32", "1.33", "1.36"])
def test_kubernetes_1_27_asks_for_containerd_2(capsys: pytest.CaptureFixture[str], kubernetes: str) -> None:
    versions = {"kernel": "6.12", "kubernetes": kubernetes, "runc": "1.2.0"}
    assert refusals(explained(capsys, containerd="1.7.34", **versions)) == {"containerd-too-old-for-kubernetes"}
    assert not refusals(explained(capsys, containerd="2.0.0", **versions))


@pytest.mark.parametrize("kubernetes", ["1.27", "1.36"])
@pytest.mark.parametrize(("runtime", "old", "enough"), [("runc", "1.1.15", "1.2.0"), ("crun", "1.8.7", "1.9")])
def test_kubernetes_1_27_asks_for_runc_1_2_or_crun_1_9(
    capsys: pytest.CaptureFixture[str], kubernetes: str, runtime: str, old: str, enough: str
) -> None:
    versions = {"kernel": "6.12", "kubernetes": kubernetes, "containerd": "2.3.5"}
    assert refusals(explained(capsys, **versions, **{runtime: old})) == {f"{runtime}-too-old"}
    assert not refusals(explained(capsys, **versions, **{runtime: enough}))


@pytest.mark.parametrize("filesystem", ["btrfs", "ext4", "xfs", "vfat", "tmpfs"])
def test_in_linux_6_3_these_file_systems_can_be_idmapped(filesystem: str) -> None:
    since = FILESYSTEMS[filesystem].since
    assert since is not None
    assert since <= parse("6.3")


def test_of_those_tmpfs_is_what_asks_for_6_3() -> None:
    assert BOUNDARIES["tmpfs"].since == parse("6.3")
    assert all(BOUNDARIES[name].since < parse("6.3") for name in ("mount_setattr", "overlay"))


def test_overlay_over_idmapped_layers_begins_with_linux_5_19(capsys: pytest.CaptureFixture[str]) -> None:
    versions = {"kubernetes": "1.26", "containerd": "2.3.5"}
    assert explained(capsys, kernel="5.18", **versions)["rootfs"] == "chown"
    assert explained(capsys, kernel="5.19", **versions)["rootfs"] == "idmapped"


def test_the_refusal_is_told_in_containerds_own_words(capsys: pytest.CaptureFixture[str]) -> None:
    words = (
        'snapshotter "overlayfs" doesn\'t support idmap mounts on this host, '
        "configure `slow_chown` to allow a slower and expensive fallback"
    )
    assert words == REFUSAL
    answer = explained(capsys, kernel="5.15", kubernetes="1.26", containerd="2.3.5", slow_chown="false")
    assert refusals(answer) == {"containerd-refuses-without-slow-chown"}
    assert any(words in each["message"] for each in answer["findings"])


@pytest.mark.parametrize("snapshotter", ["native", "btrfs", "blockfile", "devmapper", "zfs"])
def test_other_snapshotters_chown_without_an_opt_in(capsys: pytest.CaptureFixture[str], snapshotter: str) -> None:
    versions = {"kernel": "5.15", "kubernetes": "1.26", "containerd": "2.3.5", "snapshotter": snapshotter}
    answer = explained(capsys, **versions, slow_chown="false")
    assert not refusals(answer)
    assert answer["rootfs"] == "chown"


@pytest.mark.parametrize(("containerd", "rootfs"), [("2.2.8", "chown"), ("2.3.0", "idmapped")])
def test_the_document_is_behind_since_2_3_the_erofs_snapshotter_idmaps_too(
    capsys: pytest.CaptureFixture[str], containerd: str, rootfs: str
) -> None:
    assert explained(capsys, kernel="6.12", containerd=containerd, snapshotter="erofs")["rootfs"] == rootfs


def test_the_document_is_optimistic_below_5_12_slow_chown_gives_no_pod(capsys: pytest.CaptureFixture[str]) -> None:
    versions = {"kernel": "5.10", "kubernetes": "1.26", "containerd": "2.3.5"}
    for slow_chown in ("true", "false", "auto"):
        answer = explained(capsys, **versions, slow_chown=slow_chown)
        assert (answer["tier"], answer["rootfs"]) == ("unsupported", "none")
        assert refusals(answer)
