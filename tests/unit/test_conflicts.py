"""What on a node stands in the way: a clean node says nothing, and each trouble is named with its cure."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from userns import conflicts, paths, tables
from userns.conflicts import Wants
from userns.findings import Finding, Severity
from userns.node import Binary, ConfLine, FileState, Filesystem, Node, Overlay, Package, Process, Unit
from userns.overlay import comes_on

NODE = Node(
    kernel="6.12.5",
    machine="x86_64",
    systemd="257",
    cgroup="v2",
    tools=(
        "flock",
        "awk",
        "sha256sum",
        "systemd-run",
        "base64",
        "tar",
        "gzip",
        "curl",
        "getent",
        "getsubids",
        "useradd",
        "apt-get",
    ),
    overlay=Overlay(state="loaded", metacopy="Y"),
    sysctls={"user.max_user_namespaces": 63000},
    filesystems={
        "install": Filesystem(path="/usr/local/bin", parent="/usr/local/bin", type="ext4", free_kib=9_000_000),
        "state": Filesystem(path="/var/lib/userns-node", parent="/var/lib", type="ext4", free_kib=9_000_000),
    },
    units={"containerd": Unit(load="loaded", fragment=paths.UNIT, exec_start="/usr/local/bin/containerd")},
    binaries={"/usr/local/bin/containerd": Binary(version="2.3.4", component="containerd")},
    kubelet_version="1.36.1",
    selinux="",
)
WANTS = Wants(kubernetes_version="1.36", containerd_version="2.3.4", metacopy=True, max_user_namespaces=16384)


def node(**changed: Any) -> Node:
    return NODE.model_copy(update=changed)


def wants(**changed: Any) -> Wants:
    fields = {name: getattr(WANTS, name) for name in Wants.__dataclass_fields__}
    return Wants(**(fields | changed))


def found(some: Node = NODE, wanted: Wants = WANTS) -> dict[str, Finding]:
    # The range that the kubelet takes by default is no trouble of a node's, see test_kubelet_range.py.
    return {each.id: each for each in conflicts.check(some, wanted) if each.id != "kubelet-default-range"}


def severities(some: Node = NODE, wanted: Wants = WANTS) -> dict[str, str]:
    return {id: each.severity.value for id, each in found(some, wanted).items()}


def unit(**fields: Any) -> dict[str, Unit]:
    return {"containerd": Unit(**fields)}


def test_a_clean_node_says_nothing() -> None:
    assert found() == {}


@pytest.mark.parametrize(
    ("changed", "id", "severity"),
    [
        ({"root": False}, "not-root", "blocker"),
        ({"systemd": ""}, "no-systemd", "blocker"),
        ({"systemd": "219"}, "systemd-too-old", "blocker"),
        ({"systemd": "235"}, "systemd-too-old", "blocker"),
        ({"machine": "mips64"}, "architecture-unknown", "blocker"),
        ({"machine": ""}, "architecture-unknown", "blocker"),
        ({"cgroup": "v1"}, "cgroup-v1", "blocker"),
        ({"cgroup": "hybrid"}, "cgroup-v1", "blocker"),
        ({"tools": ("awk", "flock", "sha256sum", "systemd-run", "base64", "tar", "gzip")}, "tools-missing", "blocker"),
        ({"tools": ()}, "tools-missing", "blocker"),
        ({"sysctls": {}}, "kernel-lacks-user-namespaces", "blocker"),
        ({"units": unit(load="masked")}, "containerd-masked", "blocker"),
        ({"units": unit(load="loaded", enabled="masked")}, "containerd-masked", "blocker"),
        ({"units": {"k3s-agent": Unit(load="loaded")}}, "kubernetes-brings-containerd", "blocker"),
        ({"units": {"snap.microk8s.daemon-kubelite": Unit(load="loaded")}}, "kubernetes-brings-containerd", "blocker"),
        ({"units": {"crio": Unit(load="loaded", active="active")}}, "crio-runs", "blocker"),
        ({"units": {"nodeadm-run": Unit(load="loaded")}}, "config-written-at-boot", "warning"),
        ({"units": {"docker": Unit(load="loaded")}}, "metacopy-and-builds", "warning"),
        ({"units": {"podman": Unit(load="loaded")}}, "metacopy-and-builds", "warning"),
        ({"overlay": Overlay(state="builtin", metacopy="Y")}, "overlay-builtin", "note"),
        ({"overlay": Overlay(state="absent")}, "overlay-missing", "blocker"),
        ({"gpu_hooks": ("nvidia-cdi-hook",)}, "gpu-hooks", "warning"),
        ({"selinux": "enforcing"}, "selinux-confines-no-container", "warning"),
        ({"unfinished": "2026-11-23T10:00:00"}, "unfinished-change", "note"),
        ({"container": "systemd-nspawn"}, "kernel-shared", "note"),
    ],
)
def test_is_named(changed: dict[str, Any], id: str, severity: str) -> None:
    assert severities(node(**changed)) == {id: severity}


def test_a_second_containerd_that_runs_is_named_with_its_unit() -> None:
    with_its_own = Process(pid=7, program="/opt/bin/containerd", unit="mine.service")
    at_ours = with_its_own.model_copy(update={"uses_root": True})
    assert severities(node(other_containerds=(with_its_own,))) == {"containerd-second-running": "note"}
    message = found(node(other_containerds=(at_ours,)))["containerd-second-running"].message
    assert "/opt/bin/containerd (pid 7, mine.service)" in message
    assert "systemctl disable --now mine.service" in message
    by_hand = at_ours.model_copy(update={"unit": ""})
    assert severities(node(other_containerds=(by_hand,))) == {"containerd-second-running": "blocker"}
    assert "kill 7" in found(node(other_containerds=(by_hand,)))["containerd-second-running"].message
    assert severities(node(other_containerds=(at_ours,)), wants(image=True)) == {}


def test_a_missing_program_is_named_with_its_package() -> None:
    said = found(node(tools=("awk", "sha256sum", "systemd-run", "base64", "tar", "gzip", "wget")))[
        "tools-missing"
    ].message
    assert "flock (package util-linux)" in said
    assert "curl" not in said


def test_packages_need_apt() -> None:
    without = node(tools=tuple(tool for tool in NODE.tools if tool != "apt-get"), units={}, binaries={})
    assert "apt-get" in found(without, wants(install_from="package"))["tools-missing"].message
    assert "tools-missing" not in found(without, wants(install_from="release"))


@pytest.mark.parametrize(("install_from", "needed"), [("release", True), ("bundle", False), ("package", False)])
def test_only_a_release_is_fetched_by_the_node(install_from: str, needed: bool) -> None:
    without = tuple(tool for tool in NODE.tools if tool != "curl")
    some = node(tools=without, units={}, binaries={})
    assert ("tools-missing" in found(some, wants(install_from=install_from))) is needed


def test_a_node_that_has_everything_needs_no_program_to_fetch_it_and_no_space() -> None:
    full = {"install": Filesystem(path="/usr/local/bin", parent="/", type="ext4", free_kib=1024)}
    some = node(tools=("awk", "flock", "sha256sum", "systemd-run", "base64"), filesystems=full)
    assert found(some, wants(installs=False)) == {}
    assert set(found(some)) == {"tools-missing", "no-space"}


@pytest.mark.parametrize(
    ("image", "free", "says"),
    [
        (False, 399, "400 MiB are needed to stage the new programs while two older sets are kept"),
        (False, 400, ""),
        (True, 239, "240 MiB are needed while the new programs are put in place, which are there twice until then"),
        (True, 240, ""),
    ],
)
def test_too_little_space_is_told_with_both_figures(image: bool, free: int, says: str) -> None:
    full = {"state": Filesystem(path="/var/lib/userns-node", parent="/var", type="xfs", free_kib=free * 1024)}
    made = found(node(filesystems=full), wants(image=image)).get("no-space")
    assert (made.message if made else "") == (
        f"/var has {free} MiB free, and {says} (/var/lib/userns-node): make room" if says else ""
    )


def test_what_no_figure_is_known_of_is_not_called_too_little() -> None:
    untold = {"state": Filesystem(path="/var/lib/userns-node", parent="/var", type="xfs")}
    assert "no-space" not in found(node(filesystems=untold))


@pytest.mark.parametrize("key", ["install", "state"])
def test_what_is_mounted_read_only_is_refused_where_there_is_something_to_install(key: str) -> None:
    frozen = NODE.filesystems[key].model_copy(update={"read_only": True})
    some = node(filesystems=NODE.filesystems | {key: frozen})
    assert severities(some) == {"read-only": "blocker"}
    assert severities(some, wants(installs=False)) == severities(some, wants(image=True)) == {}


def test_a_package_needs_no_architecture_of_ours() -> None:
    assert "architecture-unknown" not in found(node(machine="loongarch64"), wants(install_from="package"))


@pytest.mark.parametrize(
    ("here", "wanted", "told", "said"),
    [
        ("1.35.0", "1.35", {}, "the kubelet here (1.35.0) does not start on it"),
        ("1.36.1", "1.33", {}, "the kubelet here (1.36.1) does not start on it"),
        ("1.34.2", "1.36", {}, "a kubelet 1.36 does not start on it"),  # the one that is to come
        ("", "1.36", {}, "a kubelet 1.36 does not start on it"),
        ("1.36.1", "1.36", {"failCgroupV1": "true"}, "the kubelet here (1.36.1) does not start on it"),
        ("1.36.1", "1.36", {"failCgroupV1": "false"}, ""),
        ("1.36.1", "1.36", {"failCgroupV1": "False"}, ""),
        ("1.35.0-rc.1", "1.35.0-rc.1", {}, "the kubelet here (1.35.0-rc.1) does not start on it"),
        ("1.34.2", "1.34", {}, ""),
        ("", "1.34", {}, ""),
    ],
)
def test_a_kubelet_that_does_not_start_on_cgroup_v1_refuses_the_node(
    here: str, wanted: str, told: dict[str, str], said: str
) -> None:
    for cgroup in ("v1", "hybrid"):
        some = node(cgroup=cgroup, kubelet_version=here, kubelet_config=told)
        finding = found(some, wants(kubernetes_version=wanted))["cgroup-v1"]
        assert finding.severity is (Severity.BLOCKER if said else Severity.WARNING)
        assert said in finding.message
        assert "systemd.unified_cgroup_hierarchy=1" in finding.message


# --- the kubelet ---------------------------------------------------------------------------------------------------


def test_a_kubelet_of_another_minor_is_a_warning() -> None:
    assert severities(node(kubelet_version="1.33.4")) == {"kubernetes-version-mismatch": "warning"}


@pytest.mark.parametrize("wanted", ["1.25", "1.36"])
def test_a_kubelet_without_user_namespaces_is_to_be_upgraded_as_no_setting_takes_its_version(wanted: str) -> None:
    some, wish = node(kubelet_version="1.24.17"), wants(kubernetes_version=wanted, containerd_version="1.7.34")
    said = found(some, wish)["kubernetes-version-mismatch"]
    assert said.severity is Severity.BLOCKER
    assert said.message.endswith("begin with 1.25: upgrade this kubelet first")
    assert "Set kubernetes_version" not in said.message
    assert (
        "Set kubernetes_version" in found(node(kubelet_version="1.26.1"), wish)["kubernetes-version-mismatch"].message
    )


def test_a_kubelet_with_other_requirements_is_a_blocker() -> None:
    said = found(node(kubelet_version="1.26.15"))["kubernetes-version-mismatch"]
    assert said.severity is Severity.BLOCKER
    assert 'kubernetes_version = "1.26"' in said.message


def test_a_kubelet_that_the_tables_do_not_know_is_one_to_set_all_the_same() -> None:
    said = found(node(kubelet_version="1.39.0"))["kubernetes-version-mismatch"]
    assert said.severity is Severity.WARNING
    assert said.message.endswith('Set kubernetes_version = "1.39" for this node')


@pytest.mark.parametrize("version", ["", "1.36.9"])
def test_a_kubelet_of_the_same_minor_or_none_yet_is_fine(version: str) -> None:
    assert found(node(kubelet_version=version)) == {}


# --- user.max_user_namespaces at boot ------------------------------------------------------------------------------

OURS = ConfLine(file=paths.SYSCTL, line="user.max_user_namespaces = 16384")


def late(file: str, value: str) -> ConfLine:
    return ConfLine(file=file, line=f"user.max_user_namespaces = {value}")


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ((OURS,), False),
        ((late("/etc/sysctl.d/10-hardening.conf", "0"), OURS), False),
        ((OURS, late("/etc/sysctl.d/99-hardening.conf", "0")), True),
        ((OURS, late("/usr/lib/sysctl.d/99-hardening.conf", "0")), True),
        ((OURS, late("/etc/sysctl.conf", "1000")), True),
        ((OURS, late("/etc/sysctl.d/99-more.conf", "63000")), False),
        ((OURS, late("/etc/sysctl.d/98-a.conf", "0"), late("/etc/sysctl.d/99-b.conf", "63000")), False),
        ((late("/etc/sysctl.d/10-hardening.conf", "0"),), True),  # raised by hand: no file of ours is written
        ((late("/etc/sysctl.d/10-x.conf", "infinite"),), False),
        ((), False),
    ],
)
def test_a_file_that_lowers_the_limit_again_at_boot_is_told(lines: tuple[ConfLine, ...], told: bool) -> None:
    assert ("sysctl-overridden" in found(node(sysctl_lines=lines))) is told


@pytest.mark.parametrize(("figure", "said"), [("109", "pods would fail"), ("110", "pods may fail"), ("15000", "may")])
def test_pods_are_said_to_fail_for_sure_only_below_one_namespace_each(figure: str, said: str) -> None:
    some = node(sysctl_lines=(late("/etc/sysctl.d/99-x.conf", figure),))
    assert said in found(some)["sysctl-overridden"].message


def test_a_file_before_ours_is_no_matter_where_ours_is_about_to_be_written() -> None:
    some = node(sysctls={"user.max_user_namespaces": 0}, sysctl_lines=(late("/etc/sysctl.d/10-hardening.conf", "0"),))
    assert found(some) == {}


def test_a_container_is_told_what_its_host_has_to_set() -> None:
    shared = node(
        container="lxc", sysctls={"user.max_user_namespaces": 10}, overlay=Overlay(state="loaded", metacopy="N")
    )
    said = found(shared)["kernel-shared"]
    assert said.severity is Severity.WARNING
    assert "user.max_user_namespaces is 10, and 16384 are needed" in said.message
    assert "metacopy is N" in said.message


@pytest.mark.parametrize("systemd", ["236", "258~rc1"])
def test_a_systemd_that_is_new_enough_or_says_no_number_is_served(systemd: str) -> None:
    assert found(node(systemd=systemd)) == {}


def test_an_image_has_no_cgroups_of_its_own_whatever_its_build_host_has() -> None:
    assert "cgroup-v1" not in found(node(cgroup="v1"), wants(image=True))


def test_the_package_manager_is_needed_where_it_is_to_install_something() -> None:
    some, packaged = node(tools=tuple(tool for tool in NODE.tools if tool != "apt-get")), {"install_from": "package"}
    assert "tools-missing" in found(some, wants(installs=True, **packaged))
    assert "tools-missing" not in found(some, wants(installs=False, **packaged))


def test_of_a_container_whose_limit_is_not_to_be_seen_nothing_is_told_of_it() -> None:
    told = found(node(container="lxc", sysctls={}))
    assert told["kernel-shared"].severity is Severity.NOTE
    assert "max-user-namespaces-too-low" not in told


@pytest.mark.parametrize(("live", "refuses"), [(0, True), (109, True), (110, False), (16383, False), (16384, False)])
def test_what_a_containers_host_has_to_raise_for_its_pods_is_a_blocker(live: int, refuses: bool) -> None:
    told = found(node(container="lxc", sysctls={"user.max_user_namespaces": live}))
    assert (told["kernel-shared"].severity is Severity.WARNING) is (live < 16384)
    assert ("max-user-namespaces-too-low" in told) is refuses
    if refuses:
        said = told["max-user-namespaces-too-low"]
        assert said.severity is Severity.BLOCKER
        assert f"user.max_user_namespaces is {live}, and 110 pods" in said.message
        assert "raise it on its host (sysctl -w user.max_user_namespaces=16384" in said.message
    assert "max-user-namespaces-too-low" not in found(node(sysctls={"user.max_user_namespaces": live})), "raised here"


# --- overlay -------------------------------------------------------------------------------------------------------


def modprobe(line: str, file: str = "/etc/modprobe.d/site.conf") -> dict[str, Any]:
    return {"modprobe_lines": (ConfLine(file=file, line=line),)}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("options overlay metacopy=N", {"modprobe-metacopy": "warning"}),
        ("options overlay metacopy=off index=on", {"modprobe-metacopy": "warning"}),
        ("options overlay nfs_export=on", {"modprobe-metacopy": "warning"}),
        ("options overlay redirect_dir=off", {"modprobe-redirect-dir": "note"}),
        ("options overlay metacopy=Y", {}),
        ("options overlay metacopy", {}),
        ("options overlay index=off", {}),
        ("install overlay /bin/true", {"overlay-not-loadable": "warning"}),
        ("install overlay /bin/modprobe --ignore-install overlay", {}),
        ("blacklist overlay", {"overlay-blacklisted": "note"}),
        ("softdep overlay pre: ext4", {}),
        ("# unreadable", {}),
    ],
)
def test_other_peoples_lines_in_modprobe_d(line: str, expected: dict[str, str]) -> None:
    assert severities(node(**modprobe(line))) == expected


def test_a_module_that_may_not_be_loaded_is_a_blocker_until_it_is() -> None:
    some = node(overlay=Overlay(state="module"), **modprobe("install overlay /bin/false"))
    assert severities(some)["overlay-not-loadable"] == "blocker"
    locked = node(overlay=Overlay(state="module"), sysctls=NODE.sysctls | {"kernel.modules_disabled": 1})
    assert severities(locked)["overlay-not-loadable"] == "blocker"


def test_our_own_modprobe_file_is_no_conflict() -> None:
    assert found(node(**modprobe("options overlay metacopy=N", paths.MODPROBE))) == {}


def test_another_snapshotter_needs_no_overlay() -> None:
    assert found(node(overlay=Overlay(state="absent")), wants(snapshotter="devmapper", metacopy=None)) == {}


@pytest.mark.parametrize(("snapshots", "refused"), [(True, True), (None, True), (False, False)])
def test_metacopy_is_not_turned_off_under_snapshots(snapshots: bool | None, refused: bool) -> None:
    some = found(node(snapshots=snapshots), wants(metacopy=False))
    assert ("metacopy-off-with-snapshots" in some) is refused


def test_metacopy_is_not_turned_off_under_the_layers_of_others() -> None:
    there = node(snapshots=False, other_layers=("/var/lib/docker/overlay2",))
    said = found(there, wants(metacopy=False))["metacopy-off-with-snapshots"]
    assert "there are layers in /var/lib/docker/overlay2: each" in said.message
    assert "metacopy-off-with-snapshots" not in found(there, wants(metacopy=None))


def test_what_turns_it_off_at_each_boot_is_told_where_overlay_is_built_in() -> None:
    there = {"overlay": Overlay(state="builtin", metacopy="Y"), "snapshots": False}
    said = found(node(**there), wants(metacopy=False))["overlay-builtin"]
    assert "overlay.metacopy=N on the kernel's command line" in said.message
    there["overlay"] = Overlay(state="builtin", metacopy="N")
    assert found(node(**there), wants(metacopy=False)) == {}


@pytest.mark.parametrize(
    ("line", "default", "on"),
    [
        *(("options overlay metacopy=N", "Y", False), ("options overlay metacopy=on", "N", True)),
        *(("options overlay index=on", "Y", True), ("options overlay metacopy", "", True)),
    ],
)
def test_a_module_comes_on_as_modprobe_d_says_else_by_its_default(line: str, default: Any, on: bool) -> None:
    some = node(overlay=Overlay(state="module", default=default), **modprobe(line))
    assert comes_on(some) is on
    assert not comes_on(some.model_copy(update={"overlay": Overlay(state="loaded", metacopy="N")}))


@pytest.mark.parametrize("metacopy", ["", "N"])
def test_metacopy_that_is_on_from_the_next_boot_counts_as_on(metacopy: Any) -> None:
    """As where overlay is not loaded yet, or where somebody turned it off by hand."""
    there = {"overlay": Overlay(state="module", metacopy=metacopy), "snapshots": True}
    assert "metacopy-off-with-snapshots" not in found(node(**there), wants(metacopy=False))
    option = {paths.MODPROBE: FileState(kind="file", sha256="0" * 64)}
    said = found(node(**there, files=option), wants(metacopy=False))["metacopy-off-with-snapshots"]
    assert said.severity is Severity.BLOCKER
    assert paths.MODPROBE in said.message


@pytest.mark.parametrize(
    ("default", "line", "other_layers"),
    [("Y", "", ()), ("N", "options overlay metacopy=on", ()), ("Y", "", ("/var/lib/docker/overlay2",))],
)
def test_metacopy_that_comes_on_with_the_module_counts_unless_it_was_off_since_each_boot(
    default: Any, line: str, other_layers: tuple[str, ...]
) -> None:
    """As after a boot, before containerd has loaded overlay: what is there was made with it on."""
    overlay = Overlay(state="module", default=default)
    there = node(
        overlay=overlay, snapshots=not other_layers, other_layers=other_layers, **(modprobe(line) if line else {})
    )
    said = found(there, wants(metacopy=False))["metacopy-off-with-snapshots"]
    assert "metacopy comes on with its module and " in said.message
    kept_off = wants(metacopy=False, metacopy_kept_off=True)
    assert "metacopy-off-with-snapshots" not in found(there, kept_off)
    there = there.model_copy(update={"overlay": Overlay(state="loaded", metacopy="Y")})
    assert "metacopy-off-with-snapshots" in found(there, kept_off)


@pytest.mark.parametrize("theirs", ["containerd.io", "moby-containerd"])
def test_packages_that_apt_would_take_away_are_not_replaced(theirs: str) -> None:
    """apt-get -y removes docker-ce with it, and every container that Docker runs."""
    docker = node(packages={theirs: Package(version="2.1.5-1"), "docker-ce": Package(version="5:29.0.1-1")})
    assert "package-conflicts" not in found(docker)
    said = found(docker, wants(install_from="package"))["package-conflicts"]
    assert said.severity is Severity.BLOCKER
    assert said.message.startswith(f"{theirs} is installed")
    assert "package-conflicts" not in found(
        node(packages={"docker.io": Package(version="1")}), wants(install_from="package")
    )


def test_metacopy_that_is_left_alone_is_nobodys_conflict() -> None:
    some = node(units={"docker": Unit(load="loaded")}, **modprobe("options overlay metacopy=N"))
    assert found(some, wants(metacopy=None)) == {}


# --- an image ------------------------------------------------------------------------------------------------------


def test_nothing_that_runs_on_the_build_host_is_held_against_an_image() -> None:
    image = node(systemd="257", sysctls={}, container="docker", tools=("awk", "base64", "flock", "sha256sum"))
    assert found(image, wants(image=True)) == {}


def test_an_image_needs_systemd_in_it_for_its_boot() -> None:
    assert severities(node(systemd=""), wants(image=True)) == {"no-systemd": "blocker"}


# --- properties ----------------------------------------------------------------------------------------------------

words = st.sampled_from(
    ["options", "install", "blacklist", "overlay", "metacopy=N", "nfs_export", "=", "", "/bin/false"]
)
lines = st.builds(
    ConfLine,
    file=st.sampled_from(["/etc/sysctl.conf", "/etc/modprobe.d/a.conf", paths.SYSCTL, paths.MODPROBE, ""]),
    line=st.lists(words, max_size=5).map(" ".join) | st.text(max_size=20),
)
nodes = st.builds(
    Node,
    kernel=st.just("6.12"),
    machine=st.sampled_from(["x86_64", "mips", ""]),
    container=st.sampled_from(["none", "lxc"]),
    systemd=st.sampled_from(["", "219", "257", "x"]),
    cgroup=st.sampled_from(["v1", "v2", "hybrid", "unknown"]),
    overlay=st.builds(Overlay),
    sysctls=st.dictionaries(st.sampled_from(["user.max_user_namespaces", "kernel.modules_disabled"]), st.integers()),
    sysctl_lines=st.tuples(lines, lines),
    modprobe_lines=st.tuples(lines, lines),
    units=st.dictionaries(st.sampled_from(["containerd", "docker", "crio", "k3s"]), st.builds(Unit)),
    binaries=st.dictionaries(st.sampled_from(["/usr/bin/containerd", "/x/containerd", ""]), st.builds(Binary)),
    subuid=st.tuples(st.text(max_size=12)),
    kubelet_user=st.sampled_from(["", "997"]),
    kubelet_version=st.sampled_from(["", "1.26.1", "1.33.1", "1.36.0"]),
    snapshots=st.none() | st.booleans(),
)


@given(
    some=nodes,
    metacopy=st.none() | st.booleans(),
    install_from=st.sampled_from(["release", "package", "bundle"]),
    id_range=st.none() | st.just((65536, 7208960)),
    image=st.booleans(),
)
def test_any_node_is_judged_the_same_way_twice(
    some: Node, metacopy: bool | None, install_from: str, id_range: tuple[int, int] | None, image: bool
) -> None:
    wanted = wants(metacopy=metacopy, install_from=install_from, kubelet_id_range=id_range, image=image)
    findings = conflicts.check(some, wanted)
    assert findings == conflicts.check(some, wanted)
    assert all(each.id in tables.KNOWN_IDS and each.message for each in findings)
