"""The settings: what is taken, what is refused, and in which words."""

from __future__ import annotations

import json
import runpy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from userns.policy import Policy, PolicyError, Problem, artifact_lock_path, load
from userns.releases import Lock
from userns.settings import DEFAULTS, NEWEST_KUBERNETES, SETTINGS

ROOT = Path(__file__).parents[2]
LOCK = Lock.parse((ROOT / "artifacts" / "lock.toml").read_text())


def policy(**settings: Any) -> Policy:
    return load(settings, LOCK)


def refusals(data: Mapping[str, object], lock: Lock | str = LOCK, **kwargs: Any) -> list[Problem]:
    with pytest.raises(PolicyError) as refused:
        load(data, lock, **kwargs)
    return list(refused.value.problems)


def refusal(**settings: Any) -> str:
    """The one message for the one setting that is wrong, as it is printed."""
    (problem,) = refusals(settings)
    assert problem.setting in settings
    assert str(problem).startswith(problem.setting)
    return str(problem)


# --- Defaults and the inventories ------------------------------------------------------------------------------------


def test_a_node_without_any_setting_gets_a_policy() -> None:
    default = policy()
    assert default.kubernetes_version == NEWEST_KUBERNETES
    assert default.versions == {"containerd": "2.3.4", "runc": "1.4.3"}
    assert default.config_version == 3
    assert default.lock is LOCK
    assert (default.allow, default.containerd_config, default.overlay_metacopy) == ((), {}, True)


def test_the_policy_has_exactly_the_settings() -> None:
    assert list(Policy.model_fields) == [*SETTINGS, "lock", "bundle", "secrets"]


def test_all_py_assigns_every_default_and_nothing_else() -> None:
    names = runpy.run_path(str(ROOT / "inventories" / "group_data" / "all.py"))
    data = {name: value for name, value in names.items() if not name.startswith("__")}
    assert json.dumps(data, sort_keys=True) == json.dumps(dict(DEFAULTS), sort_keys=True)
    assert load(data, LOCK) == policy()


def test_all_py_gives_each_setting_its_reason_in_a_comment() -> None:
    blocks = (ROOT / "inventories" / "group_data" / "all.py").read_text().split('"""')[2].split("\n\n")
    for block in (block for block in blocks if " = " in block):
        assert block.strip().startswith("# "), block


def test_every_host_of_the_example_inventory_has_a_valid_policy() -> None:
    inventory = runpy.run_path(str(ROOT / "inventories" / "example.py"))
    policies = {}
    for hosts, group_data in (inventory["cluster_a"], inventory["cluster_b"]):
        for host in hosts:
            name, host_data = host if isinstance(host, tuple) else (host, {})
            policies[name] = load({**DEFAULTS, **group_data, **host_data}, LOCK)
    assert len(policies) == 6
    assert all(name.endswith(".example.internal") for name in policies)


def test_the_local_inventory_is_this_machine() -> None:
    assert runpy.run_path(str(ROOT / "inventories" / "local.py"))["local"] == ["@local"]


