"""Settings: where they may come from, which of two counts, and how a lock file is found."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from lab.paths import REPO
from tasks import settings
from tests import nodes
from tests.deploy.fleet import Fleet, Run, pyinfra
from userns import policy
from userns.settings import DEFAULTS
from userns.tables import KNOWN_IDS

LOCK = """
[{component}]
path = "/{{version}}/{{arch}}"
source = "a test"
[{component}.sha256."{version}"]
amd64 = "{digit}"
"""


def lock(containerd: str, runc: str) -> str:
    """A lock file with one version of each."""
    rows = (("containerd", containerd), ("runc", runc))
    return "".join(LOCK.format(component=name, version=version, digit="0" * 64) for name, version in rows)


def installs(run: Run, host: str = "@fake/one") -> list[str]:
    """What a run would install, by name and version."""
    return [" ".join(each.split()[1:3]) for each in run.will(host) if each.startswith("install ")]


# --- which one counts ---------------------------------------------------------------------------------------------


def test_without_any_the_defaults_hold(tmp_path: Path) -> None:
    """An inventory outside of this repository does not see inventories/group_data/all.py."""
    made = Fleet(tmp_path)
    made.add("one")
    newest = nodes.policy()
    run = made.deploy("--dry", "--json")
    assert installs(run) == [f"containerd {newest.containerd_version}", f"runc {newest.runc_version}"]


def test_the_file_that_shows_every_setting_shows_the_defaults() -> None:
    shown: dict[str, object] = {}
    exec((REPO / "inventories" / "group_data" / "all.py").read_text(), shown)
    assert {name: value for name, value in shown.items() if not name.startswith("__")} == {
        name: list(value) if isinstance(value, tuple) else value for name, value in DEFAULTS.items()
    }


def test_all_then_group_then_host_then_the_command_line(tmp_path: Path) -> None:
    made = Fleet(tmp_path)
    made.add("one")
    (tmp_path / "group_data").mkdir()
    (tmp_path / "group_data" / "all.py").write_text('runc_version = "1.3.4"\n')
    assert "runc 1.3.4" in installs(made.deploy("--dry"))
    (tmp_path / "group_data" / "nodes.py").write_text('runc_version = "1.3.5"\n')
    assert "runc 1.3.5" in installs(made.deploy("--dry"))
    made.hosts["nodes"][0][1]["runc_version"] = "1.3.6"
    assert "runc 1.3.6" in installs(made.deploy("--dry"))
    assert "runc 1.4.0" in installs(made.deploy("--dry", "--data", "runc_version=1.4.0"))


def test_data_of_a_group_in_the_inventory(tmp_path: Path) -> None:
    made = Fleet(tmp_path, data={"old": {"containerd_version": "2.2.7"}})
    made.add("one", group="old")
    made.add("two", group="new")
    run = made.deploy("--dry")
    assert "containerd 2.2.7" in installs(run, "@fake/one")
    assert "containerd 2.2.7" not in installs(run, "@fake/two")


def test_values_of_every_kind_behind_data(tmp_path: Path) -> None:
    """pyinfra makes bools and numbers of some of them; lists and mappings are JSON."""
    made = Fleet(tmp_path)
    made.add("one", nodes.bare(probes={}))
    values = {
        "kubernetes_version": "v1.30",
        "crun_version": "1.17",
        "max_pods": "250",
        "slow_chown": "True",
        "sandbox_image": "registry.example/pause:3.10",
        "containerd_config": '{"debug": {"level": "info"}}',
        "allow": '["kernel-lacks-tmpfs-idmap"]',
        "kubelet_id_range": f"[65536, {250 * 65536}]",
    }
    options = [word for name, value in values.items() for word in ("--data", f"{name}={value}")]
    run = made.deploy("--dry", "--diff", *options)
    assert run.refused("@fake/one") == [], run.text
    assert "crun 1.17" in installs(run)
    for line in ('+level = "info"', '+sandbox = "registry.example/pause:3.10"', f"+kubelet:65536:{250 * 65536}"):
        assert line in run.said("@fake/one")


def test_wrong_values_behind_data_are_told_with_their_cure(tmp_path: Path) -> None:
    made = Fleet(tmp_path)
    made.add("one")
    values = {
        "kubernetes_version": "1.3",
        "max_pods": "many",
        "slow_chown": "yes",
        "verify_digests": "1",
        "containerd_config": "[]",
        "allow": "[1]",
        "kubelet_id_range": "65536",
        "crun_version": "1.17.0.1",
        "containerd_verzion": "2.3.4",
    }
    options = [word for name, value in values.items() for word in ("--data", f"{name}={value}")]
    run = made.deploy("--dry", *options)
    assert run.code == 1
    told = run.refused("@fake/one")
    assert {line.partition(" ")[0].rstrip(":") for line in told} == set(values)
    assert "write it as a string" in next(line for line in told if line.startswith("kubernetes_version"))


def test_data_of_other_deploys_is_left_alone(tmp_path: Path) -> None:
    made = Fleet(tmp_path)
    made.add("one", ntp_servers=["a"], ssh_user="ops", _sudo=True, containerd_port=1, max_pids=5)
    assert made.deploy("--dry").code == 0


# --- where it is run from -----------------------------------------------------------------------------------------


def test_it_runs_from_anywhere_with_chdir(tmp_path: Path) -> None:
    made = Fleet(tmp_path)
    made.add("one")
    run = pyinfra("--chdir", REPO, made.inventory, "deploy.py", "--dry", "--diff", "--json", cwd=tmp_path)
    assert run.code == 0
    assert "Stage /etc/containerd/config.toml" in run.operations("@fake/one")


def test_a_copy_of_the_project_runs_wherever_it_lies(tmp_path: Path) -> None:
    copy = tmp_path / "a copy"
    for part in ("tasks", "userns", "templates", "artifacts"):
        shutil.copytree(REPO / part, copy / part, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("deploy.py", "config.py"):
        shutil.copy(REPO / file, copy / file)
    made = Fleet(tmp_path)
    made.add("one")
    run = pyinfra(made.inventory, "deploy.py", "--dry", "--diff", cwd=copy)
    assert run.code == 0
    assert len(run.will("@fake/one")) == 13


@pytest.mark.parametrize("name", ["local.py", "example.py"])
def test_the_inventories_of_this_project_can_be_read(name: str) -> None:
    run = pyinfra(Path("inventories") / name, "debug-inventory", "--json")
    assert run.code == 0
    for host in json.loads(run.stdout):
        settings.load(host["data"])


# --- the lock file ------------------------------------------------------------------------------------------------


def test_a_lock_file_of_your_own_is_found_where_you_stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.toml").write_text(lock("2.3.9", "1.4.9"))
    monkeypatch.chdir(tmp_path)
    wanted = settings.load({"artifact_lock": "mine.toml"})
    assert (wanted.containerd_version, wanted.runc_version) == ("2.3.9", "1.4.9")
    assert settings.load({"artifact_lock": str(tmp_path / "mine.toml")}).containerd_version == "2.3.9"


def test_and_else_in_the_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert settings.load({}) == settings.load({"artifact_lock": "artifacts/lock.toml"})


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "it cannot be read: No such file or directory. Allowed: the path of a lock file"),
        (b"\xff\xfe", "it cannot be read: it is no text. Allowed: "),
        (b"no toml", "the lock file cannot be used: this is not TOML"),
        (b"[containerd]\npath = 1", "the lock file cannot be used: containerd.path: "),
    ],
)
def test_a_lock_file_that_cannot_be_used_is_named(tmp_path: Path, content: bytes | None, why: str) -> None:
    path = tmp_path / "lock.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(policy.PolicyError) as refusal:
        settings.load({"artifact_lock": str(path)})
    (problem,) = refusal.value.problems
    assert str(problem).startswith(f"artifact_lock = '{path}': {why}")


def test_a_lock_file_that_is_a_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(policy.PolicyError, match="it cannot be read: Is a directory"):
        settings.load({"artifact_lock": str(tmp_path)})


def test_a_bundle_out_of_reach_is_named(tmp_path: Path) -> None:
    """A directory on the way that may not be entered, or a name that no file can have."""
    for name, why in (("a" * 300, "File name too long"), (f"{tmp_path}/{'a' * 300}/b.tar", "File name too long")):
        with pytest.raises(policy.PolicyError, match=why):
            settings.load({"install_from": "bundle", "artifact_bundle": name})


# --- findings in allow --------------------------------------------------------------------------------------------


def test_every_known_finding_may_be_allowed() -> None:
    assert settings.load({"allow": sorted(KNOWN_IDS)}).allow == tuple(sorted(KNOWN_IDS))


def test_an_unknown_one_is_refused() -> None:
    with pytest.raises(policy.PolicyError, match=r"allow = 'kernel-lacks-idmaps': there is no finding with this id"):
        settings.load({"allow": ["kernel-lacks-idmaps"]})
