"""`python -m userns explain`: the words, the JSON and the exit codes that people and scripts rely on."""

from __future__ import annotations

import io
import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests import nodes
from userns import paths, planning, report
from userns.__main__ import ROOT, main
from userns.node import Filesystem, Node, Overlay, Probe
from userns.planning import Plan

OK = Probe(result="ok")
NODE = Node(
    kernel="6.12.5",
    machine="x86_64",
    os_id="debian",
    os_version="13",
    systemd="257",
    cgroup="v2",
    tools=("awk", "flock", "sha256sum", "systemd-run", "base64", "tar", "gzip", "curl"),
    overlay=Overlay(state="loaded", metacopy="Y"),
    sysctls={"user.max_user_namespaces": 63000},
    probes={"containerd-root": OK, "kubelet-root": OK, "tmpfs": OK, "overlay": OK},
)
OLD = NODE.model_copy(
    update={
        "kernel": "6.1.0-50-amd64",
        "os_version": "12",
        "probes": NODE.probes | {"tmpfs": Probe(result="cannot", step="mount_setattr", errno="EINVAL")},
    }
)


@pytest.fixture
def fact(tmp_path: Path) -> Path:
    path = tmp_path / "nodes.json"
    path.write_text(json.dumps({"tasks.node.Node": {"new": NODE.to_json(), "old": OLD.to_json()}}))
    return path


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, Any]]:
    code = main(["explain", "--json", *arguments])
    return code, json.loads(capsys.readouterr().out)


