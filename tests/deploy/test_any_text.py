"""Whatever a string setting says, a node gets that very text or the setting is refused: never a command, never a line.

The commands and scripts are run by a real shell, with programs of this test in the place of those that they call.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks import operations, verify
from tasks.files import templates
from tasks.node import Node
from tasks.node import text as whole
from tasks.stage import Stage
from tests import nodes
from userns import check, files, readiness, secret
from userns.policy import Policy, PolicyError

# What shells, TOML and paths give a meaning to, in pieces that hypothesis puts together, and any text at all.
PIECES = [
    "$(touch canary)",
    "`touch canary`",
    ";touch canary",
    "'",
    '"',
    "\\",
    "\n",
    "\t",
    "\0",
    "$HOME",
    "*",
    "..",
    "/",
]
PIECES += [
    "{{ x }}",
    "{% x %}",
    "]",
    "[",
    "=",
    "#",
    " ",
    "-",
    "--",
    "a",
    "é",
    "\x1b[2J",
    "\u2028",
    "%s",
    "&&",
    "|",
    "<",
]
HOSTILE = st.lists(st.sampled_from(PIECES), max_size=8).map("".join) | st.text(max_size=40)
EXPECTED = check.Expected(metacopy=True, max_user_namespaces=16384)
PATHS = HOSTILE | HOSTILE.map(lambda text: f"/{text}") | HOSTILE.map(lambda text: f"/data/{text}")


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory to run in, with an `sh` on its PATH that says what arguments it got; a canary would be seen in it."""
    home = tmp_path_factory.mktemp("any")
    (home / "bin").mkdir()
    (home / "bin" / "sh").write_text(f"#!{shutil.which('sh')}\nprintf '%s\\0' \"$@\"\n")
    (home / "bin" / "sh").chmod(0o755)
    for program in ("touch", "tail"):  # what a canary would be made with; and what the answer goes through
        (home / "bin" / program).symlink_to(shutil.which(program) or f"/bin/{program}")
    return home


def shell(here: Path, text: str) -> list[str]:
    """What a login shell on the node makes of this text: the words that it printed, with a NUL behind each."""
    sh = shutil.which("sh")
    assert sh
    done = subprocess.run(
        [sh, "-c", text], cwd=here, env={"PATH": str(here / "bin")}, capture_output=True, check=True, timeout=60
    )
    assert sorted(path.name for path in here.iterdir()) == ["bin"], "a command ran"
    return done.stdout.decode(errors="surrogateescape").split("\0")[:-1]


def accepted(**settings: Any) -> Iterator[Policy]:
    """The policy, where the settings are not refused. A refusal names the setting."""
    try:
        policy = nodes.policy(**settings)
    except PolicyError as refusal:
        named = {problem.setting for problem in refusal.problems}
        assert named <= settings.keys()  # a property: either of the two may come
    else:
        yield policy


def config(policy: Policy) -> dict[str, Any]:
    """config.toml as containerd reads it."""
    node = nodes.bare()
    return tomllib.loads(files.wanted(node, policy, readiness.of_node(node, policy), templates()).texts[CONFIG] or "")


CONFIG = "/etc/containerd/config.toml"


@given(root=PATHS, kubelet=PATHS)
def test_a_path_is_one_word_of_the_command_that_reads_a_node(here: Path, root: str, kubelet: str) -> None:
    for policy in accepted(containerd_root=root, kubelet_root=kubelet):
        command = Node().command(policy.containerd_root, policy.kubelet_root).get_raw_value()
        flag, text, *words = shell(here, command)
        assert (flag, words) == ("-c", ["node.sh", root, kubelet, "no"])
        assert text == whole()


@given(root=PATHS)
def test_a_path_is_one_value_of_config_toml(root: str) -> None:
    for policy in accepted(containerd_root=root):
        assert config(policy)["root"] == root


@given(root=PATHS, kubelet=PATHS)
def test_a_path_is_one_value_in_the_script_that_checks_a_node(here: Path, root: str, kubelet: str) -> None:
    for policy in accepted(containerd_root=root, kubelet_root=kubelet):
        text = check.text(templates(), policy, readiness.of_node(nodes.bare(), policy), EXPECTED)
        (assignment,) = re.findall(r"^containerd_root=[^\n]*$", text, re.M)
        assert shell(here, f'{assignment}\nprintf "%s\\0" "$containerd_root" "$kubelet_root"') == [
            root[1:],
            kubelet[1:],
        ]


@given(snapshotter=HOSTILE, kubelet=PATHS)
def test_a_snapshotter_and_a_path_are_words_of_the_proof(here: Path, snapshotter: str, kubelet: str) -> None:
    for policy in accepted(snapshotter=snapshotter, kubelet_root=kubelet):
        (command,) = verify.start_containers._inner(
            programs={"ctr": "/c", "containerd": "/d"},
            snapshotter=policy.snapshotter,
            handlers={},
            ready=readiness.of_node(nodes.bare(), policy),
            volumes=policy.kubelet_root,
            requests="",
        )
        assert shell(here, command.get_raw_value())[2:] == ["verify.sh", "/c", "", snapshotter, "/d", kubelet, ""]


@given(text=HOSTILE)
def test_a_snapshotter_and_an_image_are_values_of_config_toml(text: str) -> None:
    for policy in accepted(snapshotter=text):
        assert config(policy)["plugins"]["io.containerd.cri.v1.images"]["snapshotter"] == text
    for policy in accepted(sandbox_image=text):
        assert config(policy)["plugins"]["io.containerd.cri.v1.images"]["pinned_images"]["sandbox"] == text


@given(key=HOSTILE, value=HOSTILE, wrapped=st.booleans())
def test_tables_of_the_operator_arrive_as_they_are(key: str, value: str, wrapped: bool) -> None:
    given = secret.Secret(value) if wrapped and value else value
    for policy in accepted(containerd_config={"x": {key: given, "list": [given]}}):
        assert config(policy)["x"] == {key: value, "list": [value]} | ({"list": value} if key == "list" else {})


@given(text=HOSTILE | HOSTILE.map(lambda text: f"https://mirror.example/{text}"))
def test_a_url_reaches_the_download_as_one_line_and_no_word(here: Path, text: str) -> None:
    for policy in accepted(release_url=text):
        url = policy.url(policy.lock.asset("runc", policy.runc_version, "amd64"))
        (command,) = operations.fetch._inner(stage="/stage", url=url, sha256="0" * 64, programs={"": "runc"})
        assert command.connector_arguments["_stdin"] == url
        assert url.isprintable()
        shown = shell(here, command.get_raw_value())[2:]
        assert shown[0:2] + shown[3:] == ["fetch.sh", "/stage", "0" * 64, "=runc"]


@given(version=HOSTILE | HOSTILE.map(lambda text: f"2.3.4{text}"))
def test_a_version_is_a_version(version: str) -> None:
    for policy in accepted(containerd_version=version, install_from="package", runc_version="1.4.3"):
        assert re.fullmatch(r"[0-9A-Za-z.+~-]+", policy.containerd_version)


@given(fields=st.lists(HOSTILE, min_size=1, max_size=6))
def test_an_action_is_one_line_of_as_many_fields(fields: list[str]) -> None:
    stage = Stage()
    if any(ord(letter) < 32 for field in fields for letter in field):
        with pytest.raises(ValueError, match="control character"):
            stage.add("put", *fields)
    else:
        stage.add("put", *fields)
        assert stage.text.split("\n")[:-1] == ["\t".join(["put", *(each or "-" for each in fields)])]