# --- Values, one by one ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "given", "taken"),
    [
        ("kubernetes_version", "1.33.4", "1.33.4"),
        ("kubernetes_version", "v1.30", "1.30"),
        ("kubernetes_version", "1.25", "1.25"),
        ("kubernetes_version", 1.33, "1.33"),  # --data kubernetes_version=1.33
        ("kubernetes_version", "1.36.0-rc.1", "1.36.0-rc.1"),
        ("kubernetes_version", "1.37", "1.37"),  # newer than the tables: a warning of the plan's
        ("kubernetes_version", "v1.40.2", "1.40.2"),
        ("containerd_version", "v2.2.7", "2.2.7"),
        ("crun_version", 1.17, "1.17"),
        ("allow", "kernel-lacks-tmpfs-idmap", ("kernel-lacks-tmpfs-idmap",)),
        ("allow", '["a-b", "c"]', ("a-b", "c")),
        ("allow", ["c", "a-b", "c"], ("c", "a-b")),
        ("kubelet_id_range", [65536, 7208960], (65536, 7208960)),
        ("kubelet_id_range", "[65536, 7208960]", (65536, 7208960)),
        ("containerd_config", '{"debug": {"level": "debug"}}', {"debug": {"level": "debug"}}),
        ("slow_chown", False, False),
        ("overlay_metacopy", "auto", "auto"),
        ("release_url", "http://mirror.example.internal:8080/gh/", "http://mirror.example.internal:8080/gh"),
        ("release_proxy", "http://proxy.example.internal:3128/", "http://proxy.example.internal:3128"),
        ("release_proxy", None, None),
        ("containerd_root", "/data/container images", "/data/container images"),
        ("kubelet_root", "/data/it's $HOME", "/data/it's $HOME"),
        ("sandbox_image", "registry.k8s.io/pause:3.10", "registry.k8s.io/pause:3.10"),
        ("sandbox_image", "localhost:5000/pause@sha256:" + "0" * 64, "localhost:5000/pause@sha256:" + "0" * 64),
        ("snapshotter", "fuse-overlayfs", "fuse-overlayfs"),
        ("ids_per_pod", 131072, 131072),
        ("target_kernel", "v6.12", "6.12"),
        ("target_kernel", 6.12, "6.12"),
        ("target_kernel", "6.12.48+deb13-amd64", "6.12.48+deb13-amd64"),
    ],
)
def test_what_is_unambiguous_is_taken(setting: str, given: object, taken: object) -> None:
    assert getattr(policy(**{setting: given}), setting) == taken


