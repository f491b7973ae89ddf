"""Every script for nodes is POSIX sh that shellcheck has nothing to say of, each as the one text that a node gets."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tasks import image, node, rollback, verify
from tasks.files import ROOT, script
from tasks.operations import ACTIVATION, activation
from tests.conftest import program

ALONE = ("image-launch.sh", "launch.sh", "package.sh", "put.sh", "text.sh")
TEXTS = {
    "node": "".join(script(name) for name in node.PARTS),
    "activation": activation(),
    "sets": "".join(script(name) for name in rollback.PARTS),
    "activation of an image": image.activation(),
    "verify": "".join(script(name) for name in (*verify.PARTS, "verify.sh")),
    "fetch": script("unpack.sh") + script("fetch.sh"),
    "push": script("unpack.sh") + script("receive.sh"),
    "seal": "".join(script(name) for name in (*image.SEALING, "seal.sh")),
    **{name: script(name) for name in ALONE},
}
PARTS = {*node.PARTS, *rollback.PARTS, "unpack.sh", "fetch.sh", "receive.sh", *verify.PARTS, "verify.sh"}
PARTS |= {*ACTIVATION, *image.ACTIVATION, *image.SEALING, "seal.sh"}
OF_THE_CHECK = {"check-tell.sh"}  # tests/unit/test_check.py has the whole text looked at


def test_every_script_is_looked_at() -> None:
    assert {path.name for path in (ROOT / "tasks" / "scripts").iterdir()} == {*ALONE, *PARTS, *OF_THE_CHECK}


@pytest.mark.parametrize("name", TEXTS)
def test_shellcheck_finds_nothing(name: str) -> None:
    program("shellcheck")
    said = subprocess.run(
        ["shellcheck", "--shell=sh", "--severity=warning", "-"],
        input=TEXTS[name],
        capture_output=True,
        text=True,
        check=False,
    )
    assert said.stdout == ""


# fetch.sh may have one: it keeps a password from the list of processes. Where its reader does not run, the fetch fails.
ON_NODES = [each for each in (ROOT / "tasks/scripts").iterdir() if each.name != "fetch.sh"]
ON_NODES += [*(ROOT / "templates").iterdir(), ROOT / "examples/pull/userns-node-pull"]


@pytest.mark.parametrize("path", ON_NODES, ids=lambda path: path.name)
def test_a_script_has_no_here_document(path: Path) -> None:
    """bash before 5.1 and lksh write each into a file in /tmp, and where that is full its reader does not run."""
    assert re.findall(r"<<-?[ \t]*[\\\"']?[A-Za-z_]\w*", path.read_text()) == []


@pytest.mark.parametrize("name", TEXTS)
def test_a_script_fits_into_one_command(name: str) -> None:
    # Linux takes 128 KiB as one argument; pyinfra quotes the script once more for the login shell and for sudo.
    assert len((node.text() if name == "node" else TEXTS[name]).encode()) < 64_000


@pytest.mark.parametrize("name", ["debootstrap/build.sh", "mkosi/mkosi.finalize"])
def test_shellcheck_finds_nothing_in_the_examples(name: str) -> None:
    program("shellcheck")
    path = ROOT / "examples" / name
    said = subprocess.run(["shellcheck", "--shell=sh", str(path)], capture_output=True, text=True, check=False)
    assert (said.returncode, said.stdout) == (0, "")
