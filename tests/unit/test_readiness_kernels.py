"""Readiness by kernel: its probes decide, and its version only where no probe answered."""

from __future__ import annotations

import pytest

from tests.unit.readiness_cases import ALL_OK, OK, OLD, blockers, cannot, ids, message, outcome, ready, unknown
from userns import requirements
from userns.findings import Severity, apply_allow
from userns.node import Probe

# --- probed: the kernels that were measured ------------------------------------------------------------------------


def test_a_612_kernel_is_ready_and_nothing_is_assumed() -> None:
    found = ready("6.12.117+deb13-cloud-amd64")
    assert outcome(found) == ("idmapped", "idmapped", "all", False)
    assert not found.findings
    assert not found.assumed


def test_a_61_kernel_is_rootfs_only_because_tmpfs_cannot_idmap() -> None:
    found = ready("6.1.0-50-cloud-amd64", probes=ALL_OK | {"tmpfs": cannot()})
    assert outcome(found) == ("rootfs-only", "idmapped", "no-tmpfs", False)
    assert blockers(found) == {"kernel-lacks-tmpfs-idmap"}


def test_the_refusal_of_a_61_kernel_names_the_way_to_accept_it_and_what_works_then() -> None:
    said = message(ready("6.1", probes=ALL_OK | {"tmpfs": cannot()}), "kernel-lacks-tmpfs-idmap")
    assert 'allow = ["kernel-lacks-tmpfs-idmap"]' in said
    assert "automountServiceAccountToken: false" in said
    assert "6.3" in said


def test_allow_makes_it_a_warning_and_hides_nothing() -> None:
    findings = list(ready("6.1", probes=ALL_OK | {"tmpfs": cannot()}).findings)
    (accepted,) = apply_allow(findings, ["kernel-lacks-tmpfs-idmap"])
    assert (accepted.severity, accepted.allowed) == (Severity.WARNING, True)


def test_a_510_kernel_is_unsupported_with_containerd_2_even_with_slow_chown() -> None:
    found = ready("5.10.0-32", probes=dict.fromkeys(ALL_OK, cannot("ENOSYS")), slow_chown=True)
    assert outcome(found) == ("unsupported", "none", "none", False)
    assert blockers(found) == {"kernel-lacks-idmap"}
    assert "slow_chown does not help" in message(found, "kernel-lacks-idmap")


@pytest.mark.parametrize("kernel", ["4.18.0-553.el8", "5.10.0-32", "6.12.5"])
def test_containerd_17_chowns_for_kubernetes_126_on_any_kernel(kernel: str) -> None:
    found = ready(kernel, kubernetes="1.26", containerd="1.7.34", probes={})
    assert outcome(found) == ("chown", "chown", "all", False)
    assert not found.findings
    assert not found.assumed


def test_slow_chown_is_never_written_for_containerd_17() -> None:
    found = ready("5.15", kubernetes="1.25", containerd="1.7.34", slow_chown=True)
    assert not found.slow_chown
    assert ids(found) == {"slow-chown-has-no-effect"}


@pytest.mark.parametrize(("kubernetes", "containerd"), [("1.27", "1.7.34"), ("1.36", "1.6.39"), ("1.24", "2.3.4")])
def test_versions_without_a_requirement_set_are_unsupported(kubernetes: str, containerd: str) -> None:
    found = ready(kubernetes=kubernetes, containerd=containerd)
    assert outcome(found) == ("unsupported", "none", "none", False)
    versions = requirements.check(kubernetes=kubernetes, containerd=containerd)
    assert any(each.severity is Severity.BLOCKER for each in versions)


# --- 5.12 to 5.18: containerd's own test ---------------------------------------------------------------------------


def test_on_515_containerds_own_answer_turns_slow_chown_on() -> None:
    found = ready("5.15.0-100-generic", probes=OLD)
    assert outcome(found) == ("chown", "chown", "no-tmpfs", True)
    # No exact version: it is a comment in config.toml, which an update of the kernel must not change.
    assert "below Linux 5.19" in found.slow_chown_reason
    assert "5.15" not in found.slow_chown_reason
    assert blockers(found) == {"kernel-lacks-tmpfs-idmap"}
    assert "slow-chown-costs" in ids(found)