@pytest.mark.parametrize(
    ("setting", "value", "says"),
    [
        ("kubernetes_version", 1.3, "write it as a string"),
        ("kubernetes_version", 1, "write it as a string"),
        ("kubernetes_version", "1.24", "begin with Kubernetes 1.25"),
        ("kubernetes_version", "2.3.4", "there is no Kubernetes 2.3.4"),
        ("kubernetes_version", "0.30", "there is no Kubernetes 0.30"),
        ("kubernetes_version", "latest", "it is not a Kubernetes version"),
        ("kubernetes_version", "1.33.x", "it is not a Kubernetes version"),
        ("kubernetes_version", None, "it is None and not a string"),
        ("containerd_version", "2.3.99", "python -m artifacts add containerd 2.3.99"),
        ("containerd_version", "2.1.9~ds1-1", "the release that it was built from is 2.1.9"),
        ("containerd_version", "2.3", "it is not exact: write 3 numbers"),
        ("containerd_version", "newest", "not the version of an upstream release"),
        ("runc_version", "1.5.3", "python -m artifacts add runc 1.5.3"),
        ("crun_version", "1.31", "python -m artifacts add crun 1.31"),
        ("crun_version", 1.3, "write it as a string"),
        ("crun_version", False, "it is a bool and not a string"),
        ("default_runtime", "kata", 'Allowed: "runc" or "crun"'),
        ("install_from", "releases", 'Allowed: "release", "package" or "bundle"'),
        ("artifact_bundle", 5, "it is an int and not a string"),
        ("target_kernel", "newest", "it is no kernel version"),
        ("target_kernel", 6.1, "write it as a string"),
        ("release_url", "ftp://mirror", "it is not an http or https URL"),
        ("release_url", "github.com", "it is not an http or https URL"),
        ("release_url", "https://", "it is not an http or https URL"),
        ("release_url", "https://m:port/", "it is not a URL"),
        ("release_url", "https://m/\n", "control character"),
        ("release_url", "https://m/?a=b", "no query"),
        ("release_proxy", "proxy.example.internal:3128", "it is not an http or https URL"),
        ("release_proxy", "socks5://proxy.example.internal", "it is not an http or https URL"),
        ("release_proxy", "https://proxy.example.internal:3128", "it is no HTTP proxy"),
        ("release_proxy", "http://proxy.example.internal/gh", "has no path"),
        ("release_proxy", "None", "it is text and not None"),
        ("artifact_lock", "", "it is empty"),
        ("snapshotter", "over layfs", "not the id of a snapshotter"),
        ("slow_chown", "yes", 'Allowed: "auto", True or False'),
        ("slow_chown", "True", "write it without quotes"),
        ("slow_chown", 1, 'Allowed: "auto", True or False'),
        ("overlay_metacopy", None, 'Allowed: True, "auto" or False'),
        ("verify_digests", "false", "write it without quotes"),
        ("verify_digests", 0, "it is an int and not a bool"),
        ("cgroup_driver", "cgroup", 'Allowed: "systemd" or "cgroupfs"'),
        ("sandbox_image", "registry.k8s.io/pause:", "not an image reference"),
        ("sandbox_image", "pause 3.10", "not an image reference"),
        ("containerd_root", "var/lib/containerd", "begin with /"),
        ("containerd_root", "/var/lib/../lib/containerd", "write /var/lib/containerd"),
        ("containerd_root", "//var/lib/containerd/", "write /var/lib/containerd"),
        ("containerd_root", "/var/lib/a\nb", "control character"),
        ("containerd_root", "/", "name a directory below"),
        ("containerd_root", "/data/a:b", "a colon, a comma or a backslash"),
        ("kubelet_root", "/data/\x7f", "control character"),
        ("kubelet_root", ["/data"], "it is a list and not a string"),
        ("kubelet_root", "/var/lib/containerd", "the same directory"),
        ("max_pods", "abc", "it is a string and not an int"),
        ("max_pods", "110", "write it without quotes"),
        ("max_pods", True, "it is a bool and not an int"),
        ("max_pods", 0, "it must be 1 to 65535"),
        ("max_pods", 65535, "have room for 65534 pods"),
        ("ids_per_pod", 65537, "not a multiple of 65536: try 65536 or 131072"),
        ("ids_per_pod", 0, "it must be 65536 to"),
        ("kubelet_id_range", 65536, "not a pair of start and count"),
        ("kubelet_id_range", [65536], "not a pair of start and count"),
        ("kubelet_id_range", ["65536", "7208960"], "write it without quotes"),
        ("kubelet_id_range", "65536:7208960", "not a pair of start and count"),
        (
            "kubelet_id_range",
            (100000, 7208960),
            "must be a multiple of ids_per_pod (65536) and not below it: try 131072",
        ),
        ("kubelet_id_range", (0, 7208960), "try 65536"),
        ("kubelet_id_range", (-65536, 7208960), "user IDs are 0 to 4294967295"),
        ("kubelet_id_range", (65536, 7208961), "must be a multiple of ids_per_pod (65536): try 7274496"),
        ("kubelet_id_range", (65536, 65536), "has room for 1 pods and max_pods is 110: it takes 7208960"),
        ("kubelet_id_range", (65536, 65535 * 65536), "must end below 4294967295"),
        ("crun_version", "none", "write None without quotes in an inventory, null behind --data"),
        ("artifact_bundle", "null", "write None without quotes in an inventory, null behind --data"),
        ("allow", "Not An Id", "'Not An Id' is not the id of a finding"),
        ("allow", [5], "5 is not the id of a finding"),
        ("allow", 5, "it is an int and not a list"),
        ("containerd_config", "[debug]", "it is a string and not a mapping"),
        ("containerd_config", {"debug": None}, "debug is None, which TOML cannot express"),
        ("containerd_config", {"a": {"b": [1, {2: 3}]}}, "a.b[1] has the key 2: keys must be strings"),
        ("containerd_config", {"a\n": 1}, "keys must be printable"),
        ("containerd_config", {"a": "\0"}, "TOML cannot express"),
        ("containerd_config", {"a": "\ud800"}, "TOML cannot express"),
        ("containerd_config", {"a": 2**63}, "beyond 64 bits"),
        ("containerd_config", {"a": float("nan")}, "not a finite number"),
        ("containerd_config", {"a": {1, 2}}, "a is of type set"),
    ],
)
def test_the_rest_is_refused_by_name_with_what_is_allowed(setting: str, value: object, says: str) -> None:
    assert says in refusal(**{setting: value})


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("cgroup_driver", "none"),
        ("cgroup_driver", "true"),
        ("install_from", "5"),
        ("verify_digests", "None"),
        ("verify_digests", "1"),
        ("max_pods", "none"),
        ("max_pods", "true"),
        ("kubelet_id_range", "65536"),
        ("containerd_config", "none"),
    ],
)
def test_quotes_are_not_blamed_where_it_would_be_wrong_without_them_too(setting: str, value: str) -> None:
    said = refusal(**{setting: value})
    assert "Allowed: " in said
    assert "quotes" not in said


