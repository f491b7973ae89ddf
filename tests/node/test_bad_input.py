"""Bad input that only a real node can answer to, and other people's configuration: one node, one test after another."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256

import pytest

from lab import Lab, LabNode
from lab.mirror import Mirror
from lab.serving import Served
from tests.node.faults import contents
from tests.node.runs import Operator, Run, must
from userns import paths

CONFIG = "/etc/containerd/config.toml"
NVIDIA = "/etc/containerd/conf.d/99-nvidia.toml"
REPLACED = "/var/lib/userns-node/replaced"
SECRET = "hunter2-by-hand"
BY_HAND = f"""version = 2
# ünïcode, and what somebody was proud of
[plugins."io.containerd.grpc.v1.cri".registry.configs."r.lab.invalid".auth]
password = "{SECRET}"
"""
DROP_IN = """version = 3
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.nvidia]
runtime_type = 'io.containerd.runc.v2'
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.nvidia.options]
BinaryName = '/usr/bin/nvidia-container-runtime'
SystemdCgroup = true
"""


def kept(text: str) -> str:
    """Where this text of config.toml is kept."""
    return f"{REPLACED}/config.toml.{sha256(text.encode()).hexdigest()[:12]}"


@pytest.fixture(scope="module")
def operator(lab: Lab, mirror: Mirror, _releases: Served, tmp_path_factory: pytest.TempPathFactory) -> Operator:
    return Operator(
        lab, tmp_path_factory.mktemp("bad-input"), release_url=_releases.url, artifact_lock=str(mirror.lock)
    )


@pytest.fixture(scope="module")
def node(lab: Lab) -> Iterator[LabNode]:
    """A node with a config.toml that somebody wrote by hand, NVIDIA's drop-in, and a shell that talks."""
    made = lab.node("foreign")
    made.put(CONFIG, BY_HAND.encode())
    made.put(NVIDIA, DROP_IN.encode())
    made.ssh("echo 'echo Welcome to this node' | tee -a /root/.profile >>/root/.bashrc")
    yield made
    made.stop()


@pytest.fixture(scope="module")
def runs(node: LabNode, operator: Operator) -> tuple[Run, Run]:
    """The dry run on it, and the real one."""
    return must(operator.dry(node)), must(operator.deploy(node))


def test_a_config_by_hand_is_shown_before_it_is_replaced_and_its_place_is_told(
    node: LabNode, runs: tuple[Run, Run]
) -> None:
    dry, real = runs
    assert f"is kept as {kept(BY_HAND)}" in "\n".join(dry.will(node))
    assert "-# ünïcode, and what somebody was proud of" in dry.said(node)
    assert f"what was in {CONFIG} is kept as {kept(BY_HAND)}" in real.said(node)
    assert SECRET not in dry.text + real.text


def test_it_is_kept_as_it_was_for_root_alone(node: LabNode, runs: tuple[Run, Run]) -> None:
    assert node.get(kept(BY_HAND)).decode().removeprefix("Welcome to this node\n") == BY_HAND
    assert node.ssh(f"stat -c '%a %u:%g' {kept(BY_HAND)}").stdout.endswith("600 0:0\n")


def test_a_drop_in_of_somebody_else_stays_and_is_read(node: LabNode, runs: tuple[Run, Run]) -> None:
    assert (node.root / NVIDIA[1:]).read_text() == DROP_IN
    dump = node.ssh("containerd config dump").stdout
    assert "/usr/bin/nvidia-container-runtime" in dump
    assert "/usr/local/sbin/runc" in dump


def test_later_changes_and_later_edits_drop_none_of_it(
    node: LabNode, operator: Operator, runs: tuple[Run, Run]
) -> None:
    file = node.root / CONFIG[1:]
    ours = file.read_text()
    edited = ours + "# edited\n[[[ and broken\n"
    file.write_text(edited)
    repaired = must(operator.deploy(node))
    assert f"what was in {CONFIG} is kept as {kept(edited)}" in repaired.said(node)
    assert file.read_text() == ours
    for image in ("lab.invalid/pause:1", "lab.invalid/pause:2"):  # two more sets: the first is no longer the previous
        run = must(operator.deploy(node, sandbox_image=image))
        assert "kept as" not in run.text
    names = sorted(path.name for path in (node.root / REPLACED[1:]).iterdir())
    assert names == sorted(path.rpartition("/")[2] for path in (kept(BY_HAND), kept(edited)))
    assert (node.root / kept(BY_HAND)[1:]).read_text() == BY_HAND


