"""The other managed files: unit, hook, options and sub-ID ranges; the hook is run for real by dash."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2 import UndefinedError

from tests.conftest import program
from userns import paths, render

TEMPLATES = {path.name: path.read_text() for path in (Path(__file__).parents[2] / "templates").iterdir()}
SHELLS = ("dash", "bash")


PARTS = {"check-decide.sh.j2"}  # of another file


@pytest.mark.parametrize("name", sorted(name for name in TEMPLATES if name.endswith(".j2") and name not in PARTS))
def test_each_template_says_who_owns_the_file(name: str) -> None:
    assert "Managed by userns-node" in "\n".join(TEMPLATES[name].splitlines()[:2])


def test_a_value_that_is_not_given_is_an_error() -> None:
    with pytest.raises(UndefinedError):
        render.fill(TEMPLATES, "sysctl.conf.j2")


# --- containerd.service ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        "ExecStartPre=-/sbin/modprobe overlay",
        f"ExecStart={paths.INSTALLED['containerd']}",
        "Type=notify",
        "Delegate=yes",
        "KillMode=process",
        "Restart=always",
        "RestartSec=5",
        "LimitNPROC=infinity",
        "LimitCORE=infinity",
        "TasksMax=infinity",
        "OOMScoreAdjust=-999",
        "WantedBy=multi-user.target",
    ],
)
def test_the_unit_is_upstreams(line: str) -> None:
    assert line in render.unit(TEMPLATES, systemd="257").splitlines()


@pytest.mark.parametrize(
    ("systemd", "limited"),
    [("219", True), ("239-82.el8", True), ("systemd 237 (237-3)", True), ("240", False), ("257.9-1", False)],
)
def test_only_a_systemd_before_240_needs_a_limit_on_open_files(systemd: str, limited: bool) -> None:
    assert ("LimitNOFILE=1024:524288\n" in render.unit(TEMPLATES, systemd=systemd)) is limited


@pytest.mark.parametrize("systemd", ["", "unknown"])
def test_an_unknown_systemd_is_taken_for_a_new_one(systemd: str) -> None:
    assert "LimitNOFILE" not in render.unit(TEMPLATES, systemd=systemd)


def test_the_drop_in_runs_the_hook_and_ignores_its_failure() -> None:
    assert f"[Service]\nExecStartPre=-/bin/sh {paths.PRE_START}\n" in render.unit_drop_in(TEMPLATES)


@pytest.mark.parametrize("systemd", ["239", "257"])
def test_systemd_itself_accepts_unit_and_drop_in(tmp_path: Path, systemd: str) -> None:
    program("systemd-analyze")
    there = shutil.which("true") or "/bin/true"
    unit = re.sub(r"(?m)^(ExecStart\w*=-?)\S+", rf"\1{there}", render.unit(TEMPLATES, systemd=systemd))
    drop_in = render.unit_drop_in(TEMPLATES).replace(paths.PRE_START, there)
    directory = tmp_path / "containerd.service.d"
    directory.mkdir()
    (directory / "50-userns-node.conf").write_text(drop_in)
    (tmp_path / "containerd.service").write_text(unit)
    environment = os.environ | {"SYSTEMD_UNIT_PATH": f"{tmp_path}:", "LC_ALL": "C"}
    said = subprocess.run(
        ["systemd-analyze", "verify", tmp_path / "containerd.service"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert [line for line in said.stderr.splitlines() if "containerd" in line or "userns" in line] == []


# --- the hook ----------------------------------------------------------------------------------------------------


class Machine:
    """A fake /sys and the three programs that the hook calls."""

    def __init__(self, root: Path) -> None:
        self.sys = root / "sys"
        self.run = root / "run"
        self.bin = root / "bin"
        self.overlay = self.sys / "module" / "overlay"
        self.calls = root / "calls"
        self.overlay.parent.mkdir(parents=True)
        self.bin.mkdir()
        self.calls.write_text("")
        self.program("systemd-detect-virt", "exit 1")
        self.program("modprobe", "echo 'FATAL: Module overlay not found' >&2; exit 1")

    def program(self, name: str, body: str) -> None:
        path = self.bin / name
        path.write_text(f'#!/bin/sh\necho "{name} $*" >>"{self.calls}"\n{body}\n')
        path.chmod(0o755)

    def load(self, metacopy: str = "N") -> None:
        (self.overlay / "parameters").mkdir(parents=True)
        self.parameter.write_text(f"{metacopy}\n")

    @property
    def parameter(self) -> Path:
        return self.overlay / "parameters" / "metacopy"

    def start(self, shell: str, *, metacopy: bool | None = True) -> str:
        """Run the hook; what it said, on one line."""
        hook = self.bin.parent / "pre-start"
        hook.write_text(render.pre_start(TEMPLATES, metacopy=metacopy, sys=str(self.sys), run=str(self.run)))
        done = subprocess.run(
            [shell, "-u", hook],
            env={"PATH": f"{self.bin}:/usr/bin:/bin"},
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )
        assert done.returncode == 0
        assert done.stderr == ""
        (line,) = done.stdout.splitlines()
        assert line.startswith("userns-node: ")
        return line.removeprefix("userns-node: ")


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.fixture(params=SHELLS)
def shell(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_metacopy_is_turned_on_where_overlay_is_there(machine: Machine, shell: str) -> None:
    machine.load("N")
    assert machine.start(shell) == "overlay is there, metacopy set to Y"
    assert machine.parameter.read_text() == "Y\n"
    assert "modprobe" not in machine.calls.read_text()


def test_overlay_is_loaded_first_where_it_is_a_module(machine: Machine, shell: str) -> None:
    machine.program("modprobe", f"mkdir -p {machine.parameter.parent} && echo N >{machine.parameter}")
    assert machine.start(shell) == "overlay is there (just loaded), metacopy set to Y"
    assert machine.parameter.read_text() == "Y\n"
    assert "modprobe overlay\n" in machine.calls.read_text()


def test_what_is_on_already_is_not_written_again(machine: Machine, shell: str) -> None:
    machine.load("Y")
    before = machine.parameter.stat().st_mtime_ns
    assert machine.start(shell) == "overlay is there, metacopy=Y already"
    assert machine.parameter.stat().st_mtime_ns == before


@pytest.mark.parametrize("value", ["Y", "N"])
def test_metacopy_is_left_as_it_is_where_the_policy_leaves_it(machine: Machine, shell: str, value: str) -> None:
    machine.load(value)
    assert machine.start(shell, metacopy=None) == f"overlay is there, metacopy={value} is left as it is"
    assert machine.parameter.read_text() == f"{value}\n"


def test_what_the_kernel_turns_on_by_itself_is_off_before_containerds_first_start_after_a_boot(
    machine: Machine, shell: str
) -> None:
    machine.load("Y")
    (machine.run / "containerd").mkdir(parents=True)  # as a unit's RuntimeDirectory= makes it
    assert machine.start(shell, metacopy=False) == "overlay is there, metacopy set to N"
    assert machine.parameter.read_text() == "N\n"
    assert machine.start(shell, metacopy=False) == "overlay is there, metacopy=N"


def test_the_hook_never_turns_metacopy_off_once_containerd_has_run(machine: Machine, shell: str) -> None:
    machine.load("Y")
    (machine.run / "containerd/io.containerd.runtime.v2.task").mkdir(parents=True)
    for metacopy in (True, None, False):
        machine.start(shell, metacopy=metacopy)
        assert machine.parameter.read_text() == "Y\n"
    assert machine.start(shell, metacopy=False).startswith("warning: overlay is there, metacopy=Y is left on")


def test_a_module_that_is_only_now_loaded_is_turned_off(machine: Machine, shell: str) -> None:
    machine.program("modprobe", f"mkdir -p {machine.parameter.parent} && echo Y >{machine.parameter}")
    assert machine.start(shell, metacopy=False) == "overlay is there (just loaded), metacopy set to N"


@pytest.mark.parametrize("loaded", [True, False])
def test_a_container_does_nothing_to_the_kernel_that_it_shares(machine: Machine, shell: str, loaded: bool) -> None:
    machine.program("systemd-detect-virt", "exit 0")
    if loaded:
        machine.load("N")
    assert machine.start(shell).startswith("this is a container")
    assert machine.calls.read_text() == "systemd-detect-virt --container -q\n"
    assert not loaded or machine.parameter.read_text() == "N\n"


def test_a_kernel_without_overlay_is_said_and_containerd_starts(machine: Machine, shell: str) -> None:
    assert machine.start(shell) == "warning: no overlay in this kernel: FATAL: Module overlay not found"


def test_a_kernel_without_the_parameter_is_said_and_containerd_starts(machine: Machine, shell: str) -> None:
    machine.overlay.mkdir()
    said = machine.start(shell)
    assert said.startswith("warning: overlay is there, could not set metacopy=Y")
    assert machine.start(shell, metacopy=None) == "overlay is there, metacopy=unknown is left as it is"
    assert machine.start(shell, metacopy=False) == "overlay is there, metacopy=unknown"


def test_a_value_that_the_kernel_does_not_take_is_said(machine: Machine, shell: str) -> None:
    machine.load()
    machine.parameter.unlink()
    machine.parameter.symlink_to("/dev/null")
    assert "could not set metacopy=Y" in machine.start(shell)


def test_a_kernel_that_stays_on_is_said(machine: Machine, shell: str) -> None:
    machine.load("Y")
    machine.program("cat", "echo Y")
    assert "could not set metacopy=N" in machine.start(shell, metacopy=False)


def test_a_modprobe_that_hangs_is_cut_off(machine: Machine, shell: str) -> None:
    machine.program("modprobe", "exec sleep 60")
    machine.program("timeout", 'shift 3; exec /usr/bin/timeout 0.2 "$@"')
    assert machine.start(shell) == "warning: no overlay in this kernel: modprobe loaded nothing"
    assert "timeout -k 5 20 modprobe overlay\n" in machine.calls.read_text()


@pytest.mark.parametrize("metacopy", [True, False, None])
def test_shellcheck_finds_nothing_in_the_hook(metacopy: bool | None) -> None:
    program("shellcheck")
    text = render.pre_start(TEMPLATES, metacopy=metacopy)
    said = subprocess.run(["shellcheck", "-s", "sh", "-"], input=text, capture_output=True, text=True, check=False)
    assert said.stdout == ""


# --- one-line files ----------------------------------------------------------------------------------------------


def settings_of(text: str) -> list[str]:
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def test_the_modprobe_option_is_one_line() -> None:
    assert settings_of(render.modprobe(TEMPLATES)) == ["options overlay metacopy=Y"]


def test_the_sysctl_file_is_one_line() -> None:
    assert settings_of(render.sysctl(TEMPLATES, 16384)) == ["user.max_user_namespaces = 16384"]


@pytest.mark.parametrize(("pods", "namespaces"), [(1, 16384), (110, 16384), (256, 16384), (500, 32000)])
def test_there_is_room_for_nested_user_namespaces_in_every_pod(pods: int, namespaces: int) -> None:
    assert render.max_user_namespaces(pods) == namespaces


# --- /etc/subuid and /etc/subgid ---------------------------------------------------------------------------------

OURS = "kubelet:65536:7208960"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ((), (OURS,)),
        ((OURS,), (OURS,)),
        (("alice:100000:65536",), ("alice:100000:65536", OURS)),
        (("kubelet:100000:65536", "alice:165536:65536"), (OURS, "alice:165536:65536")),
        ((OURS, "bob:1:2", "kubelet:100000:65536"), (OURS, "bob:1:2")),
        (("# a comment", "", "kubelets:1:2", "kubelet", " kubelet:1:2"), "kept"),
        (("kubelet:what:ever:this:is",), (OURS,)),
        (("998:100000:65536", "9980:1:2"), (OURS, "9980:1:2")),
        (("alice:1:2\n", f"{OURS}\n"), ("alice:1:2", OURS)),
    ],
)
def test_the_kubelet_has_exactly_our_range(before: tuple[str, ...], after: tuple[str, ...] | str) -> None:
    expected = (*before, OURS) if isinstance(after, str) else after
    text = render.subid_text(before, start=65536, count=7208960, uid="998")
    assert text == "".join(f"{line}\n" for line in expected)


LINES = st.lists(
    st.one_of(
        st.text(st.characters(exclude_characters="\n"), max_size=9),
        st.builds("{}:{}:{}".format, st.sampled_from(["kubelet", "alice", "998"]), st.integers(), st.integers()),
    ),
    max_size=6,
)


@given(LINES)
def test_other_lines_stay_in_their_order_and_a_second_time_changes_nothing(lines: list[str]) -> None:
    text = render.subid_text(lines, start=65536, count=7208960)
    after = text.removesuffix("\n").split("\n")
    assert after.count(OURS) == 1
    assert [line for line in after if line != OURS] == [line for line in lines if not line.startswith("kubelet:")]
    assert render.subid_text(after, start=65536, count=7208960) == text