def test_on_515_kubernetes_126_is_content_with_containerd_2() -> None:
    found = ready("5.15.0", kubernetes="1.26", probes=OLD)
    assert outcome(found) == ("chown", "chown", "all", True)
    assert not blockers(found)


def test_on_515_slow_chown_that_is_asked_for_is_set_and_no_guess_of_ours() -> None:
    found = ready("5.15.0", probes=OLD, slow_chown=True, kubernetes="1.26")
    assert outcome(found) == ("chown", "chown", "all", True)
    assert found.slow_chown_reason.startswith("asked for")
    assert not blockers(found)


def test_on_515_without_slow_chown_a_distributions_newer_kernel_is_named_too() -> None:
    found = ready("5.15.0-9", probes=OLD, slow_chown=False, os_id="ubuntu", os_version="22.04")
    assert "linux-generic-hwe-22.04" in message(found, "containerd-refuses-without-slow-chown")


@pytest.mark.parametrize("overlay", [OK, cannot()], ids=["can", "cannot"])
def test_why_layers_are_idmapped_or_not_is_among_the_reasons(overlay: Probe) -> None:
    found = ready(probes=ALL_OK | {"overlay": overlay})
    told = [statement for statement, _ in found.reasons if "overlay" in statement]
    assert told
    assert all(("cannot" in statement) is (overlay is not OK) for statement in told)


def test_on_515_without_slow_chown_containerds_own_words_are_the_refusal() -> None:
    found = ready("5.15.0", probes=OLD, slow_chown=False)
    assert found.tier == "unsupported"
    assert "containerd-refuses-without-slow-chown" in blockers(found)
    assert (
        'snapshotter "overlayfs" doesn\'t support idmap mounts on this host, '
        "configure `slow_chown` to allow a slower and expensive fallback"
    ) in message(found, "containerd-refuses-without-slow-chown")


def test_where_only_the_test_in_tmpdir_fails_the_refusal_names_the_drop_in_and_blames_no_kernel() -> None:
    found = ready(
        "5.14.0-570.el9.x86_64",
        probes=ALL_OK | {"containerd-check": cannot()},
        slow_chown=False,
        os_id="rhel",
        os_version="9.6",
    )
    assert blockers(found) == {"containerd-refuses-without-slow-chown"}
    said = message(found, "containerd-refuses-without-slow-chown")
    assert "Environment=TMPDIR=/var/tmp" in said
    assert 'slow_chown = "auto"' in said
    assert "Boot" not in said
    assert "RHEL" not in said


def test_el9_backports_count_where_they_are_probed() -> None:
    found = ready("5.14.0-503.el9", probes=ALL_OK | {"containerd-check": OK})
    assert outcome(found) == ("idmapped", "idmapped", "all", False)


def test_el9_with_a_tmpfs_for_tmp_is_chowned_although_its_root_could_idmap() -> None:
    found = ready("5.14.0-503.el9", probes=ALL_OK | {"containerd-check": cannot()})
    assert outcome(found) == ("chown", "chown", "all", True)
    assert "TMPDIR" in message(found, "containerd-test-in-tmpdir")


def test_where_containerds_test_passes_and_its_root_cannot_slow_chown_does_not_help() -> None:
    found = ready("5.14.0-503.el9", probes=ALL_OK | {"containerd-check": OK, "overlay": cannot()}, slow_chown=True)
    assert found.tier == "unsupported"
    assert blockers(found) == {"overlay-cannot-idmap"}


def test_where_containerds_test_could_not_be_made_slow_chown_is_on_to_be_safe() -> None:
    found = ready("5.14.0-503.el9", probes=ALL_OK)
    assert outcome(found) == ("idmapped", "idmapped", "all", True)
    assert found.assumed


# --- 5.19 and later: containerd's fast path ------------------------------------------------------------------------


@pytest.mark.parametrize("slow_chown", ["auto", True, False])
def test_a_root_that_cannot_idmap_is_a_blocker_and_never_a_case_for_slow_chown(slow_chown: bool | str) -> None:
    found = ready(
        "6.8.0",
        slow_chown=slow_chown,
        probes=ALL_OK | {"containerd-root": cannot(), "overlay": cannot()},
        filesystems={"containerd-root": "zfs"},
        paths={"containerd-root": "/pool/containerd"},
    )
    assert found.tier == "unsupported"
    assert blockers(found) == {"containerd-root-cannot-idmap"}
    assert not found.slow_chown
    assert "/pool/containerd (zfs)" in message(found, "containerd-root-cannot-idmap")


