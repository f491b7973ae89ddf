"""The probes in a container, a chroot and behind a filter: what is the node's own, and what this login's alone."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests import nodes
from tests.deploy.node_trees import PROBE, TMPFS, Tree, private, probe, run
from userns.reading import read


@pytest.mark.usefixtures("no_trace")
@pytest.mark.parametrize(
    ("count", "answer", "of_tmpfs"),
    [
        (65536, "cannot uid_map EPERM", "cannot uid_map EPERM"),  # what LXC gives by default
        (10_000_000, "cannot user_namespace EPERM", TMPFS),  # IDs enough, and a file system of its host
    ],
)
def test_a_container_in_a_user_namespace_cannot_give_pods_ids_or_idmap_what_its_host_mounted(
    tmp_path: Path, count: int, answer: str, of_tmpfs: str
) -> None:
    os.chown(tmp_path, 100_000, 100_000)
    in_it = [*private(f"mount --bind {tmp_path} /mnt"), "perl", "-e", IN_A_USER_NAMESPACE, f"0 100000 {count}\n"]
    assert probe("/mnt", before=in_it) == {"/mnt": answer, "/mnt overlay": answer, "tmpfs": of_tmpfs}
    node = read(run([*in_it, "sh"]))
    assert node.own_ids == {"uid": ((0, count),), "gid": ((0, count),)}
    assert nodes.plan(node.model_copy(update={"container": "lxc"})).readiness.tier == "unsupported"


def test_a_machine_has_all_ids_itself(tree: Tree, shell: list[str]) -> None:
    assert tree.read(shell).own_ids == {"uid": ((0, 4294967295),), "gid": ((0, 4294967295),)}


# Its root is user 100000 of this machine: MAP COMMAND...
IN_A_USER_NAMESPACE = r"""
my $map = shift; pipe(my $made, my $make); pipe(my $go, my $mapped);
if (!(my $pid = fork)) {
  syscall(272, 0x10020000) == 0 or die; syswrite $make, "x"; sysread $go, my $end, 1;
  syscall(119, 0, 0, 0); syscall(117, 0, 0, 0); exec @ARGV; die;
} else {
  sysread $made, my $end, 1;
  for (qw(uid_map gid_map)) { open(my $file, ">", "/proc/$pid/$_") or die; syswrite $file, $map or die }
  syswrite $mapped, "x"; waitpid $pid, 0; exit $? >> 8;
}
"""
# Behind a filter of system calls that answers unshare(CLONE_NEWUSER) with EPERM: COMMAND...
FILTERED = r"""
my @filter = ([0x20, 0, 0, 0], [0x15, 0, 3, 272], [0x20, 0, 0, 16], [0x45, 0, 1, 0x10000000], [6, 0, 0, 0x50001],
  [6, 0, 0, 0x7fff0000]);
my $code = join "", map { pack "SCCL", @$_ } @filter;
my $program = pack "Sx6P", scalar @filter, $code;
syscall(157, 38, 1, 0, 0, 0) == 0 or die; syscall(317, 1, 0, $program) == 0 or die "$!";
exec @ARGV; die;
"""


@pytest.mark.usefixtures("no_trace")
@pytest.mark.parametrize(
    ("before", "answer"),
    [
        (["perl", "-e", FILTERED], "unknown login EPERM"),  # as RestrictNamespaces= of sshd.service
        (["unshare", "-fp", "--mount-proc", "perl", "-e", FILTERED], "cannot unshare EPERM"),  # a container's PID 1
    ],
    ids=["around this login", "around PID 1"],
)
def test_a_filter_answers_for_the_machine_only_where_pid_1_is_behind_it(
    tmp_path: Path, before: list[str], answer: str
) -> None:
    in_it = [*before, "sh", "-c", '"$@"; exit $?', "sh"]  # PID 1 is not the probe itself
    assert set(probe(tmp_path, before=in_it).values()) == {answer}


@pytest.mark.usefixtures("no_trace")
def test_a_chroot_does_not_answer_for_the_machine(tmp_path: Path) -> None:
    """The kernel lets nobody in a chroot make a user namespace; containerd does not run in it."""
    script = f"""
        mount -t tmpfs none "{tmp_path}" && cd "{tmp_path}" && mkdir dev etc proc tmp usr
        for each in dev etc proc usr; do mount --rbind "/$each" "$each"; done
        for each in bin lib lib64 sbin; do ln -s "usr/$each" "$each"; done"""
    node = run([*private(script), "chroot", str(tmp_path), "sh"])
    probes = read(node).probes
    assert {(each.result, each.step, each.errno) for each in probes.values()} == {("unknown", "login", "EPERM")}


@pytest.mark.usefixtures("no_trace")
@pytest.mark.parametrize(
    ("errno", "machine", "container"),
    [
        ("Operation not permitted", "cannot mount_setattr EPERM", "cannot user_namespace EPERM"),
        ("", "cannot mount_setattr", "cannot user_namespace EPERM"),
        ("Invalid argument", "cannot mount_setattr EINVAL", "cannot mount_setattr EINVAL"),
    ],
)
def test_without_perl_a_user_namespace_is_told_from_a_kernel_that_forbids_it(
    tmp_path: Path, errno: str, machine: str, container: str
) -> None:
    (tmp_path / "mount").write_text(f"#!/bin/sh\necho 'mount: subsequent X-mount.idmap= failed: {errno}'; exit 32\n")
    (tmp_path / "mount").chmod(0o755)
    shutil.copy(PROBE, tmp_path)
    os.chown(tmp_path, 100_000, 100_000)
    script = 'PATH=/mnt:$PATH; . /mnt/probe.sh; have() { [ "$1" != perl ]; }; probe x no idmap here /mnt'
    asking = ["sh", "-c", script]
    place = private(f"mount --bind {tmp_path} /mnt")
    in_it = [*place, "perl", "-e", IN_A_USER_NAMESPACE, "0 100000 10000000\n"]
    for before, answer in ((in_it, container), ([*place, "sh", "-c", 'chown 0:0 /mnt; "$@"', "sh"], machine)):
        said = subprocess.run([*before, *asking], stdout=subprocess.PIPE, text=True, check=True).stdout
        assert " ".join(said.split("\t")[2:5]).strip() == answer
