"""What cloud-init brings to a node that pulls: every file arrives as it is, and the units are well."""

from __future__ import annotations

import os
import re
import subprocess
from configparser import ConfigParser
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import program
from tests.unit.pull_place import ROOT, SCRIPT

PULL = ROOT / "examples/pull"
CONF = PULL / "pull.conf"
FIRST_BOOT = PULL / "first-boot"
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


def without_comments(text: str) -> str:
    return "".join(line for line in text.splitlines(keepends=True) if not line.lstrip().startswith("#"))


def brought(script: str) -> str:
    """The script as user-data has it: no line that is a comment, below its head."""
    head, code = script.split("\nset -eu\n")
    return f"{head}\nset -eu\n{without_comments(code)}"


def test_every_file_arrives_as_it_is(user_data: dict[str, Any]) -> None:
    files = {each["path"]: each for each in user_data["write_files"]}
    assert {path: each["content"] for path, each in files.items()} == {
        "/etc/userns-node/pull.conf": CONF.read_text(),
        "/etc/userns-node/allowed_signers": SIGNERS,
        "/usr/local/sbin/userns-node-pull": brought(SCRIPT.read_text()),
        "/etc/systemd/system/userns-node-pull.service": without_comments(
            (PULL / "userns-node-pull.service").read_text()
        ),
        "/etc/systemd/system/userns-node-pull.timer": without_comments((PULL / "userns-node-pull.timer").read_text()),
        "/var/lib/cloud/scripts/per-boot/50-userns-node": FIRST_BOOT.read_text(),
    }
    modes = {path: each["permissions"] for path, each in files.items() if each["permissions"] != "0644"}
    # The address of a repository may have a password in it.
    programs = ("/usr/local/sbin/userns-node-pull", "/var/lib/cloud/scripts/per-boot/50-userns-node")
    assert modes == dict.fromkeys(programs, "0755") | {"/etc/userns-node/pull.conf": "0600"}


def test_what_user_data_leaves_out_of_the_script_are_comments_alone() -> None:
    """No line that looks like one is within a text that the script writes: bash prints what it understood of both."""
    program("bash")
    texts = [
        subprocess.run(
            ["bash", "-c", f"all() {{\n{text}\n}}\ndeclare -f all"], capture_output=True, text=True, check=True
        ).stdout
        for text in (SCRIPT.read_text(), brought(SCRIPT.read_text()))
    ]
    assert texts[0] == texts[1] != ""