def test_layers_that_cannot_be_idmapped_are_a_blocker_on_any_later_kernel() -> None:
    found = ready("6.8.0", probes=ALL_OK | {"overlay": cannot("ENODEV", "overlay")})
    assert blockers(found) == {"overlay-cannot-idmap"}
    assert "put containerd_root on" not in message(found, "overlay-cannot-idmap")


@pytest.mark.parametrize(
    ("errno", "step", "said", "another_disk"),
    [
        ("ENODEV", "overlay", "install the kernel's modules package", False),
        ("EPERM", "overlay", "let this container mount it", False),
        ("EINVAL", "overlay", "slow_chown does not help", True),
        ("EINVAL", "mount_setattr", "slow_chown does not help", True),
        ("EPERM", "user_namespace", "take a virtual machine", False),
    ],
)
def test_another_disk_is_advised_only_where_it_helps(errno: str, step: str, said: str, another_disk: bool) -> None:
    found = message(ready("6.8.0", probes=ALL_OK | {"overlay": cannot(errno, step)}), "overlay-cannot-idmap")
    assert said in found
    assert ("put containerd_root on" in found) is another_disk


def test_slow_chown_on_a_new_kernel_is_written_and_called_idle() -> None:
    found = ready(slow_chown=True)
    assert outcome(found) == ("idmapped", "idmapped", "all", True)
    assert ids(found) == {"slow-chown-has-no-effect"}


def test_a_kubelet_root_that_cannot_idmap_leaves_no_pod_that_starts() -> None:
    found = ready(probes=ALL_OK | {"kubelet-root": cannot()})
    assert outcome(found) == ("unsupported", "idmapped", "none", False)
    assert blockers(found) == {"kubelet-root-cannot-idmap"}


def test_kubernetes_126_idmaps_no_volumes_and_does_not_ask_for_them() -> None:
    found = ready("5.19", kubernetes="1.26", probes=ALL_OK | {"kubelet-root": cannot(), "tmpfs": cannot()})
    assert outcome(found) == ("idmapped", "idmapped", "all", False)
    assert not found.findings


# --- the errno decides what is said --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("errno", "step", "id"),
    [
        ("ENOSYS", "open_tree", "kernel-lacks-idmap"),
        ("ENOSYS", "mount_setattr", "kernel-lacks-idmap"),
        ("EPERM", "mount_setattr", "idmap-disabled"),
        ("EINVAL", "mount_setattr", "containerd-root-cannot-idmap"),
        ("EOPNOTSUPP", "mount_setattr", "containerd-root-cannot-idmap"),
        ("", "owner", "containerd-root-cannot-idmap"),
        ("EPERM", "user_namespace", "idmap-not-in-user-namespace"),
        ("EINVAL", "unshare", "kernel-lacks-user-namespaces"),
        ("ENOSYS", "unshare", "kernel-lacks-user-namespaces"),
        ("EPERM", "unshare", "user-namespaces-forbidden"),
        ("EPERM", "uid_map", "ids-not-mapped"),
        ("EPERM", "gid_map", "ids-not-mapped"),
    ],
)
def test_the_errno_decides(errno: str, step: str, id: str) -> None:
    found = ready(probes=dict.fromkeys(ALL_OK, cannot(errno, step)))
    assert id in blockers(found)
    assert found.tier == "unsupported"
    # containerd 1.7 idmaps nothing, but it makes user namespaces too.
    before = ready(
        kubernetes="1.26", containerd="1.7.34", probes=dict.fromkeys(ALL_OK, cannot(errno, step)), filesystems={}
    )
    makes_none = step in ("unshare", "uid_map", "gid_map")
    assert (blockers(before), before.tier) == (({id}, "unsupported") if makes_none else (set(), "chown"))


@pytest.mark.parametrize("step", ["uid_map", "user_namespace"])
def test_a_container_in_a_user_namespace_is_told_what_helps_and_nothing_of_el_9(step: str) -> None:
    (found,) = ready(
        "5.14.0-570.el9", probes=dict.fromkeys(ALL_OK, cannot("EPERM", step)), os_id="rhel", os_version="9.6"
    ).findings
    for said in ("user namespace of its own", "virtual machine", "LXC: a privileged one", "--private-users"):
        assert said in found.message
    for said in ("EL 9", "RHEL", "6.3", "ext4"):
        assert said not in found.message