def usage(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as stopped:
        main(["explain", *arguments])
    assert stopped.value.code == 2
    printed = capsys.readouterr()
    assert not printed.out
    return printed.err


# --- versions ------------------------------------------------------------------------------------------------------


def test_a_515_kernel_is_refused_for_kubernetes_133(capsys: pytest.CaptureFixture[str]) -> None:
    code, found = told(capsys, "--kernel", "5.15", "--kubernetes", "1.33", "--containerd", "2.1.9")
    assert code == 1
    (subject,) = found
    assert subject == "Linux 5.15, Kubernetes 1.33, containerd 2.1.9"
    answer = found[subject]
    assert (answer["tier"], answer["volumes"], answer["slow_chown"]) == ("chown", "no-tmpfs", True)
    assert answer["assumed"]
    assert "kernel-lacks-tmpfs-idmap" in [each["id"] for each in answer["findings"] if each["severity"] == "blocker"]


def test_a_new_kernel_is_ready(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "--kernel", "6.12", "--containerd", "2.3.5", "--runc", "1.5.3"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("Linux 6.12, Kubernetes 1.36, containerd 2.3.5, runc 1.5.3: ready\n  tier idmapped")
    assert "    - tmpfs can be idmapped (not probed)" in text
    assert max(map(len, text.splitlines())) < 120


def test_what_is_allowed_is_still_told(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--kernel", "6.1", "--containerd", "2.3.5", "--allow", "kernel-lacks-tmpfs-idmap"]
    code, found = told(capsys, *arguments)
    assert code == 0
    (answer,) = found.values()
    (accepted,) = (each for each in answer["findings"] if each["id"] == "kernel-lacks-tmpfs-idmap")
    assert (accepted["severity"], accepted["allowed"]) == ("warning", True)


def test_containerd_by_itself_gets_its_advisories(capsys: pytest.CaptureFixture[str]) -> None:
    code, found = told(capsys, "--containerd", "2.3.1", "--today", "2026-11-23")
    assert code == 1
    (answer,) = found.values()
    assert "tier" not in answer
    assert answer["findings"][0]["id"] == "advisory-cve-2026-53488"


def test_a_runtime_by_itself_gets_its_advisories(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "--runc", "1.4.3"]) == 0
    assert capsys.readouterr().out.startswith("runc 1.4.3: nothing refuses it\n")


def test_crun_alone_is_the_default_runtime(capsys: pytest.CaptureFixture[str]) -> None:
    code, found = told(capsys, "--containerd", "2.3.5", "--crun", "1.8.6")
    assert code == 1
    assert "crun-too-old" in [each["id"] for each in next(iter(found.values()))["findings"]]


def test_the_end_of_a_branch_follows_the_day(capsys: pytest.CaptureFixture[str]) -> None:
    for day, ended in (("2026-11-06", False), ("2026-11-07", True)):
        _, found = told(capsys, "--containerd", "2.2.8", "--today", day)
        ids = [each["id"] for each in next(iter(found.values()))["findings"]]
        assert ("end-of-life-containerd-2-2" in ids) is ended


@pytest.mark.parametrize("kubernetes", ["1.37", "1.40.2", "2.3.4"])
def test_explain_and_the_setting_take_the_same_newer_kubernetes(
    capsys: pytest.CaptureFixture[str], kubernetes: str
) -> None:
    versions = ["--kubernetes", kubernetes, "--containerd", "2.3.5"]
    if kubernetes.startswith("2"):
        assert f"argument --kubernetes: there is no Kubernetes {kubernetes}" in usage(capsys, *versions)
        return
    code, found = told(capsys, *versions)
    of_setting = nodes.plan(nodes.bare(), kubernetes_version=kubernetes).findings
    for findings in ([each["id"] for each in next(iter(found.values()))["findings"]], [each.id for each in of_setting]):
        assert "kubernetes-newer-than-known" in findings
    assert code == 0


def test_slow_chown_and_snapshotter_are_understood(capsys: pytest.CaptureFixture[str]) -> None:
    versions = ["--kernel", "5.15", "--kubernetes", "1.26", "--containerd", "2.3.5"]
    assert told(capsys, *versions)[0] == 0
    assert told(capsys, *versions, "--slow-chown", "false")[0] == 1
    _, found = told(capsys, *versions, "--snapshotter", "devmapper")
    assert "snapshotter-chowns" in [each["id"] for each in next(iter(found.values()))["findings"]]


# --- saved facts ---------------------------------------------------------------------------------------------------


def test_each_host_of_a_fact_is_told(capsys: pytest.CaptureFixture[str], fact: Path) -> None:
    code, found = told(capsys, str(fact))
    assert code == 1
    assert {host: (each["tier"], each["refused"]) for host, each in found.items()} == {
        "new": ("idmapped", False),
        "old": ("rootfs-only", True),
    }
    (written,) = [each for each in found["new"]["changes"] if each.get("path") == paths.CONFIG]
    assert (written["kind"], written["mode"]) == ("write-file", "644")
    assert written["summary"].startswith(f"write {paths.CONFIG}: ")
    assert "content" not in written  # it may hold a password, as the URL of a mirror may
    assert {each["kind"] for each in found["new"]["changes"]} >= {"install-artifact", "restart-service"}
    assert not any("url" in each for each in found["new"]["changes"])
    (chown,) = [each for each in found["new"]["decisions"] if each["name"] == "slow_chown"]
    assert (chown["value"], set(chown)) == ("false", {"name", "value", "reason", "source"})


def test_what_was_read_of_other_directories_decides_nothing(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    there = {"containerd-root": ("/var/lib/containerd", "ext4"), "kubelet-root": ("/var/lib/kubelet", "ext4")}
    disks = {name: Filesystem(path=path, parent=path, type=type_) for name, (path, type_) in there.items()}
    saved, policy = tmp_path / "facts.json", tmp_path / "policy.json"
    saved.write_text(json.dumps({"h": NODE.model_copy(update={"filesystems": disks}).to_json()}))
    policy.write_text(json.dumps({"containerd_root": "/data/containerd"}))
    _, found = told(capsys, str(saved))
    assert not found["h"]["assumed"]
    _, found = told(capsys, str(saved), "--policy", str(policy))
    assert found["h"]["assumed"]
    (finding,) = [each for each in found["h"]["findings"] if each["id"] == "idmap-not-probed"]
    assert "the fact was read for /var/lib/containerd" in finding["message"]


def test_a_reader_that_has_read_enough_is_no_trouble(fact: Path) -> None:
    command = f"{shlex.quote(sys.executable)} -m userns explain {fact} | head -n 1; true"
    done = subprocess.run(["sh", "-c", command], cwd=ROOT, capture_output=True, text=True, check=True)
    assert (done.stdout.count("\n"), done.stderr) == (1, "")


def test_the_words_for_a_host_that_is_refused(capsys: pytest.CaptureFixture[str], fact: Path) -> None:
    assert main(["explain", str(fact)]) == 1
    text = capsys.readouterr().out
    assert "new: ready\n" in text
    assert "old: refused\n" in text
    assert "would change, if nothing refused it:" in text


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("policy.toml", 'allow = ["kernel-lacks-tmpfs-idmap"]\n'),
        ("policy.json", '{"allow": ["kernel-lacks-tmpfs-idmap"]}'),
        ("policy.toml", 'allow = ["kernel-lacks-tmpfs-idmap"]\nmax_unavailable = "10%"\n'),  # fleet.py's
    ],
)
def test_a_policy_is_read(capsys: pytest.CaptureFixture[str], fact: Path, tmp_path: Path, name: str, text: str) -> None:
    settings = tmp_path / name
    settings.write_text(text)
    assert told(capsys, str(fact), "--policy", str(settings))[0] == 0


def test_allow_on_the_command_line_adds_to_the_policy(capsys: pytest.CaptureFixture[str], fact: Path) -> None:
    assert told(capsys, str(fact), "--allow", "kernel-lacks-tmpfs-idmap")[0] == 0


def test_a_bare_node_and_standard_input_are_understood(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps(NODE.to_json())))
    code, found = told(capsys, "-")
    assert (code, list(found)) == (0, ["node"])


