"""A node that pulls: cloud-init's user-data on a real node, with the real script, units, Python, git and deploy."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Any

import pytest

from lab import Lab, LabNode, debs, wheels
from lab.mirror import Mirror
from lab.paths import REPO
from lab.serving import Served
from tests.unit.pull_place import Repository, make_key

# What the user-data asks apt for, and cloud-init itself; the node has no route to an archive.
PACKAGES = ("cloud-init", "git", "python3-venv")
# What a deploy is made of, in the repository that the node fetches from.
PARTS = ("artifacts", "inventories", "requirements", "tasks", "templates", "userns", "config.py", "deploy.py")
# cloud-init with the modules that the user-data is about: the lab's network, users and keys are not its business here.
CLOUD_CFG = """\
datasource_list: [NoCloud]
network: {config: disabled}
cloud_init_modules: [write_files]
cloud_config_modules: []
cloud_final_modules: [scripts_per_boot]
"""
SET_UP = """
    set -e
    export DEBIAN_FRONTEND=noninteractive
    apt-get install --yes --quiet=2 --no-install-recommends /root/debs/*.deb >/dev/null # dpkg knows no order
    rm -rf /root/debs
    mv /root/cloud.cfg /etc/cloud/cloud.cfg
    rm -rf /etc/cloud/cloud.cfg.d/*
    mkdir -p /var/lib/cloud/seed/nocloud
    echo 'instance-id: node1' >/var/lib/cloud/seed/nocloud/meta-data
    cp /root/user-data /var/lib/cloud/seed/nocloud/user-data
    mkdir /etc/systemd/system/userns-node-pull.timer.d
    # The first line takes all times of the unit's away: a run that no test asked for would be in the way of theirs.
    printf '[Timer]\nOnBootSec=\nOnBootSec=10d\nRandomizedDelaySec=0\n' \
        >/etc/systemd/system/userns-node-pull.timer.d/not-now.conf
"""
FIRST_BOOT = "cloud-init init && cloud-init modules --mode config && cloud-init modules --mode final"
PULL = "userns-node-pull.service"
SERVICE = f"systemctl start {PULL}"
STATUS = "/var/lib/userns-node-pull/status.json"


@dataclass(frozen=True)
class Puller:
    """The node, and the repository whose copy in it is what it fetches from."""

    node: LabNode
    repository: Repository
    stranger: Path
    first_boot: str

    def publish(self) -> None:
        """What is in the repository now, where the node finds it."""
        target = self.node.root / "srv/userns-node.git"
        shutil.rmtree(target, ignore_errors=True)
        self.repository.git("clone", "--quiet", "--mirror", ".", str(target))

    def start(self) -> subprocess.CompletedProcess[str]:
        """One run of the service, to its end."""
        return self.node.ssh(SERVICE, check=False)

    @property
    def status(self) -> dict[str, Any]:
        status: dict[str, Any] = json.loads(self.node.ssh(f"cat {STATUS}").stdout)
        return status

    def said(self) -> str:
        """What the last run of the service said."""
        id = self.node.ssh("systemctl show --property=InvocationID --value userns-node-pull").stdout.strip()
        return self.node.ssh(f"journalctl --no-pager --output=cat _SYSTEMD_INVOCATION_ID={id}").stdout


def make_repository(home: Path, mirror: Mirror, url: str) -> Repository:
    """This project, with the settings of the lab in what is signed."""
    repository = Repository(home / "repository", make_key(home / "release"))
    repository.create()
    for part in PARTS:
        source, target = REPO / part, repository.home / part
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)
    shutil.copy(mirror.lock, repository.home / "artifacts/lock.toml")
    settings = repository.home / "inventories/group_data/all.py"
    settings.write_text(re.sub(r"(?m)^release_url = .*$", f'release_url = "{url}"', settings.read_text("utf-8")))
    repository.git("add", "--all")
    repository.git("commit", "--quiet", "--gpg-sign", "--message", "the first")
    repository.tag()
    return repository


def user_data(home: Path, key: Path) -> Path:
    """As docs/how-to/pull.md has it made."""
    conf = (REPO / "examples/pull/pull.conf").read_text("utf-8")
    conf = re.sub(r"(?m)^PULL_REPOSITORY=.*$", "PULL_REPOSITORY=/srv/userns-node.git", conf)
    conf = re.sub(r"(?m)^PULL_WHEELS=.*$", "PULL_WHEELS=/srv/wheels", conf)
    (home / "pull.conf").write_text(conf)
    public = key.with_suffix(".pub").read_text()
    (home / "allowed_signers").write_text(f'release@example.internal namespaces="git" {public}')
    command = ["sh", str(REPO / "examples/pull/user-data.sh"), str(home / "pull.conf"), str(home / "allowed_signers")]
    made = subprocess.run(command, capture_output=True, text=True, check=True)
    (home / "user-data").write_text(made.stdout)
    return home / "user-data"


@pytest.fixture(scope="module")
def puller(lab: Lab, mirror: Mirror, _releases: Served, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Puller]:
    home = tmp_path_factory.mktemp("pull")
    packages = debs.for_a_node(*PACKAGES)
    (python,) = (name[1] for deb in packages.iterdir() if (name := re.match(r"python(3\.\d+)-venv_", deb.name)))
    repository = make_repository(home, mirror, _releases.url)
    node = lab.node("pulls")
    shutil.copytree(packages, node.root / "root/debs")
    shutil.copytree(wheels.fetched(python), node.root / "srv/wheels")
    shutil.copy(user_data(home, repository.key), node.root / "root/user-data")
    (node.root / "root/cloud.cfg").write_text(CLOUD_CFG)
    node.ssh(SET_UP)
    Puller(node, repository, repository.key, "").publish()
    booted = node.ssh(f"{FIRST_BOOT} 2>&1", check=False)
    yield Puller(node, repository, make_key(home / "stranger"), booted.stdout)
    node.stop()


def test_cloud_init_has_nothing_against_the_user_data(puller: Puller) -> None:
    said = puller.node.ssh("cloud-init schema --config-file /root/user-data 2>&1", check=False)
    assert (said.returncode, "Valid schema" in said.stdout) == (0, True), said.stdout


def test_the_first_boot_makes_the_node_ready(puller: Puller) -> None:
    assert puller.status["result"] == "converged", puller.first_boot
    assert puller.status["commit"] == puller.repository.git("rev-parse", "production^{commit}")
    assert "tier idmapped is proven" in puller.first_boot
    assert "this node is ready to join" in puller.first_boot
    assert puller.node.ssh("stat -c '%a %U' /etc/userns-node/pull.conf").stdout.strip() == "600 root"
    puller.node.ssh("/usr/local/libexec/userns-node/check")


def test_the_units_are_well_and_the_timer_runs(puller: Puller) -> None:
    units = "/etc/systemd/system/userns-node-pull.service /etc/systemd/system/userns-node-pull.timer"
    said = puller.node.ssh(f"systemd-analyze verify {units} 2>&1", check=False)
    assert (said.returncode, said.stdout) == (0, "")
    assert puller.node.ssh("systemctl is-enabled userns-node-pull.timer").stdout.strip() == "enabled"
    assert puller.node.ssh("systemctl is-active userns-node-pull.timer").stdout.strip() == "active"


def test_another_run_has_nothing_to_do_and_makes_no_second_environment(puller: Puller) -> None:
    assert puller.start().returncode == 0, puller.said()
    assert "nothing to do" in puller.said()
    assert "making the virtual environment" not in puller.said()
    assert puller.status["result"] == "converged"


def test_under_the_service_a_whole_change_and_its_proof_work(puller: Puller) -> None:
    node = puller.node
    node.ssh("rm /usr/local/sbin/runc && echo '# mine' >>/etc/containerd/config.toml")
    assert puller.start().returncode == 0, puller.said()
    assert "is proven" in puller.said()
    node.ssh("/usr/local/libexec/userns-node/check")
    modes = node.ssh("stat -c %a /etc/containerd /usr/local/sbin/runc").stdout.split()
    assert modes == ["755", "755"]


def test_a_run_that_is_killed_is_made_up_for_by_the_next(puller: Puller) -> None:
    node = puller.node
    node.ssh("rm /usr/local/sbin/runc")
    # [d]: else the pattern is found in the command line of the shell that looks for it.
    begun = f"""until grep -q '"result": "running"' {STATUS} && pgrep -f '[d]eploy.py'; do sleep 0.1; done"""
    node.ssh(f"systemctl start --no-block userns-node-pull && timeout 300 sh -c {quote(begun)} && sleep 1")
    node.ssh("systemctl kill --signal=KILL userns-node-pull")
    node.ssh("while systemctl is-active --quiet userns-node-pull; do sleep 0.1; done")
    assert puller.status["result"] == "running"
    assert puller.start().returncode == 0, puller.said()
    assert puller.status["result"] == "converged"
    node.ssh("/usr/local/libexec/userns-node/check")


def test_on_a_full_disk_no_older_answer_says_that_all_is_well(puller: Puller) -> None:
    node, state = puller.node, str(Path(STATUS).parent)
    node.ssh(f"cp {STATUS} /run/ && mount -t tmpfs -o size=1m tmpfs {state} && cp /run/status.json {state}")
    try:
        node.ssh(f"touch {state}/lock; head -c 2M /dev/zero >{state}/fill", check=False)
        assert puller.start().returncode == 1
        # By the name in the stream: the last lines of a run that is short may come without its id.
        said = node.ssh("journalctl --sync; journalctl --no-pager --output=cat --identifier=userns-node-pull").stdout
        assert "status.json could not be written, so it is removed: is the disk full?" in said
        # The new answer has the place of the old one.
        assert (puller.status["result"], puller.status["exit"]) == ("failed", 1)
        assert puller.status["message"] == f"{state} cannot be written to: nothing was changed"
        node.ssh("systemctl is-failed userns-node-pull.service")
    finally:
        node.ssh(f"umount {state}")
    assert puller.start().returncode == 0, puller.said()
    assert puller.status["result"] == "converged"


def test_a_program_that_cloud_init_did_not_install_is_named(puller: Puller) -> None:
    puller.node.ssh("mv /usr/bin/git /usr/bin/git.away")
    try:
        assert puller.start().returncode == 1
        assert (puller.status["exit"], puller.status["message"][:17]) == (5, "missing here: git")
        # Nor does systemd refuse runs that come one upon the other.
        again = f"{SERVICE}; systemctl show --property=Result --value {PULL}"
        assert {puller.node.ssh(again).stdout for _ in range(6)} == {"exit-code\n"}
    finally:
        puller.node.ssh("mv /usr/bin/git.away /usr/bin/git")


def test_a_strangers_commit_is_refused_and_the_node_runs_on(puller: Puller) -> None:
    node, repository = puller.node, puller.repository
    pid = node.ssh("systemctl show --property=MainPID --value containerd").stdout
    before = puller.status["converged"]
    (repository.home / "deploy.py").write_text('open("/root/owned", "w")\n')
    repository.git("commit", "--quiet", "--gpg-sign", "--all", "--message", "mine", key=puller.stranger)
    repository.tag(key=puller.stranger)
    puller.publish()
    assert puller.start().returncode == 1
    assert (puller.status["result"], puller.status["exit"]) == ("refused", 4)
    assert puller.status["converged"] == before
    assert node.ssh("systemctl is-failed userns-node-pull.service", check=False).stdout.strip() == "failed"
    assert not (node.root / "root/owned").exists()
    assert node.ssh("systemctl show --property=MainPID --value containerd").stdout == pid
