"""A dry run on real nodes: it tells all that the real run then does, no secret, and it changes nothing."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pytest

from lab import Lab, LabNode
from lab.mirror import Mirror
from lab.serving import Served
from tests.node.runs import Operator, Run, differences, must, tree

CONFIG = "/etc/containerd/config.toml"
UNIT = "/etc/systemd/system/containerd.service"
DROP_IN = "/etc/systemd/system/containerd.service.d/50-userns-node.conf"
MODPROBE = "/etc/modprobe.d/overlay-metacopy.conf"
HOOK = "/usr/local/libexec/userns-node/pre-start"
CHECK = "/usr/local/libexec/userns-node/check"
CHECK_UNIT = "/etc/systemd/system/userns-node-check.service"
FILES = (CONFIG, DROP_IN, HOOK, UNIT, MODPROBE, CHECK, CHECK_UNIT)

SECRET, NEXT_SECRET = "hunter2-of-the-robot", "correct-horse-battery"
HUNK = re.compile(r"@@ -(\d+)(?:,(\d+))? \+(\d+)(?:,(\d+))? @@")


def registry(password: str) -> dict[str, object]:
    """`containerd_config` with a login for a registry."""
    auth = {"username": "robot", "password": password}
    images = {"registry": {"configs": {"registry.lab.invalid": {"auth": auth}}}}
    return {"plugins": {"io.containerd.cri.v1.images": images}}


def diffs(said: Sequence[str]) -> dict[str, list[str]]:
    """The unified diffs in what was said of a node, by the file that they are of."""
    found: dict[str, list[str]] = {}
    current: list[str] | None = None
    for number, line in enumerate(said):
        if line.startswith("--- ") and said[number + 1].startswith("+++ "):
            old, new = line.removeprefix("--- "), said[number + 1].removeprefix("+++ ")
            current = found.setdefault(old if new == "/dev/null" else new, [])
        if current is not None:
            if not line.startswith(("---", "+++", "@@", "+", "-", " ", "\\")):
                current = None
                continue
            current.append(line)
    return found


def patched(text: str, diff: Sequence[str]) -> str:
    """`text` after a unified diff, every line of which has to fit, as `patch --fuzz=0` would have it."""
    old = text.splitlines(keepends=True)
    new: list[str] = []
    done, lines = 0, list(diff[2:])
    while lines:
        hunk = HUNK.fullmatch(lines.pop(0))
        assert hunk, "a line outside of every hunk"
        start, taken, given = int(hunk[1]), int(hunk[2] or 1), int(hunk[4] or 1)
        begin = start - 1 if taken else start
        new += old[done:begin]
        before, after = len(new), begin
        while lines and not lines[0].startswith("@@"):
            mark, content = lines[0][:1], lines.pop(0)[1:]
            ended = not (lines and lines[0].startswith("\\"))
            if not ended:
                lines.pop(0)
            whole = content + ("\n" if ended else "")
            if mark in " -":
                assert old[after] == whole
                after += 1
            if mark in " +":
                new.append(whole)
        done = after
        assert (after - begin, len(new) - before) == (taken, given), "the hunk's header counts other lines"
    return "".join(new + old[done:])


def text_of(node: LabNode, path: str) -> str:
    """A file on the node, "" where there is none."""
    file = node.root / path.lstrip("/")
    return file.read_text() if file.exists() else ""


@pytest.fixture(scope="module")
def operator(lab: Lab, mirror: Mirror, _releases: Served, tmp_path_factory: pytest.TempPathFactory) -> Operator:
    return Operator(lab, tmp_path_factory.mktemp("dry"), release_url=_releases.url, artifact_lock=str(mirror.lock))


@dataclass(frozen=True)
class Rehearsed:
    """A dry run, and the real run that followed on the same node, with the texts before and after."""

    node: LabNode
    dry: Run
    changed_by_dry: list[str]
    before: dict[str, str]
    real: Run
    after: dict[str, str]


def rehearse(operator: Operator, node: LabNode, sandbox_image: str | None) -> Rehearsed:
    """Run dry, then for real."""
    whole = tree(node)
    before = {path: text_of(node, path) for path in FILES}
    dry = must(operator.dry(node, sandbox_image=sandbox_image))
    changed = differences(whole, tree(node))
    real = must(operator.deploy(node, sandbox_image=sandbox_image))
    return Rehearsed(node, dry, changed, before, real, {path: text_of(node, path) for path in FILES})


@pytest.fixture(scope="module")
def fresh(lab: Lab, operator: Operator) -> Iterator[Rehearsed]:
    node = lab.node("rehearsed")
    yield rehearse(operator, node, None)
    node.stop()


@pytest.fixture(scope="module")
def drifted(fresh: Rehearsed, operator: Operator) -> Rehearsed:
    """The same node, after somebody was at work on it, and with another sandbox image."""
    for drift in (
        f"sed -i 's/SystemdCgroup = true/SystemdCgroup = false/' {CONFIG}",
        f"sed -i '/^#/d; s/^Restart=.*/Restart=no/' {UNIT}",
        f"rm {DROP_IN}",
        f"echo 'echo more' >> {HOOK}",
        "rm /usr/local/bin/ctr",
        "systemctl disable containerd 2>/dev/null",
    ):
        fresh.node.ssh(drift)
    return rehearse(operator, fresh.node, "lab.invalid/pause:1")


def test_a_dry_run_changes_nothing_on_a_fresh_node(fresh: Rehearsed) -> None:
    assert fresh.changed_by_dry == []


def test_a_dry_run_changes_nothing_on_a_drifted_node(drifted: Rehearsed) -> None:
    assert drifted.changed_by_dry == []


def test_a_dry_run_tells_each_change_of_a_fresh_node_in_words(fresh: Rehearsed, mirror: Mirror) -> None:
    said = [re.sub(r"[(:].*", "", line).strip() for line in fresh.dry.will(fresh.node)]
    assert said == [
        f"install containerd {mirror.versions('containerd')[0]}",
        f"install runc {mirror.versions('runc')[0]}",
        *(f"write {path}" for path in FILES),
        "enable containerd.service",
        "enable userns-node-check.service",
        "restart containerd.service",
    ]


def test_a_dry_run_tells_each_change_of_a_drifted_node_with_its_reason(drifted: Rehearsed) -> None:
    said = "\n".join(drifted.dry.will(drifted.node))
    for words in (
        "/usr/local/bin/ctr is missing",
        f"write {CONFIG}: its text differs",
        f"write {DROP_IN}: new",
        f"write {HOOK}: its text differs",
        f"write {UNIT}: its text differs",
        "enable containerd.service: it is disabled",
        "restart containerd.service: new containerd",
    ):
        assert words in said
    assert len(drifted.dry.will(drifted.node)) == 7


@pytest.mark.parametrize("which", ["fresh", "drifted"])
def test_the_real_run_does_what_the_dry_run_told(which: str, request: pytest.FixtureRequest) -> None:
    rehearsed: Rehearsed = request.getfixturevalue(which)
    assert rehearsed.real.will(rehearsed.node) == rehearsed.dry.will(rehearsed.node)
    assert rehearsed.real.done(rehearsed.node) == rehearsed.dry.planned(rehearsed.node)
    assert rehearsed.dry.json["results"] is None


@pytest.mark.parametrize("which", ["fresh", "drifted"])
def test_each_diff_turns_the_old_text_into_the_one_that_is_written(which: str, request: pytest.FixtureRequest) -> None:
    rehearsed: Rehearsed = request.getfixturevalue(which)
    shown = diffs(rehearsed.dry.said(rehearsed.node))
    changed = {path for path in FILES if rehearsed.before[path] != rehearsed.after[path]}
    assert set(shown) == changed
    for path in changed:
        assert patched(rehearsed.before[path], shown[path]) == rehearsed.after[path]


def test_a_file_that_goes_is_shown_line_by_line(drifted: Rehearsed, operator: Operator) -> None:
    run = operator.dry(drifted.node, sandbox_image="lab.invalid/pause:1", overlay_metacopy=False)
    assert f"remove {MODPROBE}: " in "\n".join(run.will(drifted.node))
    assert patched(text_of(drifted.node, MODPROBE), diffs(run.said(drifted.node))[MODPROBE]) == ""


def test_a_dry_run_for_people_ends_well_without_a_terminal(drifted: Rehearsed, operator: Operator) -> None:
    inventory = operator.inventory({"nodes": {drifted.node: {"cgroup_driver": "cgroupfs"}}})
    run = must(operator.pyinfra(inventory, "deploy.py", "--dry", "--diff"))
    assert f"Stage {CONFIG}" in run.text
    assert "-SystemdCgroup = true" in run.said(drifted.node)


# --- secrets ---------------------------------------------------------------------------------------------------------


def spellings(secret: str) -> list[str]:
    """A secret as it is, and as it would look within a longer text in base64."""
    found = [secret]
    for shift in range(3):
        encoded = base64.b64encode(b"x" * shift + secret.encode()).decode()
        found.append(encoded[4 if shift else 0 : -4])
    return found


@pytest.fixture(scope="module")
def holds_secret(drifted: Rehearsed, operator: Operator) -> tuple[LabNode, Run]:
    """The node with a registry's password in its config, and the run that brought it."""
    return drifted.node, must(
        operator.deploy(drifted.node, flags=["-vvv", "--diff"], containerd_config=registry(SECRET))
    )


