"""The new containerd reads the new config before anything is swapped, and where it cannot, what is told is why."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.deploy.test_activation_steps import run
from userns.tables.symptoms import SYMPTOMS


def checked(directory: Path, **programs: str) -> list[str]:
    """What is said, and then why the change is given up."""
    (directory / "config.toml").touch()
    beside = f"beside() {{ case $1 in *.toml) echo {directory}/config.toml ;; *) echo {directory}/new ;; esac; }}"
    calls = f'{beside}\nnew_containerd={directory}/bin/containerd; {{ check_config || echo "$why"; }} 2>/dev/null'
    return run(directory, "check_config forbidden", calls, **programs)


def test_a_containerd_that_hangs_over_its_config_is_killed(tmp_path: Path) -> None:
    """Else it would hold the lock, and with it the change, for good. It inherits that the script ignores SIGTERM."""
    programs = {
        "containerd": "trap '' TERM; sleep 5 2>/dev/null; echo it went on >&2",
        "timeout": 'options="$1 $2" seconds=$3; shift 3; exec /usr/bin/timeout $options "0.$seconds" "$@"',
    }
    said, why = checked(tmp_path, **programs)
    assert said == "it did not answer within 30 s"
    assert why == f"the new config.toml is refused by {tmp_path}/bin/containerd itself"


@pytest.mark.parametrize(
    "says", ["invalid config", "open /etc/containerd/certs.d: permission denied", "Operation not permitted"]
)
def test_what_containerd_itself_says_is_of_the_config(tmp_path: Path, says: str) -> None:
    said = checked(tmp_path, containerd=f"echo '{says}' >&2; exit 1")
    assert said == [says, f"the new config.toml is refused by {tmp_path}/bin/containerd itself"]


@pytest.mark.parametrize(
    "says",
    [
        "runtime/cgo: pthread_create failed: Resource temporarily unavailable",
        "runtime: failed to create new OS thread (have 2 already; errno=11)",
        "fatal error: runtime: cannot allocate memory",
        "fatal error: runtime: out of memory",
    ],
)
def test_a_node_that_has_nothing_left_is_no_fault_of_the_config(tmp_path: Path, says: str) -> None:
    said = checked(tmp_path, containerd=f"echo '{says}' >&2; exit 2")
    left = "this node has no processes or memory left for it"
    assert said == [says, f"{tmp_path}/bin/containerd could not read the new config.toml: {left}"]


def test_a_config_that_it_reads_is_right(tmp_path: Path) -> None:
    assert checked(tmp_path, containerd="exit 0") == []


FORBIDDEN = "this node does not let {0}/bin/containerd run. What may forbid it: fapolicyd, for each version "


@pytest.mark.parametrize(
    "says",
    [
        "timeout: failed to run command '.containerd.userns-node-new': Operation not permitted",
        "timeout: failed to execute process: Operation not permitted (os error 1)",  # uutils
        "timeout: can't execute '.containerd.userns-node-new': Operation not permitted",  # busybox
    ],
)
def test_a_node_that_does_not_let_new_programs_run_is_told_apart(tmp_path: Path, says: str) -> None:
    said = checked(tmp_path, containerd="", timeout=f'echo "{says}" >&2; exit 126')
    assert said[0] == says
    assert said[1].startswith(FORBIDDEN.format(tmp_path))
    assert len(said) == 2


def test_a_program_that_the_kernel_does_not_start_is_not_taken_for_one_that_is_not_there(tmp_path: Path) -> None:
    """As on a mount with noexec: for such a file even root is told that it is not executable."""
    (tmp_path / "new").touch()
    said = checked(tmp_path)
    assert "Permission denied" in said[0]
    assert said[1].startswith(FORBIDDEN.format(tmp_path))


# --- what the new containerd may start -------------------------------------------------------------------------------

BECOMES = """case "$1 $2" in
    "oci-hook --help") echo "containerd oci-hook - provides a base for OCI runtime hooks" ;;
    "oci-hook --") shift 2; echo "$@" >>DIRECTORY/started; echo "$(cat); SAYS" >&2; exit 1 ;;
esac"""
PUTS = ("bin/containerd", "bin/ctr", "bin/containerd-shim-runc-v2", "sbin/runc", "libexec/userns-node/check")


def started(directory: Path, containerd: str) -> tuple[list[str], list[str]]:
    """What is said of all that is put in place, and what containerd was told to become."""
    (directory / "started").touch()
    puts = " && ".join(f"check_starts 755 {directory}/{path}" for path in PUTS)
    calls = f'beside() {{ echo "$1.$2"; }}\nbinary={directory}/bin/containerd becomes="" stage={directory}\n'
    said = run(directory, "check_starts forbidden", f'{calls}{{ {puts}; }} || echo "$why"', containerd=containerd)
    return said, (directory / "started").read_text().splitlines()


@pytest.mark.parametrize(
    "says", ["flag provided but not defined: -v", "containerd: open /var/lib/x/config.json: permission denied"]
)
def test_what_else_is_said_is_nothing_against_it(tmp_path: Path, says: str) -> None:
    """By a program that lacks the flag for its version, or by a containerd that is not let read the one for it."""
    containerd = BECOMES.replace("DIRECTORY", str(tmp_path)).replace("SAYS", says)
    new = [f"{tmp_path}/bin/containerd-shim-runc-v2.new -v", f"{tmp_path}/sbin/runc.new -v"]
    assert started(tmp_path, containerd) == ([], new)


def test_the_first_that_it_may_not_start_ends_the_change(tmp_path: Path) -> None:
    containerd = BECOMES.replace("DIRECTORY", str(tmp_path)).replace("SAYS", "containerd: operation not permitted")
    said, told = started(tmp_path, containerd)
    assert said[0] == f'{{"bundle": "{tmp_path}"}}; containerd: operation not permitted'
    assert said[1].startswith(f"this node does not let containerd start {tmp_path}/bin/containerd-shim-runc-v2. What ")
    assert len(told) == 1


def test_a_containerd_without_that_command_is_not_asked(tmp_path: Path) -> None:
    """It would take it for none, and begin to serve."""
    assert started(tmp_path, f'[ "$2" = --help ] || echo served >>{tmp_path}/started') == ([], [])


def test_diagnose_gives_the_rule_that_the_error_gives(tmp_path: Path) -> None:
    (why,) = run(tmp_path, "forbidden", 'forbidden "it run"; echo "$why"')
    (rule,) = re.findall(r"allow perm=[^)]*", why)
    (symptom,) = (each for each in SYMPTOMS if each.id == "programs-may-not-run")
    assert rule in symptom.fix
