"""What an operator sees has never a secret in it: nothing that a run, its options or its failures print."""

from __future__ import annotations

from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest

from tests import nodes
from tests.deploy.fleet import CHANGE, FETCH, PROVE, PROVEN, READ, TEXT, Fleet, answered, pyinfra
from userns import paths

MIRROR, PROXY, REGISTRY, OLD = "mirr0r-pa55word", "pr0xy-pa55word", "reg1stry-pa55word", "0ld-pa55word"
ENVIRONMENT = "env1ronment-pa55word"
SECRETS: dict[str, Any] = {
    "release_url": f"https://user:{MIRROR}@mirror.example/github",
    "release_proxy": f"http://user:{PROXY}@proxy.example:3128",
    "_env": {"https_proxy": f"http://user:{ENVIRONMENT}@proxy.example:3128", "API_TOKEN": f"{ENVIRONMENT}-too"},
    "containerd_config": {
        "plugins": {
            "io.containerd.cri.v1.images": {"registry": {"configs": {"r.example": {"auth": {"password": REGISTRY}}}}}
        }
    },
}


def secretive(directory: Path, **answers: object) -> Fleet:
    """A node with a password in its config.toml, which is to get others; and the same node, bare."""
    base = nodes.drifted(paths.CONFIG, "old")
    both = base.model_copy(update={"files": {**base.files, paths.UNIT: nodes.file_state("old")}})
    config = f'version = 2\n[x.auth]\npassword = "{OLD}"\n'
    unit = f"[Service]\nEnvironment=HTTPS_PROXY=http://u:{OLD}@proxy.example:3128\n"
    texts = "\n".join(map(answered, (config, unit)))
    made = Fleet(directory)
    made.add("drifted", both, answers={TEXT: texts, **answers}, **SECRETS)
    made.add("fresh", answers=answers, **SECRETS)
    made.add("refused", **SECRETS, max_pods="many")
    return made


@pytest.mark.parametrize(
    "options",
    [
        ["--dry", "--diff", "-vvv"],
        ["--dry", "--diff", "--json"],
        ["--dry", "--diff", "--debug"],
        ["--dry", "--debug-operations"],
        ["--dry", "--debug-operations", "--json"],
        ["-y", "--diff", "-vvv"],
        ["-y", "--json", "-vvv"],
    ],
    ids=" ".join,
)
def test_no_option_shows_a_secret(tmp_path: Path, options: list[str]) -> None:
    run = secretive(tmp_path).deploy(*options)
    assert "drifted" in run.text
    for secret in (MIRROR, PROXY, ENVIRONMENT, REGISTRY, OLD):
        assert secret not in run.text
        assert b64encode(secret.encode()).decode()[1:-4] not in run.text


def test_a_changed_secret_shows_as_changed(tmp_path: Path) -> None:
    said = secretive(tmp_path).deploy("--dry", "--diff").said("@fake/drifted")
    assert '-password = "<secret 1>"' in said
    assert '+password = "<secret 2>"' in said


def test_debug_masks_what_pyinfra_logs_of_the_data_of_groups(tmp_path: Path) -> None:
    made = Fleet(tmp_path)
    made.add("one")
    (tmp_path / "group_data").mkdir()
    (tmp_path / "group_data" / "all.py").write_text(
        f"release_url = {SECRETS['release_url']!r}\nssh_password = {OLD!r}\n"
    )
    run = made.deploy("--dry", "--debug")
    assert "Adding data to group all" in run.text
    assert MIRROR not in run.text
    assert OLD not in run.text


@pytest.mark.parametrize("script", [FETCH, CHANGE])
def test_nor_does_a_failure(tmp_path: Path, script: str) -> None:
    run = secretive(tmp_path, **{script: {"success": False, "stderr": "could not"}}).deploy("-y", "-vv")
    assert run.code == 1
    for secret in (MIRROR, PROXY, ENVIRONMENT, REGISTRY, OLD):
        assert secret not in run.text


def test_nor_does_a_refusal_of_the_very_setting(tmp_path: Path) -> None:
    urls = (f"https://u:{MIRROR}@", f"ftp://u:{MIRROR}@x", f"https://u:{MIRROR}@x/?a", f"u:{MIRROR}@x")
    made = Fleet(tmp_path)
    hosts = [made.add(f"url-{number}", release_url=url) for number, url in enumerate(urls)]
    config = {"plugins": {"x": {"password": REGISTRY, "none": None}}, "version": 3}
    cannot_be_written = made.add("config", containerd_config=config)
    run = made.deploy("--dry", "-vvv")
    assert run.code == 1
    for host in hosts:
        assert run.refused(host)[0].startswith("release_url = ")
    assert run.refused(cannot_be_written)
    assert MIRROR not in run.text
    assert REGISTRY not in run.text


def test_reading_a_node_prints_no_script(tmp_path: Path) -> None:
    made = Fleet(tmp_path)
    made.add("one")
    run = made.deploy("--dry", "-vv")
    assert READ in run.stderr
    assert "read_machine" not in run.stderr


WRAPPED = "wr4pped-under-no-name"


def wrapped(directory: Path, **answers: object) -> Path:
    """An inventory as an operator writes it, with wrapped secrets in settings and in the data of somebody else."""
    path = directory / "wrapped.py"
    played: dict[str, Any] = {"fake_delay": 0, "fake_delay_jitter": 0, "fake_responses": {}}
    played["fake_responses"] = {READ: nodes.answer(nodes.bare()), PROVE: PROVEN, **answers}
    path.write_text(
        "from userns.secret import Secret\n"
        f"one = ([('@fake/one', {played!r})], dict(\n"
        f"    release_url=Secret('https://m.example/{WRAPPED}'),\n"
        f"    containerd_config={{'x': {{'plain': Secret({WRAPPED!r}), 'password': {REGISTRY!r}}}}},\n"
        f"    somebody_elses=Secret({WRAPPED!r}), ssh_password={OLD!r},\n"
        "))\n"
    )
    return path


@pytest.mark.parametrize(
    "words",
    [
        ["debug-inventory"],
        ["debug-inventory", "--json"],
        ["deploy.py", "--dry", "--diff", "-vvv"],
        ["deploy.py", "--dry", "--debug", "--debug-operations"],
        ["deploy.py", "--dry", "--debug-operations", "--json"],
        ["deploy.py", "-y", "--json", "-vvv"],
    ],
    ids=" ".join,
)
def test_a_wrapped_secret_is_shown_by_nothing(tmp_path: Path, words: list[str]) -> None:
    run = pyinfra(wrapped(tmp_path), *words)
    assert run.code == 0
    assert "@fake/one" in run.text
    for secret in (WRAPPED, REGISTRY, OLD):
        assert secret not in run.text
    if "--json" in words:
        assert run.json


@pytest.mark.parametrize("options", [["-y"], ["-y", "--json"], ["-y", "-vvv"]], ids=" ".join)
def test_nor_by_what_a_program_on_the_node_says_of_it(tmp_path: Path, options: list[str]) -> None:
    said = {"success": False, "stdout": f"error: level {WRAPPED}", "stderr": f"{REGISTRY} is no number"}
    run = pyinfra(wrapped(tmp_path, **{CHANGE: said}), "deploy.py", *options)
    assert run.code == 1
    assert "error: level <secret>" in run.text
    assert "<secret> is no number" in run.text
    assert WRAPPED not in run.text
    assert REGISTRY not in run.text