@pytest.mark.parametrize(
    "document", [{"f": {"h": NODE.to_json()}}, {"h": NODE.to_json()}, {"f": {"h": NODE.to_json()}, "g": {}}]
)
def test_the_shapes_of_a_saved_fact(document: dict[str, Any]) -> None:
    assert report.nodes(json.loads(json.dumps(document))) == {"h": NODE}


# --- usage ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "name a saved fact, or versions"),
        (["--kernel", "6.12"], "--kernel says nothing without --containerd"),
        (["--kernel", "six", "--containerd", "2.3.4"], "'six' does not start with a version"),
        (["--containerd", "2.3.4", "--today", "tomorrow"], "not a day such as"),
        (["--containerd", "2.3.4", "--allow", "kernel-lacks-tmpfs"], "no finding with this id"),
        (["--containerd", "2.3.4", "--allow", "config-unknown-key"], "no finding with this id"),
        (["--containerd", "2.3.4", "--policy", "x.toml"], "--policy goes with a saved fact"),
        (["/nonexistent/nodes.json"], "No such file"),
        (["--slow-chown", "maybe"], "invalid choice"),
    ],
)
def test_a_wrong_command_line_says_what_is_wrong(
    capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    assert said in usage(capsys, *arguments)


@pytest.mark.parametrize(
    ("program", "half", "whole", "numbers"),
    [
        ("kernel", "6", "6.1", 2),
        ("kubernetes", "1", "v1.33", 2),
        ("containerd", "2.3", "2.3.5", 3),
        ("containerd", "2", "2.3.5~ds1-1", 3),
        ("runc", "1.5-rc.1", "1.5.0-rc.1", 3),
        ("crun", "1", "1.31", 2),
    ],
)
def test_half_a_version_is_not_judged_as_its_zero(
    capsys: pytest.CaptureFixture[str], program: str, half: str, whole: str, numbers: int
) -> None:
    others = [] if program == "containerd" else ["--containerd", "2.3.5"]
    error = usage(capsys, *others, f"--{program}", half).splitlines()[-1]
    assert f"argument --{program}: {half!r} is not exact: write {numbers} numbers, such as " in error
    main(["explain", *others, f"--{program}", whole])
    assert f"{whole}" in capsys.readouterr().out.splitlines()[0]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "Expecting value"),
        ('{"a":' * 100_000, "while decoding a JSON"),
        ("[]", "a JSON object was expected"),
        ("{}", "there is no host"),
        ('{"tasks.node.Node": {}}', "there is no host"),
        ('{"tasks.node.Node": {"h": null}}', "h has no answer"),
        ('{"h": null}', "h has no answer"),
        ('{"kernel": "6.12"}', "machine: Field required"),
        ('{"h": {"kernel": "6.12", "machine": "x86_64", "wings": 2}}', "wings: Extra inputs"),
    ],
)
def test_a_fact_that_is_none_says_what_is_wrong(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, text: str, said: str
) -> None:
    path = tmp_path / "fact.json"
    path.write_text(text)
    assert said in usage(capsys, str(path))


