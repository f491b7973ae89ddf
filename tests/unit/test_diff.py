"""Diffs show every change and no secret."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import nodes
from userns.changes import WriteFile
from userns.containerd import toml_text
from userns.diff import Mask, unified

SECRET = "hunter2-and-more"
SPLIT = "two\nlines-of-it"


@pytest.mark.parametrize(
    "text",
    [
        "Environment=HTTPS_PROXY=robot:hunter2@proxy:3128",
        'encryption_key = "hunter2"',
        f'password = "{SECRET}"',
        f"password = '{SECRET}'",
        f'registry_token="{SECRET}"',
        f'[x.auth]\nusername = "{SECRET}"',
        f'x = {{ username = "u", "password" = "{SECRET}" }}',
        f'Authorization = ["Basic {SECRET}"]',
        f'"api-key" = """\n{SECRET}\n"""',
        f"secret = '''{SECRET}'''",
        f'server = "https://user:{SECRET}@mirror.example"',
        f'server = "https://user:p@{SECRET}@mirror.example"',
        f'server = "https://user:p/{SECRET}@mirror.example"',
        f'server = "https://mirror.example/v2?sig={SECRET}"',
        f'not toml at all\npassword = "{SECRET}"',
        # names that have to be understood
        f'"pass\\u0077ord" = "{SECRET}"',
        f'a."x-api-key"."b c" = "{SECRET}"',
        f'[registry.configs."r.example".auth]\na = {{ b = [[{{ c = "{SECRET}" }}]] }}',
        f'secrets = [{{ a = "b" }}, "{SECRET}"]',
        f'[[header]]\nx = "{SECRET}"',
        f'[host."https://r.example".header]\nx-anything = "{SECRET}"',
        # values of any type, and as they are escaped
        "[auth]\npin = 777000777",
        '[auth]\nuser = "hunter\\u0032-and-more"',
        f'token = "{SECRET}" # and a comment',
        f'cookies = ["]{SECRET}", "[",\n "{SECRET}"]',
        # comments, arguments, other grammars
        f'# password = "{SECRET}"',
        f"a = 1 # the old password was {SECRET}",
        f'args = ["--auth-token={SECRET}"]',
        f'args = ["--auth-token", "{SECRET}"]',
        f'args = [\n  "--auth-token",\n  "{SECRET}",\n]',
        f"[Service]\nEnvironment=A=1 REGISTRY_PASSWORD={SECRET}",
        f"[Service]\nExecStart=/x --token {SECRET} \\\n  {SECRET}",
        f"[Service]\nEnvironment=HTTPS_PROXY=http://u:{SECRET}@proxy.example:3128",
        f'curl -H "Authorization: Bearer {SECRET}" https://x.example',
        f"broken = \n[auth]\nuser = {SECRET}\n\n{SECRET}",
        # cut off in the midst of a secret
        f'broken =\npassword = """\nfirst\n{SECRET}',
        f'broken =\npassword = [\n"first",\n"{SECRET}"',
        f'key = """-----BEGIN EC PRIVATE KEY-----\n{SECRET}\n-----END EC PRIVATE KEY-----"""',
        f"-----BEGIN PRIVATE KEY-----\n{SECRET}\n{SECRET}",
        # told twice
        f'# {SECRET}\npassword = "{SECRET}"\nother = "{SECRET}"',
    ],
)
def test_a_secret_is_masked_however_it_is_written(text: str) -> None:
    masked = Mask()(text)
    for secret in (SECRET, "777000777", "hunter"):
        assert secret not in masked


def test_a_changed_secret_shows_as_a_change_and_an_equal_one_does_not() -> None:
    changed = unified("/f", 'password = "one-secret"\n', 'password = "two-secret"\n')
    assert changed[-2:] == ['-password = "<secret 1>"', '+password = "<secret 2>"']
    assert unified("/f", 'password = "one-secret"\n', 'password = "one-secret"\n') == []


def test_the_same_secret_has_the_same_mark_in_both_texts() -> None:
    changed = unified("/f", 'password = "one-secret"\n', 'a = 1\npassword = "one-secret"\n')
    assert changed[-2:] == ["+a = 1", ' password = "<secret 1>"']


def test_a_diff_of_a_new_file_starts_from_dev_null() -> None:
    assert unified("/etc/x", None, "a\n") == ["--- /dev/null", "+++ /etc/x", "@@ -0,0 +1 @@", "+a"]


def test_a_diff_of_a_removed_file_ends_in_dev_null() -> None:
    assert unified("/etc/x", "a\n", None)[:2] == ["--- /etc/x", "+++ /dev/null"]