def test_a_secret_arrives_on_the_node_for_root_alone(holds_secret: tuple[LabNode, Run]) -> None:
    node, _ = holds_secret
    assert node.ssh("containerd config dump").stdout.count(SECRET) == 1
    assert node.ssh(f"stat -c '%a %u:%g' {CONFIG}").stdout == "600 0:0\n"
    readable = f"grep -rlF {SECRET} /etc /var/lib/userns-node /run /tmp /var/log 2>/dev/null"
    assert node.ssh(readable).stdout == f"{CONFIG}\n"
    assert SECRET not in node.ssh("journalctl --quiet --output cat").stdout


@pytest.mark.parametrize(
    "flags", [["--json"], ["--json", "--diff"], ["--diff", "-v"], ["--diff", "-vvv"]], ids=" ".join
)
def test_a_change_of_a_secret_is_told_and_neither_secret_is(
    holds_secret: tuple[LabNode, Run], operator: Operator, flags: list[str]
) -> None:
    node, _ = holds_secret
    inventory = operator.inventory({"nodes": {node: {"containerd_config": registry(NEXT_SECRET)}}})
    run = must(operator.pyinfra(inventory, "deploy.py", "--dry", *flags))
    assert f"write {CONFIG}: its text differs" in "\n".join(run.will(node))
    if "--diff" in flags:
        marks = [line for line in run.said(node) if line.startswith(("-password", "+password"))]
        assert len(set(marks)) == 2
    for secret in (SECRET, NEXT_SECRET, *spellings(SECRET), *spellings(NEXT_SECRET)):
        assert secret not in run.text