# What only containerd itself finds wrong, as it reads the new config beside the old one; and what is refused before.
WRONG_DROP_INS = {
    "tables-twice": "version = 3\n[debug]\nlevel = 'info'\n[debug]\n",
    "no-toml": "version = 3\nx = = 1\n",
    "another-version": "version = 2\n[debug]\nlevel = 'info'\n",
    "an-array-for-a-table": "version = 3\nplugins = ['x']\n",
    "text-for-a-number": "version = 3\n[grpc]\nuid = 'zero'\n",
}


@pytest.mark.parametrize("name", WRONG_DROP_INS)
def test_a_drop_in_that_would_stop_containerd_leaves_the_node_as_it_is(
    node: LabNode, operator: Operator, runs: tuple[Run, Run], name: str
) -> None:
    must(operator.deploy(node))
    node.put("/etc/containerd/conf.d/zz-wrong.toml", WRONG_DROP_INS[name].encode())
    pid = node.ssh("systemctl show --property MainPID --value containerd").stdout
    before = contents(node)
    run = operator.deploy(node, sandbox_image="lab.invalid/pause:3")
    after = contents(node)
    assert run.code == 1, run.text
    assert "zz-wrong.toml" in run.text or "config.toml is refused by" in run.text
    assert after == before
    assert node.ssh("systemctl show --property MainPID --value containerd").stdout == pid
    node.ssh("rm /etc/containerd/conf.d/zz-wrong.toml")


SITE = "/etc/systemd/system/containerd.service.d/site.conf"
DAEMON = "systemctl daemon-reload && systemctl restart containerd"


def test_a_root_that_the_unit_alone_names_is_not_left(node: LabNode, operator: Operator, runs: tuple[Run, Run]) -> None:
    """Its containers would be forgotten while they run. That it is configured there is seen from what it has open."""
    must(operator.deploy(node))
    start = "ExecStart=/usr/local/bin/containerd"
    node.ssh(f"sed -i 's,^{start}.*,{start} --root /srv/cd,' {paths.UNIT} && {DAEMON}")
    node.ssh("mkdir -p /srv/cd/io.containerd.snapshotter.v1.overlayfs/snapshots/1")
    before = contents(node)
    run = operator.deploy(node)
    assert run.code == 1, run.text
    assert "containerd keeps its containers and images in /srv/cd, and containerd_root is" in run.text
    assert contents(node) == before
    node.ssh("rmdir /srv/cd/io.containerd.snapshotter.v1.overlayfs/snapshots/1")
    must(operator.deploy(node))


def test_a_drop_in_that_takes_another_config_is_refused_since_ours_would_be_read_by_nobody(
    node: LabNode, operator: Operator, runs: tuple[Run, Run]
) -> None:
    must(operator.deploy(node))
    node.put(SITE, b"[Service]\nExecStart=\nExecStart=/usr/local/bin/containerd --config /etc/site.toml\n")
    node.put("/etc/site.toml", b"version = 3\n")
    node.ssh(DAEMON)
    try:
        run = operator.dry(node)
        assert run.code == 1, run.text
        assert "site.conf starts containerd with --config /etc/site.toml: /etc/containerd/config.toml" in run.text
    finally:
        node.ssh(f"rm {SITE} /etc/site.toml && {DAEMON}")
    assert must(operator.deploy(node)).will(node) == []


def test_a_subuid_of_nonsense_keeps_every_line(node: LabNode, operator: Operator, runs: tuple[Run, Run]) -> None:
    nonsense = ":::\n$(touch /canary)\nkubelet:x:y\nnobody:1\n"
    node.put("/etc/subuid", nonsense.encode())
    must(operator.deploy(node, kubelet_id_range=(65536, 65536 * 110), max_pods=110))
    lines = (node.root / "etc/subuid").read_text().splitlines()
    assert {":::", "$(touch /canary)", "nobody:1", f"kubelet:65536:{65536 * 110}"} <= set(lines)
    assert not (node.root / "canary").exists()