@pytest.mark.parametrize("errno", ["EPERM", "ENOSYS", "EINVAL"])
def test_what_the_kernel_can_elsewhere_it_does_not_lack(errno: str) -> None:
    """The id stays the one that the operator knows and may have allowed."""
    assert blockers(ready(probes=ALL_OK | {"tmpfs": cannot(errno)})) == {"kernel-lacks-tmpfs-idmap"}
    assert blockers(ready(probes=ALL_OK | {"overlay": cannot(errno)})) == {"overlay-cannot-idmap"}
    assert blockers(ready(probes=ALL_OK | {"kubelet-root": cannot(errno)})) == {"kubelet-root-cannot-idmap"}


def test_el_90_is_told_that_its_kernel_forbids_it() -> None:
    found = ready("5.14.0-70.el9", probes=dict.fromkeys(ALL_OK, cannot("EPERM")), os_id="almalinux", os_version="9.1")
    assert blockers(found) == {"idmap-disabled"}
    assert "9.3" in message(found, "idmap-disabled")


@pytest.mark.parametrize(
    ("os_id", "os_version", "kernel", "old"),
    [
        ("centos", "9", "5.14.0-621.el9.x86_64", False),
        ("centos", "9", "5.14.0-285.el9.x86_64", True),
        ("rhel", "9.2", "5.14.0-284.11.1.el9_2.x86_64", True),
        ("rhel", "9.2", "5.14.0-362.8.1.el9_3.x86_64", False),
        ("rocky", "9.4", "5.14.0-284.el9", True),
        ("rhel", "9.2", "5.14.0", False),
    ],
)
def test_el_9_goes_by_the_build_of_its_kernel(os_id: str, os_version: str, kernel: str, old: bool) -> None:
    """CentOS Stream 9 is 9 for ever."""
    said = message(ready(kernel, probes={}, os_id=os_id, os_version=os_version), "kernel-lacks-tmpfs-idmap")
    assert ("update to the kernel of 9.3" in said) is old
    assert ("backport idmapped mounts" in said) is not old


@pytest.mark.parametrize("probed", [True, False])
def test_el_93_is_told_to_probe_only_where_nothing_was(probed: bool) -> None:
    found = ready(
        "5.14.0-427.el9.x86_64",
        probes=ALL_OK | {"tmpfs": cannot(), "containerd-check": OK} if probed else {},
        os_id="rhel",
        os_version="9.4",
    )
    said = message(found, "kernel-lacks-tmpfs-idmap")
    assert "backport" in said
    assert ("found by probing only" in said) is not probed


def test_a_node_that_is_refused_anyhow_is_not_told_how_to_be_accepted() -> None:
    refused = ready("5.15.0", probes={}, slow_chown=False)
    assert {"containerd-refuses-without-slow-chown", "kernel-lacks-tmpfs-idmap"} <= blockers(refused)
    assert "accepts the node" not in message(refused, "kernel-lacks-tmpfs-idmap")
    assert "accepts the node" in message(ready("5.15.0", probes={}), "kernel-lacks-tmpfs-idmap")


def test_user_namespaces_used_up_are_cured_by_a_sysctl_and_refuse_nothing() -> None:
    found = ready(probes=dict.fromkeys(ALL_OK, cannot("ENOSPC", "unshare")))
    assert outcome(found) == ("idmapped", "idmapped", "all", False)
    assert ids(found) == {"max-user-namespaces-exhausted", "idmap-not-probed"}
    assert found.assumed
    assert not blockers(found)


def test_where_they_are_used_up_an_old_version_number_refuses_and_says_what_to_do_first() -> None:
    """RHEL 9, whose kernel is no 5.14 in this: its hardening allows none, and a refused node is not changed."""
    none = dict.fromkeys(ALL_OK, cannot("ENOSPC", "unshare"))
    found = ready("5.14.0-503.el9_5.x86_64", probes=none)
    assert blockers(found) == {"kernel-lacks-tmpfs-idmap"}
    assert "by hand first (sysctl -w user.max_user_namespaces=16384)" in message(found, "kernel-lacks-tmpfs-idmap")
    assert "by hand first" not in message(ready("5.14", probes={}), "kernel-lacks-tmpfs-idmap")