def test_the_real_run_tells_no_secret_either(holds_secret: tuple[LabNode, Run]) -> None:
    _, run = holds_secret
    for secret in spellings(SECRET):
        assert secret not in run.text


NVIDIA = """
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.nvidia.options]
BinaryName = "/usr/bin/nvidia-container-runtime"
"""


def test_what_goes_of_a_nodes_own_config_is_named_without_a_diff(fresh: Rehearsed, operator: Operator) -> None:
    """Of a config.toml as containerd itself and NVIDIA's toolkit write it, and somebody has edited it."""
    node = fresh.node
    edit = "s|^ *config_path = .*|config_path = '/srv/hosts'|; s/enable_selinux = .*/enable_selinux = true/"
    node.ssh(
        f'cp {CONFIG} /root/ours; containerd config default | sed "{edit}" >{CONFIG}; cat >>{CONFIG}', input=NVIDIA
    )
    try:
        said = must(operator.dry(node)).said(node)
    finally:
        node.ssh(f"cat /root/ours >{CONFIG}; rm /root/ours")
    (told,) = [line for line in said if "runtime-handler-lost" in line]
    assert "config.toml has the runtime handler nvidia, which the new one takes away" in told
    (told,) = [line for line in said if "config-setting-lost" in line]
    named = told.partition(" sets ")[2].partition(", which the new one")[0].split(", ")
    assert set(named) == {
        'plugins."io.containerd.cri.v1.images".registry.config_path',
        'plugins."io.containerd.cri.v1.runtime".enable_selinux',
        'plugins."io.containerd.transfer.v1.local".config_path',
    }
