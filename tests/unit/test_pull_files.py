"""What cloud-init brings to a node that pulls: every file arrives as it is, and the units are well."""

from __future__ import annotations

import re
import shutil
import subprocess
from configparser import ConfigParser
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import unavailable
from tests.unit.pull_place import ROOT, SCRIPT

PULL = ROOT / "examples/pull"
CONF = PULL / "pull.conf"
SIGNERS = 'release@example.internal namespaces="git" ssh-ed25519 AAAA\n\n# a comment: with a colon\n'


@pytest.fixture(scope="module")
def signers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("signers") / "allowed_signers"
    path.write_text(SIGNERS)
    return path


@pytest.fixture(scope="module")
def printed(signers: Path) -> str:
    command = ["sh", str(PULL / "user-data.sh"), str(CONF), str(signers)]
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd="/").stdout


@pytest.fixture(scope="module")
def user_data(printed: str) -> dict[str, Any]:
    parsed: dict[str, Any] = yaml.safe_load(printed)
    return parsed


def test_every_file_arrives_as_it_is(user_data: dict[str, Any]) -> None:
    files = {each["path"]: each for each in user_data["write_files"]}
    assert {path: each["content"] for path, each in files.items()} == {
        "/etc/userns-node/pull.conf": CONF.read_text(),
        "/etc/userns-node/allowed_signers": SIGNERS,
        "/usr/local/sbin/userns-node-pull": SCRIPT.read_text(),
        "/etc/systemd/system/userns-node-pull.service": (PULL / "userns-node-pull.service").read_text(),
        "/etc/systemd/system/userns-node-pull.timer": (PULL / "userns-node-pull.timer").read_text(),
    }
    modes = {path: each["permissions"] for path, each in files.items() if each["permissions"] != "0644"}
    # The address of a repository may have a password in it.
    assert modes == {"/usr/local/sbin/userns-node-pull": "0755", "/etc/userns-node/pull.conf": "0600"}