def test_a_missing_newline_at_the_end_shows() -> None:
    assert unified("/f", "a", "a\n")[3:] == ["-a", "\\ No newline at end of file", "+a"]


def test_a_change_that_the_mask_hides_is_told_of() -> None:
    assert unified("/f", "password = 'a secret'\n", 'password = """a secret"""\n')[-1].startswith("(they differ only")


def test_what_is_on_a_node_cannot_play_with_the_terminal() -> None:
    lines = unified("/f", "a\x1b[2J\x07\r\u202eb\tc\n", "x\n")
    assert "-a\\x1b[2J\\x07\\r\\u202eb\tc" in lines


def test_what_is_no_secret_is_shown_as_it_is() -> None:
    text = 'version = 3\nroot = "/var/lib/containerd"\nSystemdCgroup = true # a comment\n\n[a."b c"]\nd = [1, 2]\n'
    assert Mask()(text) == text


@pytest.mark.parametrize("containerd", ["2.3.4", "1.7.34"])
def test_nothing_that_we_write_ourselves_is_masked(containerd: str) -> None:
    kubernetes = "1.26" if containerd.startswith("1.") else "1.36"
    node = nodes.bare(sysctls={"user.max_user_namespaces": 1})
    settings: dict[str, Any] = {"kubelet_id_range": (65536, 65536 * 110), "sandbox_image": "r.example/pause:3.10"}
    plan = nodes.plan(node, containerd_version=containerd, kubernetes_version=kubernetes, **settings)
    written = [change for change in plan.changes if isinstance(change, WriteFile)]
    assert len(written) == 10
    for change in written:
        assert Mask()(change.content) == change.content


@given(st.text())
def test_any_text_can_be_masked(text: str) -> None:
    assert isinstance(Mask()(text), str)


@given(
    st.from_regex(r"[A-Za-z0-9 ]{6,30}", fullmatch=True), st.sampled_from(["password", "auth_token", "client-secret"])
)
def test_no_value_of_a_secret_key_survives(value: str, key: str) -> None:
    secret = f"S{value}E"
    assert secret not in Mask()(f'[a]\n{key} = "{secret}"\nother = "x"\n')


KEYS = st.sampled_from(["a", "b c", "é", "plugins", "x.y", "root"])
NAMES = st.sampled_from(["password", "Auth", "my token", "x-api-key", "identitytoken"])
PLAIN = st.one_of(st.integers(-9, 9), st.booleans(), st.text("ab\\\"'\n#[]{}= ", max_size=6))
AROUND = st.text("ab\\\"'\n#[]{}= ", max_size=5)
HIDDEN = st.builds("{}QQSECRETQQ{}".format, AROUND, AROUND) | st.builds("{}QQHIDDENQQ{}".format, AROUND, AROUND)
SECRETS = st.recursive(
    HIDDEN, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(KEYS, inner, max_size=2), max_leaves=4
)
TABLES = st.recursive(
    st.dictionaries(KEYS, PLAIN, max_size=3) | st.dictionaries(NAMES, SECRETS, max_size=2),
    lambda inner: st.dictionaries(KEYS, inner | st.lists(inner, min_size=1, max_size=2), max_size=3),
    max_leaves=6,
)


@given(TABLES)
def test_no_secret_in_any_toml_document_survives_however_it_is_nested(table: dict[str, Any]) -> None:
    text = toml_text.assignments(table) + toml_text.tables(table)
    assert tomllib.loads(text) == table
    masked = Mask()(text)
    assert "QQSECRETQQ" not in masked
    assert "QQHIDDENQQ" not in masked


@given(TABLES, st.integers(0, 400))
def test_nor_does_one_in_a_document_that_was_cut_off(table: dict[str, Any], end: int) -> None:
    text = (toml_text.assignments(table) + toml_text.tables(table))[:end]
    masked = Mask()(text)
    assert "QQSECRETQQ" not in masked
    assert "QQHIDDENQQ" not in masked


def test_words_for_people_keep_what_is_a_name_in_a_file() -> None:
    """Of "Authentication failed" a file's mask leaves the first word."""
    mask = Mask([SECRET])
    key = "-----BEGIN RSA PRIVATE KEY-----\nabc\n-----END RSA PRIVATE KEY-----"
    assert mask.in_sentence("Authentication error (key=/root/k) (Authentication failed.)").endswith(" failed.)")
    assert mask.in_sentence(f"Private key file is no key:\n{key}") == "Private key file is no key:\n<secret 1>"
    assert mask.in_sentence(f"tried {SECRET} at ssh://ops:hunter2@n1") == "tried <secret 2> at ssh://<secret 3>@n1"
