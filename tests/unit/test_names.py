"""Names in the data of a host: a slip of ours is refused, anybody else's is left alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from userns.names import distance, near_miss
from userns.policy import PolicyError, load
from userns.releases import Lock
from userns.settings import DEFAULTS, FLEETS, SETTINGS

ROOT = Path(__file__).parents[2]
LOCK = Lock.parse((ROOT / "artifacts" / "lock.toml").read_text())

SLIPS = {
    "slow_chown": ["slowchown", "Slow_Chown", "slow-chown", "slowChown", "slow_chonw", "slow_chowns", "SLOW_CHOWN"],
    "containerd_version": ["containerd_verison", "containerdversion", "container_version", "contianerd_version"],
    "kubelet_id_range": ["kubelet_idrange", "kubelet_id_ranges", "kubeletIdRange", "kubelet_id_rnage"],
    "kubernetes_version": ["kubernets_version", "kuberentes_version", "kubernetes-version"],
    "max_pods": ["max_pod", "maxpods", "maxPods", "max_posd", "max_podz"],
    "allow": ["allows", "alow", "Allow", "allwo"],
    "release_url": ["release_ulr", "relase_url", "releaseurl", "release_uri"],
    "artifact_lock": ["artefact_lock", "artifacts_lock", "artifact-lock"],
    "sandbox_image": ["sandbox_imgae", "sandboximage", "sandbox_images"],
    "verify_digests": ["verify_digest", "verifydigests"],
    "ids_per_pod": ["id_per_pod", "ids_per_pods", "idsPerPod"],
    "runc_version": ["rnuc_version", "runcversion"],
}
FLEETS_SLIPS = {
    "max_unavailable": ["max_unavailabel", "maxUnavailable", "max_unavailble"],
    "kubernetes_node": ["kubernets_node", "kubernetes-node", "kuberentes_node"],
    "fleet_region": ["fleet_regoin", "fleetregion", "fleet_regions"],
}

OTHERS = """
ssh_hostname ssh_port ssh_user ssh_password ssh_key ssh_key_password ssh_allow_agent ssh_look_for_keys
ssh_forward_agent ssh_config_file ssh_known_hosts_file ssh_strict_host_key_checking ssh_paramiko_connect_kwargs
ssh_connect_retries ssh_connect_retry_min_delay ssh_connect_retry_max_delay ssh_file_transfer_protocol
docker_architecture docker_identifier docker_platform chroot_directory fake_delay fake_delay_jitter fake_responses
local_only vagrant_box _sudo _sudo_user _env _shell_executable _timeout _retries _allow _slow_chown
kubernetes_cluster_name kubernetes_token containerd_registry_mirrors containerd_port sandbox max_pods_per_zone
max_pids max_pads max_jobs min_pods allowed allowlist alloy kernel target version snapshots snapshot_dir registry
cron_version docker_root kubelet_version kubelet_config ips_per_pod release release_name install image pods root url
kernel_version runtime environment role zone hostname name
kubernetes_mode kubernetes_role fleet fleet_name region max_available_nodes unavailable node
"""


@pytest.mark.parametrize(("meant", "name"), [(meant, name) for meant, names in SLIPS.items() for name in names])
def test_a_slip_of_a_settings_name_is_refused_with_the_right_one(meant: str, name: str) -> None:
    with pytest.raises(PolicyError) as refused:
        load({name: DEFAULTS[meant]}, LOCK)
    (problem,) = refused.value.problems
    assert problem.setting == name
    assert f"Write {meant}," in problem.message


@pytest.mark.parametrize(("meant", "name"), [(meant, name) for meant, names in FLEETS_SLIPS.items() for name in names])
def test_a_slip_of_what_the_fleet_reads_is_refused_too(meant: str, name: str) -> None:
    with pytest.raises(PolicyError) as refused:
        load({name: "2"}, LOCK)
    assert f"{name} = '2': there is no such setting. Write {meant}," in str(refused.value)


def test_what_the_fleet_reads_is_known_by_its_own_names() -> None:
    # In a process of its own: fleet.runner imports pyinfra, which replaces parts of the standard library.
    code = "from fleet import runner, waves; print(waves.MAX_UNAVAILABLE, runner.KUBERNETES_NODE, runner.REGION)"
    asked = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert set(FLEETS) == set(asked.stdout.split())
    assert load(dict.fromkeys(FLEETS, "1"), LOCK).to_json() == load({}, LOCK).to_json()


@pytest.mark.parametrize("name", OTHERS.split())
def test_a_name_of_pyinfra_or_of_another_deploy_is_left_alone(name: str) -> None:
    assert load({name: "anything"}, LOCK).to_json() == load({}, LOCK).to_json()


@given(st.sampled_from(list(SETTINGS)), st.data())
def test_two_neighbouring_letters_swapped_is_a_slip_everywhere(setting: str, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(setting) - 2).filter(lambda i: setting[i].isalnum() and setting[i + 1].isalnum()))
    swapped = setting[:at] + setting[at + 1] + setting[at] + setting[at + 2 :]
    assert swapped == setting or near_miss(swapped, tuple(SETTINGS)) == setting


@given(st.sampled_from(list(SETTINGS)), st.sampled_from(["-", "", ".", " ", "__"]), st.booleans())
def test_case_and_separators_do_not_make_another_name(setting: str, separator: str, upper: bool) -> None:
    written = setting.replace("_", separator)
    written = written.upper() if upper else written
    assert written == setting or near_miss(written, tuple(SETTINGS)) == setting


def test_no_setting_is_a_slip_of_another() -> None:
    for name in (*SETTINGS, *FLEETS):
        assert near_miss(name, tuple(other for other in (*SETTINGS, *FLEETS) if other != name)) in {
            None,
            "runc_version",
            "crun_version",
        }


@given(st.text(max_size=12), st.text(max_size=12))
def test_the_distance_is_one_of_a_metric(a: str, b: str) -> None:
    assert distance(a, b) == distance(b, a)
    assert (distance(a, b) == 0) == (a == b)
    assert abs(len(a) - len(b)) <= distance(a, b) <= max(len(a), len(b))