def test_a_fact_and_versions_do_not_mix(capsys: pytest.CaptureFixture[str], fact: Path) -> None:
    assert "--kernel, --selinux: a saved fact has its own" in usage(capsys, str(fact), "--kernel", "6.1", "--selinux")


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("p.toml", "allow = [", "p.toml"),
        ("p.json", "[]", "a table of settings was expected"),
        ("p.py", "max_pods = 110", "p.py: --policy takes .json or .toml, and not .py"),
        ("p.yaml", "max_pods: 110", "p.yaml: --policy takes .json or .toml, and not .yaml"),
        ("p", "max_pods = 110", "p: Expecting value"),
        ("p.toml", 'kubernetes_version = "1.20"', "kubernetes_version"),
        ("p.toml", 'allow = ["kernel-lacks-tmpfs-idmp"]', "did you mean 'kernel-lacks-tmpfs-idmap'"),
        ("p.toml", "max_podz = 3\n[tbl]", "p.toml: there is no such setting: 'max_podz' (write max_pods), 'tbl'\n"),
        ("p.json", '{"kubernetesVersion": "1.30"}', "'kubernetesVersion' (write kubernetes_version)"),
        ("p.toml", 'artifact_lock = "/nonexistent/lock.toml"', "No such file"),
    ],
)
def test_a_policy_that_is_none_says_what_is_wrong(
    capsys: pytest.CaptureFixture[str], fact: Path, tmp_path: Path, name: str, text: str, said: str
) -> None:
    path = tmp_path / name
    path.write_text(text)
    assert said in usage(capsys, str(fact), "--policy", str(path))


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_a_host_of_which_nothing_can_be_told_costs_the_others_nothing(
    capsys: pytest.CaptureFixture[str], fact: Path, monkeypatch: pytest.MonkeyPatch, form: list[str]
) -> None:
    def plan(node: Node, *others: Any) -> Plan:
        if node.kernel == OLD.kernel:
            raise ValueError("it cannot be told")
        return planning.plan(node, *others)

    monkeypatch.setattr("userns.__main__.plan", plan)
    with pytest.raises(SystemExit) as stopped:
        main(["explain", str(fact), *form])
    assert stopped.value.code == 2
    printed = capsys.readouterr()
    assert printed.err.endswith("error: old: it cannot be told\n")
    assert list(json.loads(printed.out)) == ["new"] if form else printed.out.startswith("new: ready\n")


def test_what_is_wrong_on_every_host_is_told_once(
    capsys: pytest.CaptureFixture[str], fact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("userns.__main__.plan", lambda *_: int("x"))
    assert "error: new, old: invalid literal" in usage(capsys, str(fact))


def test_it_runs_as_a_module_from_anywhere(tmp_path: Path, fact: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "userns", "explain", "--json", str(fact)],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 1, run.stderr
    assert set(json.loads(run.stdout)) == {"new", "old"}