def test_an_input_without_a_last_newline_arrives_with_one(tmp_path: Path) -> None:
    conf, signers = tmp_path / "pull.conf", tmp_path / "allowed_signers"
    conf.write_text(CONF.read_text().rstrip("\n"))
    signers.write_text("release@example.internal ssh-ed25519 AAAA")
    command = ["sh", str(PULL / "user-data.sh"), str(conf), str(signers)]
    parsed = yaml.safe_load(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    files = {each["path"]: each["content"] for each in parsed["write_files"]}
    assert len(files) == 6
    assert files["/etc/userns-node/pull.conf"] == CONF.read_text()
    assert files["/etc/userns-node/allowed_signers"] == "release@example.internal ssh-ed25519 AAAA\n"


@dataclass
class Machine:
    """A machine's boots with the script for the first one; the pull, the join's place and systemd are stand-ins."""

    home: Path

    def create(self, codes: str) -> None:
        """Each run ends as the next of `codes` says, and then as the last; `cut` is a power cut."""
        (self.home / "codes").write_text("".join(f"{code}\n" for code in codes.split()))
        texts = {
            "pull": 'echo pull >>did\ncode=$(head -n "$(grep -c pull did)" codes | tail -n 1)\n'
            '[ "$code" != cut ] || kill -KILL 0\nexit "$code"\n',
            "sleep": 'echo "$1" >>slept\n',
            "timeout": '[ "$1 $2 $3" = "-k 60 1800" ] || exit 2\nshift 3\n"$@"\n',
            "systemctl": 'echo "$*" >>did\n',
        }
        for name, text in texts.items():
            (self.home / name).write_text(f"#!/bin/sh\n{text}")
            (self.home / name).chmod(0o755)

    def boot(self) -> list[str]:
        """What this boot did, in order."""
        (self.home / "did").write_text("")
        script = FIRST_BOOT.read_text().replace("/usr/local/sbin/userns-node-pull", str(self.home / "pull"))
        script = script.replace("/var/lib/cloud/instance/", f"{self.home}/").replace(
            "echo 'this", "echo join >>did && echo 'this"
        )
        (self.home / "script").write_text(script)
        path = f"{self.home}:{os.environ['PATH']}"
        subprocess.run(
            ["sh", "script"],
            cwd=self.home,
            env=os.environ | {"PATH": path},
            stdout=subprocess.DEVNULL,
            start_new_session=True,
            check=False,
            timeout=30,
        )
        return (self.home / "did").read_text().splitlines()


TIMER = "enable --now userns-node-pull.timer"


@pytest.mark.parametrize(
    ("codes", "runs", "joins"),
    [
        ("0", 1, True),
        ("3 75 1 5 124 137 0", 7, True),
        ("2", 1, False),
        ("4", 1, False),
        ("3", 10, False),
        ("1", 10, False),
        ("3 4", 2, False),
    ],
)
def test_the_first_run_is_tried_again_while_it_may_pass_and_only_a_proven_node_joins(
    tmp_path: Path, codes: str, runs: int, joins: bool
) -> None:
    machine = Machine(tmp_path)
    machine.create(codes)
    # In any case no run of the timer's can be before the one that joins.
    assert machine.boot() == ["pull"] * runs + ["join"] * joins + [TIMER]
    slept = (tmp_path / "slept").read_text().split() if runs > 1 else []
    assert len(slept) == runs - 1
    assert all(20 <= int(each) <= 51 for each in slept)
    # What gave up has another chance at the next boot; what joined does nothing more.
    assert bool(machine.boot()) is not joins


def test_a_machine_that_went_off_in_its_first_run_joins_at_the_next_boot(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.create("3 cut")
    assert machine.boot() == ["pull", "pull"]
    machine.create("0")
    assert machine.boot() == ["pull", "join", TIMER]


def test_no_run_of_the_timers_can_be_before_the_one_that_joins(user_data: dict[str, Any]) -> None:
    """Nothing but the end of the first boot's script starts the timer."""
    assert sorted(user_data) == ["packages", "write_files"]
    lines = [line for each in user_data["write_files"] for line in each["content"].splitlines() if "systemctl" in line]
    assert lines == [f"systemctl {TIMER}"]
    assert FIRST_BOOT.read_text().endswith(f"{lines[0]}\n")


def test_it_fits_into_what_clouds_take_and_begins_as_cloud_init_asks(printed: str) -> None:
    assert printed.startswith("#cloud-config\n")
    assert len(printed.encode()) <= 16 * 1024  # EC2's limit, the smallest of the large ones


def test_it_says_how_it_is_called(tmp_path: Path) -> None:
    for words in ([], [str(CONF)], [str(CONF), str(tmp_path / "none")]):
        done = subprocess.run(["sh", PULL / "user-data.sh", *words], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout, "usage:" in done.stderr) == (2, "", True)


PRIVATE = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3Bl\n-----END OPENSSH PRIVATE KEY-----\n"


@pytest.mark.parametrize(
    ("conf", "signers", "wrong", "why"),
    [
        ("", PRIVATE, "signers", "holds a private key"),
        ("", SIGNERS + PRIVATE, "signers", "holds a private key"),
        (PRIVATE, SIGNERS, "conf", "holds a private key"),
        ("", "ssh-ed25519 AAAA the release's ssh-key here\n", "signers", "has no line 'PRINCIPAL ssh-ed25519 KEY'"),
        ("", "# release@example.internal ssh-ed25519 AAAA\n", "signers", "has no line 'PRINCIPAL ssh-ed25519 KEY'"),
        (SIGNERS, CONF.read_text(), "conf", "sets no PULL_REPOSITORY"),
        ("# PULL_REPOSITORY=/x\nPULL_REPOSITORY=\n", SIGNERS, "conf", "sets no PULL_REPOSITORY"),
    ],
)
def test_a_file_that_is_another_one_is_named_and_nothing_is_printed(
    tmp_path: Path, conf: str, signers: str, wrong: str, why: str
) -> None:
    files = {"conf": tmp_path / "conf", "signers": tmp_path / "signers"}
    files["conf"].write_text(conf or CONF.read_text())
    files["signers"].write_text(signers)
    command = ["sh", str(PULL / "user-data.sh"), *map(str, files.values())]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"{files[wrong]} {why}" in done.stderr


@pytest.mark.parametrize(
    "line",
    [
        "a@b,c@d ssh-rsa AAAA somebody",
        '* namespaces="git",valid-after="20260101" sk-ssh-ed25519@openssh.com AAAA',
        "*@b ecdsa-sha2-nistp256 AAAA",
        "\ta@b cert-authority ssh-ed25519-cert-v01@openssh.com AAAA",
    ],
)
def test_every_form_of_an_allowed_signer_is_taken(tmp_path: Path, line: str) -> None:
    signers = tmp_path / "allowed_signers"
    signers.write_text(f"{line}\n")
    command = ["sh", str(PULL / "user-data.sh"), str(CONF), str(signers)]
    assert line in subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_the_configuration_has_each_setting_of_the_script_and_no_other() -> None:
    known = set(re.findall(r"\bPULL_[A-Z]+", SCRIPT.read_text()))
    assert set(re.findall(r"(?m)^(PULL_[A-Z]+)=", CONF.read_text())) == known


def test_the_page_names_each_setting_of_the_configuration() -> None:
    page = (ROOT / "docs/how-to/pull.md").read_text("utf-8")
    settings = re.findall(r"(?m)^(PULL_[A-Z]+)=", CONF.read_text())
    assert [name for name in settings if not re.search(rf"\b{name}\b", page)] == []


def test_the_units_are_well(tmp_path: Path) -> None:
    program("systemd-analyze")
    for name in ("userns-node-pull.service", "userns-node-pull.timer"):
        text = (PULL / name).read_text()
        # systemd-analyze looks whether the program is there.
        (tmp_path / name).write_text(text.replace("/usr/local/sbin/userns-node-pull", f'"{SCRIPT}"'))
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


@pytest.mark.parametrize("script", [SCRIPT, FIRST_BOOT, PULL / "user-data.sh"], ids=lambda path: path.name)
def test_shellcheck_finds_nothing(script: Path) -> None:
    program("shellcheck")
    done = subprocess.run(["shellcheck", "--shell=sh", str(script)], capture_output=True, text=True, check=False)
    assert done.stdout == ""


@pytest.mark.parametrize("shell", ["dash", "bash", "busybox", "mksh"])
def test_it_is_plain_sh(shell: str) -> None:
    program(shell)
    words = [shell, "sh"] if shell == "busybox" else [shell]
    subprocess.run([*words, "-n", str(SCRIPT)], check=True)


def test_wherever_hashes_are_required_only_wheels_are_installed() -> None:
    """pip takes what it builds a source archive with from the index, without a hash."""
    places = [ROOT / "Makefile", SCRIPT, *(ROOT / "docs").rglob("*.md")]
    places += [path for top in ("artifacts", "bench", "fleet", "lab", "tasks") for path in (ROOT / top).rglob("*.py")]
    lines = [line for path in places for line in path.read_text("utf-8").splitlines() if "--require-hashes" in line]
    assert len(lines) >= 7
    assert [line for line in lines if "--only-binary=:all:" not in line] == []