def test_an_input_without_a_last_newline_arrives_with_one(tmp_path: Path) -> None:
    conf, signers = tmp_path / "pull.conf", tmp_path / "allowed_signers"
    conf.write_text(CONF.read_text().rstrip("\n"))
    signers.write_text("release@example.internal ssh-ed25519 AAAA")
    command = ["sh", str(PULL / "user-data.sh"), str(conf), str(signers)]
    parsed = yaml.safe_load(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    files = {each["path"]: each["content"] for each in parsed["write_files"]}
    assert len(files) == 5
    assert files["/etc/userns-node/pull.conf"] == CONF.read_text()
    assert files["/etc/userns-node/allowed_signers"] == "release@example.internal ssh-ed25519 AAAA\n"


@pytest.mark.parametrize(
    ("codes", "runs", "joins"),
    [("0", 1, True), ("3 75 0", 3, True), ("1", 1, False), ("4", 1, False), ("3", 10, False), ("3 4", 2, False)],
)
def test_the_first_run_is_tried_again_while_it_may_pass_and_only_a_proven_node_joins(
    user_data: dict[str, Any], tmp_path: Path, codes: str, runs: int, joins: bool
) -> None:
    (first,) = (each for each in user_data["runcmd"] if isinstance(each, str))
    (tmp_path / "codes").write_text("".join(f"{code}\n" for code in codes.split()))
    # Ends as the lines of `codes` say, one after the other, and then always as the last.
    pull = tmp_path / "userns-node-pull"
    pull.write_text('#!/bin/sh\necho >>ran\nexit "$(head -n "$(wc -l <ran)" codes | tail -n 1)"\n')
    (tmp_path / "sleep").write_text("#!/bin/sh\n")
    for name in ("userns-node-pull", "sleep"):
        (tmp_path / name).chmod(0o755)
    script = first.replace("/usr/local/sbin/userns-node-pull", str(pull))
    command = ["sh", "-c", f"PATH={tmp_path}:$PATH\n{script}"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=30)
    assert (tmp_path / "ran").read_text().count("\n") == runs
    assert done.stdout == ("this node is ready to join\n" if joins else "")


def test_no_run_of_the_timers_can_be_before_the_one_that_joins(user_data: dict[str, Any]) -> None:
    commands = [each if isinstance(each, str) else " ".join(each) for each in user_data["runcmd"]]
    (run,) = (at for at, each in enumerate(commands) if "/usr/local/sbin/userns-node-pull" in each)
    (timer,) = (at for at, each in enumerate(commands) if "userns-node-pull.timer" in each)
    assert run < timer


def test_it_fits_into_what_clouds_take_and_begins_as_cloud_init_asks(printed: str) -> None:
    assert printed.startswith("#cloud-config\n")
    assert len(printed.encode()) <= 16 * 1024  # EC2's limit, the smallest of the large ones


def test_it_says_how_it_is_called(tmp_path: Path) -> None:
    for words in ([], [str(CONF)], [str(CONF), str(tmp_path / "none")]):
        done = subprocess.run(["sh", PULL / "user-data.sh", *words], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout, "usage:" in done.stderr) == (2, "", True)


def test_the_configuration_has_each_setting_of_the_script_and_no_other() -> None:
    known = set(re.findall(r"\bPULL_[A-Z]+", SCRIPT.read_text()))
    assert set(re.findall(r"(?m)^(PULL_[A-Z]+)=", CONF.read_text())) == known


def test_the_units_are_well(tmp_path: Path) -> None:
    if not shutil.which("systemd-analyze"):
        unavailable("needs systemd-analyze")
    for name in ("userns-node-pull.service", "userns-node-pull.timer"):
        text = (PULL / name).read_text()
        # systemd-analyze looks whether the program is there.
        (tmp_path / name).write_text(text.replace("/usr/local/sbin/userns-node-pull", str(SCRIPT)))
    units = [str(tmp_path / "userns-node-pull.service"), str(tmp_path / "userns-node-pull.timer")]
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *units], capture_output=True, text=True, check=False
    )
    assert [line for line in done.stderr.splitlines() if str(tmp_path) in line or "userns-node-pull" in line] == []
    assert done.returncode == 0, done.stderr


def test_nothing_in_the_service_needs_a_mount_namespace() -> None:
    unit = ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read(PULL / "userns-node-pull.service")
    assert [name for name in unit["Service"] if name.startswith(("Protect", "Private", "ReadOnly", "Bind"))] == []


@pytest.mark.parametrize("script", [SCRIPT, PULL / "user-data.sh"], ids=lambda path: path.name)
def test_shellcheck_finds_nothing(script: Path) -> None:
    if not shutil.which("shellcheck"):
        unavailable("needs shellcheck")
    done = subprocess.run(["shellcheck", "--shell=sh", str(script)], capture_output=True, text=True, check=False)
    assert done.stdout == ""


@pytest.mark.parametrize("shell", ["dash", "bash", "busybox"])
def test_it_is_plain_sh(shell: str) -> None:
    if not shutil.which(shell):
        unavailable(f"needs {shell}")
    words = [shell, "sh"] if shell == "busybox" else [shell]
    subprocess.run([*words, "-n", str(SCRIPT)], check=True)


def test_wherever_hashes_are_required_only_wheels_are_installed() -> None:
    """pip takes what it builds a source archive with from the index, without a hash."""
    places = [ROOT / "Makefile", SCRIPT, *(ROOT / "docs").rglob("*.md")]
    places += [path for top in ("artifacts", "bench", "fleet", "lab", "tasks") for path in (ROOT / top).rglob("*.py")]
    lines = [line for path in places for line in path.read_text("utf-8").splitlines() if "--require-hashes" in line]
    assert len(lines) >= 7
    assert [line for line in lines if "--only-binary=:all:" not in line] == []
