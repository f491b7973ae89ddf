"""The node script's records, read: a good answer, a banner before it, a cut-off one, and anything at all."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from userns import paths
from userns.node import Binary, ConfLine, DropIn, FileState, Filesystem, Node, Package, Probe, Unit
from userns.reading import read
from userns.reading.records import BEGIN, END, ReadingError

SHA = "b5bb9d8014a0f9b1d61e21e796d78dccdf1352f23cd32812f4850b878ae4944c"
ASSET = "7d865e959b2466918c9863afca942d0fb89d7c9ac0c99bafc3749504ded97730"


def answer(*records: str) -> list[str]:
    """A whole answer with these records; `|` stands for the TAB."""
    lines = [f"{BEGIN}|1", "uptime|100.25", "kernel|6.12.5-amd64|x86_64", *records, "uptime|100.50", END]
    return [line.replace("|", "\t") for line in lines]


def of(*records: str) -> Node:
    return read(answer(*records))


def test_an_answer_with_little_in_it_is_a_node_of_which_little_is_known() -> None:
    node = of()
    assert (node.kernel, node.machine, node.container, node.cgroup) == ("6.12.5-amd64", "x86_64", "none", "unknown")
    assert (node.snapshots, node.systemd, node.binaries, node.seconds) == (None, "", {}, 0.25)
    assert not node.root


def test_a_banner_before_the_answer_is_ignored() -> None:
    banner = ["Welcome to node-7!", "", "kernel\t1.0\tpdp11", "userns-node-begin is what we print"]
    assert read([*banner, *answer("user|0")]) == of("user|0")


def test_what_comes_after_the_last_line_is_ignored() -> None:
    assert read([*answer("user|0"), "Connection closed.", "user\t1"]) == of("user|0")


def test_of_two_answers_the_last_counts() -> None:
    """A login script that calls the node script itself would print one first."""
    assert read([*answer("user|1000"), *answer("user|0")]).root


@pytest.mark.parametrize("kept", range(1, 5))
def test_an_answer_that_was_cut_off_is_refused_and_says_so(kept: int) -> None:
    with pytest.raises(ReadingError, match=rf"cut off after {kept} lines"):
        read(answer()[:kept])


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "lacks its first line: there is none"),
        (["sh: 1: Syntax error"], r"lacks its first line; it begins with 'sh: 1: Syntax error'"),
        ([f"{BEGIN}\t2", END], r"speaks format \['2'\], expected '1'"),
        ([BEGIN, END], r"speaks format \[\], expected '1'"),
        ([f"{BEGIN}\t1", END], "'' is no kernel release"),
        (answer("kernel|Windows|x86_64")[:2] + answer("kernel|NT|x86_64")[3:], "'NT' is no kernel release"),
        (answer("file|/etc/subuid"), "on files makes no sense"),
        (answer("file|/etc/subuid|socket"), "on files makes no sense"),
        (answer("overlay|perhaps|Y"), "on overlay makes no sense"),
        (answer("probe|tmpfs|maybe|||"), "on probes makes no sense"),
        (answer("package|runc|1.1"), "on packages makes no sense"),
        (answer("cgroup|v3"), "cgroup"),
    ],
)
def test_an_answer_that_makes_no_sense_is_refused_by_name(lines: list[str], message: str) -> None:
    with pytest.raises(ReadingError, match=message):
        read(lines)


def test_the_operating_system_is_named_without_quotes() -> None:
    node = of('os|ID|"rhel"', "os|VERSION_ID|'9.4'", "systemd|systemd 252 (252.39-1~deb12u1)", "user|0")
    assert (node.os_id, node.os_version, node.systemd, node.root) == ("rhel", "9.4", "252", True)


def test_a_file_system_is_the_one_of_the_mount_and_stats_word_only_where_there_is_none() -> None:
    node = of(
        "filesystem|containerd-root|/var/lib/containerd|/var/lib|27",
        "filesystem|kubelet-root|/var/lib/kubelet|/var/lib/kubelet|",
        "filesystem|state|/var/lib/userns-node|/|28",
        "space|1000|4096|ext2/ext3|./var/lib",
        "space|?|4096|xfs|./var/lib/kubelet",
        "mount|27|ext4",
    )
    assert node.filesystems == {
        "containerd-root": Filesystem(path="/var/lib/containerd", parent="/var/lib", type="ext4", free_kib=4000),
        "kubelet-root": Filesystem(path="/var/lib/kubelet", parent="/var/lib/kubelet", type="xfs"),
        "state": Filesystem(path="/var/lib/userns-node", parent="/", type=""),
    }


def test_a_managed_file_has_its_digest_mode_and_owner() -> None:
    node = of(
        f"file|{paths.CONFIG}|file",
        f"file|{paths.UNIT}|link",
        f"file|{paths.SUBUID}|absent",
        f"stat|644|0:0|{paths.CONFIG}",
        f"stat|777|0:0|{paths.UNIT}",
        f"sha256|{SHA}|{paths.CONFIG}",
        f"sha256|{ASSET}|{paths.MANIFEST}",
    )
    assert node.files == {
        paths.CONFIG: FileState(kind="file", sha256=SHA, mode="644", owner="0:0"),
        paths.UNIT: FileState(kind="link", mode="777", owner="0:0"),
        paths.SUBUID: FileState(kind="absent"),
    }
    assert node.manifest == ASSET


@pytest.mark.parametrize(
    ("mode", "octal"),
    [("-rw-r--r--", "644"), ("-rwxr-xr-x.", "755"), ("drwxrwxrwt", "1777"), ("-rwsr-Sr-x", "6745"), ("644", "644")],
)
def test_a_mode_that_ls_prints_is_octal_too(mode: str, octal: str) -> None:
    node = of(f"file|{paths.CONFIG}|file", f"stat|{mode}|0:0|{paths.CONFIG}")
    assert node.files[paths.CONFIG].mode == octal


@pytest.mark.parametrize(
    ("program", "text", "version", "component"),
    [
        ("containerd", "containerd github.com/containerd/containerd/v2 v2.1.9 f00ba4", "2.1.9", "containerd"),
        ("containerd", "containerd github.com/containerd/containerd 1.7.24~ds1 1.7.24~ds1-6", "1.7.24", "containerd"),
        ("ctr", "ctr github.com/containerd/containerd/v2 2.1.9+unknown", "2.1.9", "containerd"),
        ("containerd-shim-runc-v2", "containerd-shim-runc-v2:?  Version:  v2.3.0-rc.1?", "2.3.0-rc.1", "containerd"),
        ("runc", "runc version 1.3.6+ds1?commit: 1.3.6+ds1-1?spec: 1.2.1?go: go1.26.2", "1.3.6", "runc"),
        ("crun", "crun version 1.28?commit: 1.28-1?rundir: /run/crun", "1.28", "crun"),
        ("runc", "", "", "runc"),
        ("runc", "go1.26 v2", "", "runc"),
    ],
)
def test_an_unknown_program_has_the_version_that_it_says(program: str, text: str, version: str, component: str) -> None:
    path = f"/usr/local/bin/{program}"
    node = of(f"program|{path}|{text}", f"sha256|{SHA}|{path}")
    assert node.binaries == {path: Binary(sha256=SHA, version=version, recorded=False, component=component)}


def test_a_recorded_program_is_what_the_record_says() -> None:
    node = of(f"binary|/usr/local/sbin/runc|runc|1.3.6|{SHA}|{ASSET}")
    assert node.binaries == {
        "/usr/local/sbin/runc": Binary(sha256=SHA, version="1.3.6", recorded=True, component="runc", asset=ASSET)
    }


def test_probes_that_gave_no_answer_are_unknown() -> None:
    node = of("probe|tmpfs|cannot|mount_setattr|EINVAL|Invalid argument", "probe|containerd-check|ok|||")
    assert node.probes["tmpfs"] == Probe(
        result="cannot", step="mount_setattr", errno="EINVAL", detail="Invalid argument"
    )
    assert node.probes["containerd-check"] == Probe(result="ok")
    for name in ("containerd-root", "kubelet-root", "overlay"):
        assert node.probes[name] == Probe(result="unknown", detail="the probe gave no answer")
    assert "containerd-check" not in of().probes


def test_only_numbers_are_sysctls() -> None:
    node = of(
        "sysctl-live|user/max_user_namespaces|96364",
        "sysctl-live|kernel/modules_disabled|",
        "sysctl-live|fs/x|12 13",
        f"sysctl-live|fs/y|{'9' * 5000}",
    )
    assert node.sysctls == {"user.max_user_namespaces": 96364}


def test_sysctl_lines_are_in_the_order_in_which_they_take_effect() -> None:
    files = ["/etc/sysctl.conf", "/etc/sysctl.d/90-a.conf", "/usr/lib/sysctl.d/10-b.conf", "/run/sysctl.d/95-c.conf"]
    node = of(*(f"sysctl|{file}|user.max_user_namespaces=1" for file in files))
    assert [each.file for each in node.sysctl_lines] == [files[2], files[1], files[3], files[0]]


def test_only_lines_about_overlay_in_other_peoples_files_are_modprobe_lines() -> None:
    other = "/etc/modprobe.d/other.conf"
    concern = [
        "options overlay metacopy=N",
        "blacklist overlay",
        "install overlay /bin/false",
        "alias fs-overlay off",
        "# unreadable",
    ]
    others = ["options overlayfoo x=1", "blacklist foo # overlay", "install foo modprobe overlay", "overlay"]
    node = of(
        *(f"modprobe|{other}|{line}" for line in [*concern, *others]),
        f"modprobe|{paths.MODPROBE}|options overlay metacopy=Y",
    )
    assert node.modprobe_lines == tuple(ConfLine(file=other, line=line) for line in concern)


def test_units_are_named_without_their_suffix() -> None:
    node = of(
        "unit|containerd.service|LoadState|loaded",
        "unit|containerd.service|ActiveState|active",
        "unit|containerd.service|SubState|running",
        "unit|containerd.service|UnitFileState|enabled",
        "unit|containerd.service|FragmentPath|/etc/systemd/system/containerd.service",
        "unit|containerd.service|ExecStart|/usr/local/bin/containerd",
        "unit|containerd.service|Unheard|of",
        "unit|podman.socket|LoadState|not-found",
    )
    assert node.units == {
        "containerd": Unit(
            load="loaded",
            active="active",
            sub="running",
            enabled="enabled",
            fragment="/etc/systemd/system/containerd.service",
            exec_start="/usr/local/bin/containerd",
        ),
        "podman": Unit(),
    }


def test_only_installed_packages_count_and_holds_are_seen() -> None:
    node = of("package|containerd|1.7.24~ds1-6|hi ", "package|runc|1.1.15+ds1-2|ii ", "package|docker.io|20|rc ")
    assert node.packages == {
        "containerd": Package(version="1.7.24~ds1-6", held=True),
        "runc": Package(version="1.1.15+ds1-2"),
    }


def test_drop_ins_have_their_version_and_tables() -> None:
    a, b, c = (f"/etc/containerd/conf.d/{name}.toml" for name in "abc")
    node = of(
        f"drop-in|{a}|readable",
        f"drop-in-version|{a}|+3",
        f"table|{a}|plugins|io.containerd.cri.v1.runtime",
        f"table|{a}|plugins|io.containerd.cri.v1.runtime",
        f"drop-in|{b}|readable",
        f"drop-in-version|{b}|03",
        f"drop-in|{c}|unreadable",
    )
    assert node.drop_ins == (
        DropIn(path=a, version=3, tables=('plugins."io.containerd.cri.v1.runtime"',)),
        DropIn(path=b),
        DropIn(path=c, unreadable=True),
    )


def test_the_rest_of_the_records() -> None:
    node = of(
        "container|lxc",
        "cgroup|hybrid",
        "selinux|enforcing",
        "tools|curl|tar",
        "overlay|module|",
        "snapshots|yes",
        "unfinished|swapping",
        "unproven|yes",
        "gpu-hook|nvidia-ctk",
        "subuid|# ours",
        "subuid|kubelet:65536:7208960",
        "subuid|23 20 63 c3 a9 09|hex",
        "subgid|",
        "kubelet-user|kubelet:x:997:997::/:/usr/sbin/nologin",
        "kubelet-version|Kubernetes v1.34.2",
    )
    assert (node.container, node.cgroup, node.selinux, node.tools) == ("lxc", "hybrid", "enforcing", ("curl", "tar"))
    assert (node.overlay.state, node.overlay.metacopy, node.snapshots) == ("module", "", True)
    assert (node.unfinished, node.unproven, node.gpu_hooks) == ("swapping", True, ("nvidia-ctk",))
    assert (node.subuid, node.subgid) == (("# ours", "kubelet:65536:7208960", "# c\u00e9\t"), ("",))
    assert (node.kubelet_user, node.kubelet_version) == ("997", "1.34.2")


def test_a_node_goes_into_json_and_back() -> None:
    node = of(f"file|{paths.CONFIG}|file", "probe|tmpfs|ok|||", "snapshots|no", "subuid|a:1:2")
    assert Node.model_validate(node.to_json()) == node


KINDS = (
    "uptime kernel os user container cgroup selinux tools sysctl-live overlay filesystem space mount modprobe sysctl "
    "drop-in drop-in-version table subuid kubelet-user kubelet-version file stat sha256 binary program snapshots "
    "selinux-domain gpu-hook systemd unit package probe unfinished unproven"
)
FIELD = st.one_of(
    st.text(max_size=12),
    st.sampled_from(["file", "ok", "yes", "1", "-1", "1e999", "nan", "9" * 400, paths.MANIFEST, "v2", "ii ", "/", ""]),
)
RECORD = st.builds(
    lambda kind, fields: "\t".join([kind, *fields]), st.sampled_from(KINDS.split()), st.lists(FIELD, max_size=7)
)


@given(st.lists(RECORD, max_size=12))
@example(["uptime\tnan", "uptime\tinf"])
def test_no_record_raises_anything_but_a_reading_error(records: list[str]) -> None:
    with suppress(ReadingError):
        node = read([f"{BEGIN}\t1", "kernel\t6.1\tx86_64", *records, END])
        json.dumps(node.to_json(), allow_nan=False)


@given(st.lists(st.text(), max_size=8))
def test_no_text_raises_anything_but_a_reading_error(lines: list[str]) -> None:
    with pytest.raises(ReadingError):
        read(lines)