def test_none_as_text_is_refused_with_what_works() -> None:
    for setting in (name for name, default in DEFAULTS.items() if default is None):
        assert "null behind --data" in refusal(**{setting: "None"})
        assert policy(**{setting: None}) == policy()


# --- Between settings ------------------------------------------------------------------------------------------------


def test_every_problem_is_named_at_once() -> None:
    wrong = {"max_pods": True, "slowchown": True, "allow": 5, "default_runtime": "crun", "kubernetes_version": 1.3}
    assert {problem.setting for problem in refusals(wrong)} == set(wrong)
    with pytest.raises(PolicyError, match="5 settings are refused:") as refused:
        load(wrong, LOCK)
    assert all(f"  {name} = " in str(refused.value) for name in wrong)


def test_crun_as_the_default_asks_for_crun() -> None:
    assert "set crun_version too" in refusal(default_runtime="crun")
    chosen = policy(default_runtime="crun", crun_version="1.17")
    assert chosen.versions == {"containerd": "2.3.4", "runc": "1.4.3", "crun": "1.17"}


def test_a_package_needs_no_digest() -> None:
    named = {"containerd_version": "2.1.99", "runc_version": "1.3.99"}
    assert policy(install_from="package", **named).versions == {"containerd": "2.1.99", "runc": "1.3.99"}


def test_a_package_has_no_default_version() -> None:
    """The newest one of the lock file is upstream's, and no distribution has it."""
    told = [str(each) for each in refusals({"install_from": "package", "runc_version": "1.3.6"})]
    assert len(told) == 1
    assert told[0].startswith('containerd_version = None: install_from = "package" takes an exact version')


def test_the_newest_version_without_a_blocking_advisory_is_chosen() -> None:
    bad = {"2.3.4", "2.3.3", "1.4.3"}
    chosen = load({}, LOCK, blocking_advisories=lambda _component, version: ["a finding"] * (version in bad))
    assert (chosen.containerd_version, chosen.runc_version) == ("2.3.2", "1.4.2")
    named = load({"containerd_version": "2.3.4"}, LOCK, blocking_advisories=lambda _c, version: bad & {version})
    assert named.containerd_version == "2.3.4"


def test_where_every_version_has_an_advisory_the_newest_is_left_to_the_plan_to_judge() -> None:
    assert load({}, LOCK, blocking_advisories=lambda _c, _v: ["a finding"]).runc_version == "1.4.3"


def test_a_release_candidate_is_never_chosen_by_itself() -> None:
    text = (ROOT / "artifacts" / "lock.toml").read_text() + f'[runc.sha256."1.5.0-rc.1"]\namd64 = "{"a" * 64}"\n'
    assert load({}, text).runc_version == "1.4.3"
    assert load({"runc_version": "1.5.0-rc.1"}, text).runc_version == "1.5.0-rc.1"


def test_a_bad_lock_is_a_problem_beside_the_others() -> None:
    problems = refusals({"max_pods": True, "artifact_lock": "mine.toml"}, "[podman]")
    assert [str(problem).split(":")[0] for problem in problems] == ["artifact_lock = 'mine.toml'", "max_pods = True"]
    assert "unknown component" in problems[0].message


def test_a_lock_without_runc_asks_for_one() -> None:
    assert {problem.setting for problem in refusals({}, "")} == {"containerd_version", "runc_version"}


