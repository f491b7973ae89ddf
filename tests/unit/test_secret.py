"""Secrets: the wrapper shows its value nowhere, and what is secret in an inventory is found however it is written."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyinfra.api import StringCommand
from pyinfra.connectors.util import make_unix_command

from userns.containerd.toml_text import inline
from userns.diff import Mask, unified
from userns.policy import PolicyError, load
from userns.releases import Lock
from userns.secret import SHOWN, Secret, forms, hide, texts, without

LOCK = Lock.parse((Path(__file__).parents[2] / "artifacts" / "lock.toml").read_text())
CANARY = "hunter2-of-the-robot"
PROXY = "pr0xy-pa55word"
IMAGES = "io.containerd.cri.v1.images"


OF_ROBOT = [f"robot:{CANARY}", CANARY, "//robot@"]


def registry(auth: object) -> dict[str, Any]:
    return {"plugins": {IMAGES: {"registry": {"configs": {"r.example": {"auth": auth}}}}}}


def refusal(**settings: Any) -> str:
    with pytest.raises(PolicyError) as refused:
        load(settings, LOCK)
    return str(refused.value)


# --- the wrapper -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "show", [str, repr, "{}".format, "{!r}".format, lambda it: f"{[it]} { ({1: it}) }", "%s".__mod__]
)
def test_a_secret_is_shown_by_nothing_that_makes_text_of_it(show: Any) -> None:
    assert CANARY not in show(Secret(CANARY))
    assert SHOWN in show(Secret(CANARY))


def test_json_has_it_not_by_itself_and_masked_the_way_pyinfra_does() -> None:
    with pytest.raises(TypeError, match="not JSON serializable"):
        json.dumps(Secret(CANARY))
    assert Secret(CANARY).to_json() == SHOWN


def test_it_can_be_copied_and_compared_as_pyinfra_does_with_data() -> None:
    assert copy.deepcopy(Secret(CANARY)) == Secret(CANARY) != Secret("other")
    assert len({Secret(CANARY), Secret(CANARY)}) == 1


@pytest.mark.parametrize("value", ["", None, 5, b"x", ["x"], Secret("x")])
def test_it_takes_a_text(value: Any) -> None:
    with pytest.raises(TypeError, match="a string that is not empty"):
        Secret(value)


# --- in settings -----------------------------------------------------------------------------------------------------


def test_the_settings_that_take_one_get_its_value() -> None:
    policy = load(
        {
            "release_proxy": Secret(f"http://robot:{CANARY}@proxy.example:3128/"),
            "release_url": Secret(f"https://robot:{CANARY}@mirror.example/gh/"),
            "containerd_config": {"x": Secret(CANARY), "list": [Secret("a"), {"b": Secret("c")}]},
        },
        LOCK,
    )
    assert policy.url(LOCK.asset("runc", "1.4.3", "amd64")).startswith(f"https://robot:{CANARY}@mirror.example/gh/")
    assert policy.release_proxy == f"http://robot:{CANARY}@proxy.example:3128"
    assert policy.containerd_config == {"x": CANARY, "list": ["a", {"b": "c"}]}


def test_a_policy_shows_none_of_them() -> None:
    config = {"env": [Secret("neutral-name-secret")], **registry({"username": "robot", "password": CANARY})}
    urls = {"release_url": Secret("https://m.example/s3cr3t-path"), "release_proxy": f"http://p:{PROXY}@p.example:3128"}
    policy = load({**urls, "containerd_config": config}, LOCK)
    shown = f"{policy!r} {policy} {json.dumps(policy.to_json())} {policy.safe_release_url}"
    for secret in (CANARY, "neutral-name-secret", "s3cr3t-path", PROXY):
        assert secret not in shown
    assert '"username": "robot"' in shown
    of_proxy = {PROXY, f"p:{PROXY}", "//p@"}
    assert set(policy.secrets) == {CANARY, "neutral-name-secret", "https://m.example/s3cr3t-path", *of_proxy}


@pytest.mark.parametrize("url", ["https://m.example/s3cr3t/", "https://robot:pw@m.example/s3cr3t"])
def test_a_wrapped_url_is_shown_nowhere_whatever_else_in_it_is_masked(url: str) -> None:
    policy = load({"release_url": Secret(url)}, LOCK)
    assert "s3cr3t" not in policy.safe_release_url
    assert "s3cr3t" not in hide(policy.url(LOCK.asset("runc", "1.4.3", "amd64")), policy.secrets)


@pytest.mark.parametrize(
    ("userinfo", "said", "shown"),
    [
        (f"{CANARY}:x-oauth-basic", f"{CANARY} is unknown", f"{SHOWN} is unknown"),
        (f"{CANARY}:", f"{CANARY} is unknown", f"{SHOWN} is unknown"),
        (f"{CANARY}:x", f"no proxy for https://{CANARY}@m", f"no proxy for https://{SHOWN}@m"),
        ("deploy:x", "deploy next to https://deploy:x@m", f"deploy next to https://{SHOWN}@m"),
        ("deploy:x", "deploy next to https://deploy@m", f"deploy next to https:{SHOWN}m"),
        ("u:x", "u next to https://u:x@m", f"u next to https://{SHOWN}m"),
        ("x", "x next to https://x@m", f"x next to https:{SHOWN}m"),
    ],
)
def test_what_a_url_holds_before_its_at_is_shown_nowhere_and_garbles_nothing_else(
    userinfo: str, said: str, shown: str
) -> None:
    policy = load({"release_url": f"https://{userinfo}@mirror.example/gh"}, LOCK)
    assert policy.safe_release_url == "https://***@mirror.example/gh"
    assert hide(said, policy.secrets) == shown


@pytest.mark.parametrize("setting", ["containerd_root", "sandbox_image", "snapshotter", "artifact_lock"])
def test_another_setting_takes_none(setting: str) -> None:
    said = refusal(**{setting: Secret(CANARY)})
    assert "only containerd_config, release_url and release_proxy take" in said
    assert CANARY not in said


def test_one_that_was_put_into_a_string_is_refused_and_not_sent_as_a_password() -> None:
    assert "wrap the whole URL" in refusal(release_url=f"https://robot:{Secret(CANARY)}@mirror.example")
    assert "x.y holds <secret>" in refusal(containerd_config={"x": {"y": f"Bearer {Secret(CANARY)}"}})


@pytest.mark.parametrize(
    "settings",
    [
        {"containerd_confg": registry({"password": CANARY})},
        {"containerd_config": registry({"password": CANARY}) | {"version": 3}},
        {"containerd_config": {"root": Secret(CANARY)} | registry({"password": None, "token": CANARY})},
        {"release_url": Secret(f"ftp://robot:{CANARY}@mirror.example")},
        {"release_url": f"ftp://robot:{CANARY}@mirror.example"},
        {"relase_url": Secret(CANARY)},
        {"allow": [Secret(CANARY)]},
        {"max_pods": Secret(CANARY)},
        {"kubelet_id_range": (Secret(CANARY), 1)},
    ],
    ids=str,
)
def test_no_refusal_shows_one(settings: dict[str, Any]) -> None:
    assert CANARY not in refusal(**settings)


# --- found in an inventory -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "found"),
    [
        ({"containerd_config": registry({"username": "robot", "password": CANARY})}, [CANARY]),
        ({"containerd_config": registry({"identitytoken": CANARY})}, [CANARY]),
        ({"containerd_config": registry({"auth": CANARY})}, [CANARY]),
        ({"containerd_config": registry({"username": "robot", "deep": [{"x": CANARY}]})}, [CANARY]),
        ({"containerd_config": {"a": {"headers": {"Authorization": [f"Basic {CANARY}"]}}}}, [f"Basic {CANARY}"]),
        ({"containerd_config": json.dumps(registry({"password": CANARY}))}, [CANARY]),
        ({"containerd_config": {"debug": {"level": "a-long-word"}}}, []),
        ({"containerd_config": {"proxy": f"http://robot:{CANARY}@proxy.example:3128"}}, OF_ROBOT),
        ({"containerd_config": "[" * 100_000}, []),
        ({"release_url": f"https://robot:{CANARY}@mirror.example"}, OF_ROBOT),
        ({"release_url": Secret(f"https://robot:{CANARY}@x")}, [f"https://robot:{CANARY}@x", *OF_ROBOT]),
        ({"release_url": f"https://{CANARY}:x-oauth-basic@m"}, [f"{CANARY}:x-oauth-basic", "x-oauth-basic", CANARY]),
        ({"release_url": f"https://{CANARY}:@m"}, [f"{CANARY}:", CANARY]),
        ({"release_url": "https://robot:x@mirror.example"}, ["robot:x", "//robot@"]),
        ({"release_url": "https://u:x@mirror.example"}, ["u:x@", "//u@"]),
        ({"release_url": "https://x@mirror.example"}, ["//x@"]),
        ({"release_url": "https://@mirror.example"}, []),
        ({"_env": {"http_proxy": f"{CANARY}:x@proxy.example:3128"}}, [f"{CANARY}:x", CANARY]),
        ({"release_url": f"https://{CANARY}@mirror.example"}, [CANARY]),
        ({"release_url": "https://mirror.example/a@b"}, []),
        ({"release_url": Secret("https://x")}, ["https://x"]),
        ({"ssh_password": CANARY, "_sudo_password": "sudo-word", "ssh_user": "robot"}, [CANARY, "sudo-word"]),
        ({"somebody_elses": {"x": [Secret(CANARY)], "password": "not-ours"}}, [CANARY]),
    ],
    ids=str,
)
def test_secrets_are_found_in_the_data_of_a_host(data: dict[str, Any], found: list[str]) -> None:
    assert list(texts(data)) == found


HARD = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=5, max_size=30).filter(
    lambda text: text not in SHOWN and "hidden" not in text
)


@given(secret=HARD)
def test_hiding_finds_a_secret_in_toml_in_json_and_as_it_is(secret: str) -> None:
    for text in (secret, inline(secret), json.dumps(secret), json.dumps(secret, ensure_ascii=False)):
        left = hide(f"before {text} behind", [secret])
        assert not any(form in left.replace(SHOWN, "") for form in forms(secret))


@given(secret=HARD)
def test_a_diff_masks_what_was_wrapped_under_whatever_name(secret: str) -> None:
    lines = unified("/f", None, f"plain = {inline(secret)}\n", [secret])
    assert lines[-1] == '+plain = "<secret 1>"'


def test_a_diff_tells_a_wrapped_secret_that_changed_from_one_that_did_not() -> None:
    old, new = 'a = "first-one"\nb = "same"\n', 'a = "second-one"\nb = "same"\nc = 1\n'
    changed = unified("/f", old, new, ["second-one"])
    assert '+a = "<secret 1>"' in changed
    assert ' b = "same"' in changed


def test_a_mask_without_known_secrets_is_as_before() -> None:
    assert Mask()("plain = 'first-one'\n") == "plain = 'first-one'\n"


def test_masked_values_keep_their_shape() -> None:
    value = {"auth": {"username": "robot", "n": 5, "deep": [{"x": "y"}]}, "z": ["has hunter2 in it", 1, True]}
    assert without(value, ["hunter2"]) == {
        "auth": {"username": "robot", "n": SHOWN, "deep": [{"x": SHOWN}]},
        "z": [f"has {SHOWN} in it", 1, True],
    }


def test_a_policy_without_secrets_has_none() -> None:
    assert load({}, LOCK).secrets == ()
    assert load(json.loads(json.dumps(load({}, LOCK).to_json())), LOCK) == load({}, LOCK)


@pytest.mark.parametrize("how", [{}, {"_sudo": True}, {"_su_user": "ops"}], ids=str)
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("API_TOKEN", "it's a s3cr3t"),
        ("PIN_TOKEN", 1234567),
        ("https_proxy", "http://ops:s3cr3t's@proxy.example:3128"),
        ("http_proxy", "ops:s3cr3t@proxy.example:3128"),
    ],
)
def test_what_stands_in_an_environment_is_hidden_in_the_commands_that_pyinfra_prints(
    name: str, value: object, how: dict[str, Any]
) -> None:
    printed = str(make_unix_command(StringCommand("true"), _env={name: value}, **how))
    shown = hide(printed, texts({"_env": {name: value, "LANG": "C.UTF-8"}}))
    assert not re.search("s3cr3t|1234567", shown)
    assert name in shown
