"""The lock file: what it says, what it refuses, and the asset of each architecture."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from userns.releases import (
    ARCHITECTURES,
    COMPONENTS,
    Lock,
    LockError,
    NoDigest,
    is_asset_path,
    is_sha256,
    newest_first,
)

TEXT = (Path(__file__).parents[2] / "artifacts" / "lock.toml").read_text()
LOCK = Lock.parse(TEXT)

ROW = 'amd64 = "' + "a" * 64 + '"'
HEAD = 'path = "/crun/releases/download/{version}/crun-{version}-linux-{arch}"\nsource = "a release page"'


def lock(text: str) -> Lock:
    return Lock.parse(text)


@pytest.mark.parametrize(
    ("component", "version", "machine", "path", "sha256"),
    [
        (
            "containerd",
            "2.3.4",
            "x86_64",
            "/containerd/containerd/releases/download/v2.3.4/containerd-2.3.4-linux-amd64.tar.gz",
            "9d68969855fbf676cdb8ed758e420fb048d61f984f61de3e53eddfebe484d168",
        ),
        (
            "containerd",
            "2.3.4",
            "aarch64",
            "/containerd/containerd/releases/download/v2.3.4/containerd-2.3.4-linux-arm64.tar.gz",
            "a985fbb7e18fc0362d31a055338f5d7b0e087a3e27f14c70d1c5965399a29f95",
        ),
        (
            "containerd",
            "1.7.34",
            "ppc64le",
            "/containerd/containerd/releases/download/v1.7.34/containerd-1.7.34-linux-ppc64le.tar.gz",
            "8e3c2d6d55c01aa01e4e661bbbe36be1574db6ee0b9a1cac89de879e92421cd9",
        ),
        (
            "runc",
            "1.4.3",
            "x86_64",
            "/opencontainers/runc/releases/download/v1.4.3/runc.amd64",
            "f6ae8efc0fa40079e1475e97cbe9d1bd3f106a28d6af78a11d9f1bd565515e60",
        ),
        (
            "runc",
            "1.4.3",
            "ppc64le",
            "/opencontainers/runc/releases/download/v1.4.3/runc.ppc64le",
            "9a10f813733a5bdf740e9513a210d817bec08cab6939913a25362e5c5915fbdc",
        ),
        (
            "runc",
            "1.2.9",
            "aarch64",
            "/opencontainers/runc/releases/download/v1.2.9/runc.arm64",
            "c155ae4716480be73a1c3bbedfa23df179800ba39ca83eb59f5b1b9b72a7ecbd",
        ),
        (  # crun's tags have no v
            "crun",
            "1.17",
            "x86_64",
            "/containers/crun/releases/download/1.17/crun-1.17-linux-amd64",
            "e9512a3e034e781b2396d068fd24eafcd5788e410403da886df9dc8871d504a5",
        ),
        (
            "crun",
            "1.16.1",
            "aarch64",
            "/containers/crun/releases/download/1.16.1/crun-1.16.1-linux-arm64",
            "973817340e6da12c90c751b011c797396940cca965cefa74557bd1c0939f4042",
        ),
        (
            "crun",
            "1.17",
            "ppc64le",
            "/containers/crun/releases/download/1.17/crun-1.17-linux-ppc64le",
            "ca8ee0fabcac57b61b80f6c234ae20b3b9821433fdf1a6306be5defeac11930e",
        ),
    ],
)
def test_an_asset_has_upstreams_name_and_digest(
    component: str, version: str, machine: str, path: str, sha256: str
) -> None:
    asset = LOCK.asset(component, version, ARCHITECTURES[machine])
    assert (asset.path, asset.sha256) == (path, sha256)


@pytest.mark.parametrize("component", COMPONENTS)
def test_every_locked_version_has_the_common_architectures(component: str) -> None:
    for version in LOCK.versions(component):
        for arch in ("amd64", "arm64", "ppc64le"):
            assert re.fullmatch("[0-9a-f]{64}", LOCK.asset(component, version, arch).sha256)


def test_no_two_assets_share_a_digest() -> None:
    pinned = [(c, v, a) for c in COMPONENTS for v in LOCK.versions(c) for a in LOCK.architectures(c, v)]
    digests = [LOCK.asset(*each).sha256 for each in pinned]
    assert len(digests) == len(set(digests))


@pytest.mark.parametrize("component", COMPONENTS)
def test_the_lock_file_is_in_a_stable_order_with_the_newest_first(component: str) -> None:
    in_file = list(tomllib.loads(TEXT)[component]["sha256"])
    assert in_file == list(newest_first(in_file))
    assert list(tomllib.loads(TEXT)) == list(COMPONENTS)


def test_the_lock_says_where_its_digests_come_from() -> None:
    assert "46dbdd3994b32640bcd806b0097f50e8fdf1d514" in LOCK.source("containerd", "2.3.4")


def test_a_version_may_name_its_own_source() -> None:
    own = lock(f'[crun]\n{HEAD}\n[crun.sha256."1.31"]\n{ROW}\nsource = "CHECKSUMS of the release"\n')
    assert own.source("crun", "1.31") == "CHECKSUMS of the release"
    assert own.architectures("crun", "1.31") == ("amd64",)


@pytest.mark.parametrize(
    ("path", "good"),
    [
        ("/a/b-1.2_3+4~5.tar.gz", True),
        ("/a/..b/c..", True),
        ("/../etc/passwd", False),
        ("/a/./b", False),
        ("/a/..", False),
        ("a/b", False),
        ("//a", False),
        ("/a/", False),
        ("/a b", False),
        ("/a?b", False),
        ("/a\n", False),
        ("", False),
    ],
)
def test_a_path_of_an_asset_leads_below_and_nowhere_else(path: str, good: bool) -> None:
    assert is_asset_path(path) is good


@pytest.mark.parametrize(("text", "good"), [("0f" * 32, True), ("0F" * 32, False), ("0f" * 31, False), ("", False)])
def test_a_sha256_is_64_lower_case_digits(text: str, good: bool) -> None:
    assert is_sha256(text) is good
    assert not is_sha256(f"{text}\n")


def test_versions_are_sorted_as_versions_and_not_as_text() -> None:
    assert newest_first(["2.0.9", "2.0.11", "2.3.0", "1.6.0-rc.2", "1.6.0", "2.1.0"]) == (
        "2.3.0",
        "2.1.0",
        "2.0.11",
        "2.0.9",
        "1.6.0",
        "1.6.0-rc.2",
    )
    table = "".join(f'[crun.sha256."{v}"]\n{ROW}\n' for v in ("1.9", "1.31", "1.30.1"))
    assert lock(f"[crun]\n{HEAD}\n{table}").versions("crun") == ("1.31", "1.30.1", "1.9")


@pytest.mark.parametrize(
    ("component", "version", "arch", "says"),
    [
        (
            "containerd",
            "2.3.5",
            "amd64",
            ["containerd 2.3.5 on amd64", "2.3.4, 2.3.3", "artifacts add containerd 2.3.5"],
        ),
        ("crun", "1.31", "arm64", ["1.17, 1.16.1, 1.16)", "python -m artifacts add crun 1.31"]),
        ("runc", "1.4.3", "riscv64", ["runc 1.4.3 on riscv64", "it has runc 1.4.3 for amd64, arm64, ppc64le"]),
    ],
)
def test_a_missing_digest_names_what_the_lock_has_and_the_command(
    component: str, version: str, arch: str, says: list[str]
) -> None:
    with pytest.raises(NoDigest) as refused:
        LOCK.asset(component, version, arch)
    for words in says:
        assert words in str(refused.value)


def test_a_lock_without_a_component_says_so() -> None:
    with pytest.raises(NoDigest, match="it has no runc at all"):
        lock("").asset("runc", "1.4.3", "amd64")


@pytest.mark.parametrize(
    ("text", "row", "problem"),
    [
        ("[crun", "", "not TOML"),
        ("crun = 1", "[crun]", "must be a table, not int"),
        ("[podman]", "[podman]", "unknown component; known are containerd, runc, crun"),
        (f"[crun]\n{HEAD}\nurl = 1", "[crun]", "unknown key 'url'"),
        ('[crun]\nsource = "x"', "crun.path", "where the assets are"),
        ('[crun]\npath = "/crun-{arch}"\nsource = "x"', "crun.path", "{version}"),
        ('[crun]\npath = "/crun-{version}"\nsource = "x"', "crun.path", "{arch}"),
        ('[crun]\npath = "crun-{version}-{arch}"\nsource = "x"', "crun.path", "start with /"),
        ('[crun]\npath = "/{os}/crun-{version}-{arch}"\nsource = "x"', "crun.path", "no braces but"),
        ('[crun]\npath = "/{/crun-{version}-{arch}"\nsource = "x"', "crun.path", "no braces but"),
        ('[crun]\npath = "/a b/{version}-{arch}"\nsource = "x"', "crun.path", "no space"),
        ('[crun]\npath = "/../{version}/{arch}"\nsource = "x"', "crun.path", ".."),
        (f"[crun]\n{HEAD.splitlines()[0]}", "crun.source", "where the digests come from"),
        (f"[crun]\n{HEAD}\nsha256 = 1", "[crun.sha256]", "must be a table"),
        (f'[crun]\n{HEAD}\n[crun.sha256."v1.17"]\n{ROW}', 'crun.sha256."v1.17"', "no v in front"),
        (f'[crun]\n{HEAD}\n[crun.sha256]\n"1.17" = "abc"', '[crun.sha256."1.17"]', "must be a table, not str"),
        (f'[crun]\n{HEAD}\n[crun.sha256."1.17"]', '[crun.sha256."1.17"]', "no digest"),
        (
            f'[crun]\n{HEAD}\n[crun.sha256."1.17"]\nx86_64 = "{"a" * 64}"',
            'crun.sha256."1.17".x86_64',
            "known are amd64",
        ),
        (f'[crun]\n{HEAD}\n[crun.sha256."1.17"]\namd64 = "{"a" * 63}"', 'crun.sha256."1.17".amd64', "64 lower-case"),
        (f'[crun]\n{HEAD}\n[crun.sha256."1.17"]\namd64 = "{"A" * 64}"', 'crun.sha256."1.17".amd64', "64 lower-case"),
        (f'[crun]\n{HEAD}\n[crun.sha256."1.17"]\namd64 = 5', 'crun.sha256."1.17".amd64', "not a SHA-256"),
        (f'[crun]\n{HEAD}\n[crun.sha256."1.17"]\n{ROW}\nsource = 5', 'crun.sha256."1.17".source', "in a string"),
    ],
)
def test_a_bad_lock_is_refused_with_its_row(text: str, row: str, problem: str) -> None:
    with pytest.raises(LockError) as refused:
        lock(text)
    assert refused.value.row == row
    assert problem in refused.value.problem


@given(st.text())
def test_any_text_is_a_lock_or_a_lock_error(text: str) -> None:
    try:
        outcome: object = lock(text)
    except LockError as error:
        outcome = str(error)
    assert outcome