@pytest.mark.parametrize(
    ("os_id", "os_version", "kernel", "said"),
    [
        ("debian", "12", "6.1.0-50-amd64", "bookworm-backports"),
        ("ubuntu", "22.04", "5.15.0-100-generic", "linux-generic-hwe-22.04"),
        ("amzn", "2023", "6.1.100", "kernel6.12 or kernel6.18"),
        ("debian", "", "6.1.0", "6.3"),
        ("nixos", "25.11", "6.1.0", "6.3"),
    ],
)
def test_a_distribution_has_its_own_way_out(os_id: str, os_version: str, kernel: str, said: str) -> None:
    found = ready(kernel, probes={}, os_id=os_id, os_version=os_version)
    assert said in message(found, "kernel-lacks-tmpfs-idmap")


# --- nothing probed ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kernel", "expected"),
    [
        ("5.10.0", ("unsupported", "none", "none", False)),
        ("5.11", ("unsupported", "none", "none", False)),
        ("5.12", ("chown", "chown", "no-tmpfs", True)),
        ("5.15.0-100-generic", ("chown", "chown", "no-tmpfs", True)),
        ("5.18.19", ("chown", "chown", "no-tmpfs", True)),
        ("5.19", ("rootfs-only", "idmapped", "no-tmpfs", False)),
        ("6.2.16", ("rootfs-only", "idmapped", "no-tmpfs", False)),
        ("6.3", ("idmapped", "idmapped", "all", False)),
        ("7.2.12", ("idmapped", "idmapped", "all", False)),
    ],
)
def test_without_probes_the_kernels_version_is_assumed(kernel: str, expected: tuple[str, str, str, bool]) -> None:
    found = ready(kernel, probes={})
    assert outcome(found) == expected
    assert found.assumed
    said = message(found, "idmap-not-probed")
    assert said.startswith("not probed; assumed from kernel and file-system versions: ")
    assert "no node was asked" in said


def test_a_kernel_that_cannot_be_read_is_too_old() -> None:
    assert ready("mainline", probes={}).tier == "unsupported"


def test_why_it_was_not_probed_is_told_once() -> None:
    found = ready(probes=dict.fromkeys(ALL_OK, unknown("only root can ask the kernel")))
    assert message(found, "idmap-not-probed").count("only root can ask the kernel") == 1


@pytest.mark.parametrize(
    ("type", "kernel", "can"),
    [
        ("ext4", "5.12", True),
        ("ext2/ext3", "5.12", True),
        ("btrfs", "5.14", False),
        ("btrfs", "5.15", True),
        ("f2fs", "5.17", False),
        ("tmpfs", "6.2", False),
        ("nfs4", "7.2", False),
        ("overlay", "7.2", False),
        ("ramfs", "7.2", False),
        ("fuse.sshfs", "6.8", False),
        ("virtiofs", "6.12", True),
        ("something-new", "7.2", True),
    ],
)
def test_without_a_probe_the_file_system_is_looked_up(type: str, kernel: str, can: bool) -> None:
    found = ready(kernel, kubernetes="1.26", probes={}, filesystems={"containerd-root": type})
    assert (found.rootfs != "none") is can
    assert ("containerd-root-cannot-idmap" in blockers(found)) is not can


@pytest.mark.parametrize(("zfs", "can"), [("2.1.5", False), ("2.2.0", True), ("2.3.1", True), ("", True)])
@pytest.mark.parametrize("root", ["containerd-root", "kubelet-root"])
def test_without_a_probe_zfs_is_judged_by_its_own_version_too(zfs: str, can: bool, root: str) -> None:
    found = ready("6.8.0", probes={}, filesystems={root: "zfs"}, zfs=zfs)
    assert (found.tier == "idmapped") is can
    assert blockers(found) == (set() if can else {f"{root}-cannot-idmap"})
    assert can or "only from version 2.2 of its own on" in message(found, f"{root}-cannot-idmap")
    assert ready("6.8.0", filesystems={root: "zfs"}, zfs=zfs).tier == "idmapped", "a probe beats the version"


def test_a_probe_beats_the_table() -> None:
    assert ready(filesystems={"containerd-root": "nfs4"}).tier == "idmapped"