def test_the_lock_file_is_named_before_it_is_read() -> None:
    assert artifact_lock_path({}) == "artifacts/lock.toml"
    assert artifact_lock_path({"artifact_lock": "/srv/lock.toml"}) == "/srv/lock.toml"
    with pytest.raises(PolicyError, match="artifact_lock = 5"):
        artifact_lock_path({"artifact_lock": 5})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("containerd_confg", {"plugins": {"x.y": {"auth": {"password": "hunter2"}}}}),
        ("containerd_confg", '{"plugins": {"x.y": {"auth": {"password": "hunter2"}}}}'),
        ("containerd_confg", ["hunter2"]),
        ("containerd_config", '{"plugins": "hunter2"'),
        ("relase_url", "u:hunter2@mirror.example"),
        ("sandbox_image", {"password": "hunter2"}),
    ],
)
def test_no_secret_is_printed_of_what_stands_under_another_name(name: str, value: object) -> None:
    (problem,) = refusals({name: value})
    assert "hunter2" not in str(problem)
    assert str(problem).startswith(name)


def test_an_unknown_finding_in_allow_is_refused_with_the_nearest_one() -> None:
    known = {"kernel-lacks-tmpfs-idmap", "kernel-shared"}
    (problem,) = refusals({"allow": ["kernel-lacks-tmpfs-idmaps"]}, known_findings=known)
    assert "did you mean 'kernel-lacks-tmpfs-idmap'?" in problem.message
    assert load({"allow": ["kernel-shared"]}, LOCK, known_findings=known).allow == ("kernel-shared",)


# --- Output ----------------------------------------------------------------------------------------------------------


def test_a_mirrors_password_is_in_no_text_that_people_see() -> None:
    safe = policy(release_url="https://user:hunter2@mirror.example.internal/gh")
    assert safe.url(LOCK.asset("crun", "1.17", "amd64")).startswith("https://user:hunter2@mirror.example.internal/gh/")
    assert safe.safe_release_url == "https://***@mirror.example.internal/gh"
    assert "hunter2" not in repr(safe) + str(safe) + json.dumps(safe.to_json())


@pytest.mark.parametrize(
    "url",
    ["ftp://u:hunter2@m/", "u:hunter2@m", "https://u:hunt/hunter2@m", "https://u@h:hunter2@", "https://m/?k=hunter2"],
)
@pytest.mark.parametrize("name", ["release_url", "relase_url", "release_proxy", "relase_proxy"])
def test_a_refused_url_does_not_show_its_password(url: str, name: str) -> None:
    if name.startswith("release_") or "://" in url:
        assert "hunter2" not in "\n".join(str(problem) for problem in refusals({name: url}))


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"crun_version": "1.17", "kubelet_id_range": (65536, 7208960), "allow": ["a"], "containerd_config": {"a": [1]}},
    ],
)
def test_a_policy_survives_json(settings: dict[str, Any]) -> None:
    assert load(json.loads(json.dumps(policy(**settings).to_json())), LOCK) == policy(**settings)


def test_a_policy_cannot_be_changed_and_does_not_share_the_data() -> None:
    data: dict[str, Any] = {"containerd_config": {"debug": {"level": "info"}}}
    frozen = load(data, LOCK)
    data["containerd_config"]["debug"]["level"] = "trace"
    assert frozen.containerd_config == {"debug": {"level": "info"}}
    with pytest.raises(ValueError, match="frozen"):
        frozen.max_pods = 5


# --- Whatever comes --------------------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(list(SETTINGS)) | st.text(), JSON, max_size=6))
def test_any_data_is_a_policy_or_a_policy_error(data: dict[str, object]) -> None:
    try:
        taken = load(data, LOCK)
    except PolicyError as error:
        said = str(error)
    else:
        said = "taken"
        assert load(taken.to_json(), LOCK) == taken
    assert said


HARDLY_PRINTABLE = [10**5000, [10**5000, 1], {"a": 10**5000}, ["a", {}], "\ud800", object(), b"x"]


@pytest.mark.parametrize("setting", list(SETTINGS))
def test_what_can_hardly_be_printed_is_refused_too(setting: str) -> None:
    for value in HARDLY_PRINTABLE:
        assert str(PolicyError(refusals({setting: value})))
