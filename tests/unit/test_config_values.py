"""config.toml with any value that TOML can express: the text says it exactly, in whatever order it was given."""

from __future__ import annotations

import datetime as dt
import tomllib
from pathlib import Path
from typing import Any

from hypothesis import assume, given
from hypothesis import strategies as st

from userns.containerd import config
from userns.containerd.config import ConfigError, Settings
from userns.containerd.merge import difference

TEMPLATES = {path.name: path.read_text() for path in (Path(__file__).parents[2] / "templates").glob("config-*")}

CRI = "io.containerd.grpc.v1.cri"
RUNTIME = "io.containerd.cri.v1.runtime"
IMAGES = "io.containerd.cri.v1.images"
OVERLAYFS = "io.containerd.snapshotter.v1.overlayfs"
HANDLERS = {"runc": "/usr/local/sbin/runc", "crun": "/usr/local/bin/crun"}


def settings(version: int = 3, **other: Any) -> Settings:
    values: dict[str, Any] = {
        "version": version,
        "root": "/var/lib/containerd",
        "cgroup_driver": "systemd",
        "handlers": HANDLERS,
        "default_runtime": "runc",
        "snapshotter": "overlayfs",
    }
    return Settings(**(values | other))


def text(version: int = 3, **other: Any) -> str:
    return config.render(TEMPLATES, settings(version, **other)).text


QUOTES = ("", '"', "'", "\\", "'''", '"""', "\\x41", "\\u0041")
CONTROLS = ("\n", "\r\n", "\t", "\x00", "\x1b", "\x7f", "\x85", "\u2028", "\ufeff", "é", "🎉")
SYNTAX = ("{{ x }}", "{% for %}", "{# #}", "# no comment", "[a]", "[[a]]", "a.b", "a = 1", "]", "= ")
HOSTILE = st.sampled_from([*QUOTES, *CONTROLS, *SYNTAX])
TEXTS = st.one_of(HOSTILE, st.text(max_size=12), st.lists(HOSTILE, max_size=4).map("".join))
OFFSETS = st.integers(-23 * 60 - 59, 23 * 60 + 59).map(lambda m: dt.timezone(dt.timedelta(minutes=m)))
LEAVES = st.one_of(
    TEXTS,
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.dates(),
    st.times(),
    st.datetimes(),
    st.datetimes(timezones=OFFSETS),
)
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3), max_leaves=12
)
TABLES = st.dictionaries(TEXTS, VALUES, max_size=4)

# Where the operator's keys may meet ours.
MEETING_POINTS: list[tuple[str, ...]] = [
    (),
    ("plugins",),
    ("plugins", IMAGES),
    ("plugins", IMAGES, "pinned_images"),
    ("plugins", RUNTIME),
    ("plugins", RUNTIME, "containerd"),
    ("plugins", RUNTIME, "containerd", "runtimes"),
    ("plugins", RUNTIME, "containerd", "runtimes", "runc"),
    ("plugins", RUNTIME, "containerd", "runtimes", "crun", "options"),
    ("plugins", OVERLAYFS),
    ("plugins", CRI),
    ("plugins", CRI, "containerd", "runtimes", "runc", "options"),
]


def nested(path: tuple[str, ...], table: dict[str, Any]) -> dict[str, Any]:
    for each in reversed(path):
        table = {each: table}
    return table


@given(st.sampled_from([2, 3]), st.sampled_from(MEETING_POINTS), TABLES, st.booleans())
def test_any_table_is_read_back_as_it_was_given(
    version: int, path: tuple[str, ...], table: dict[str, Any], full: bool
) -> None:
    other: dict[str, Any] = {"sandbox_image": "pause", "slow_chown": True} if full else {}
    given_ = settings(version, extra=nested(path, table), **other)
    try:
        want = config.intended(given_)
    except ConfigError:
        assume(False)
    back: Any = tomllib.loads(config.render(TEMPLATES, given_).text)
    assert difference(want, back) is None
    for each in path:
        back = back[each]
    for name, value in table.items():
        assert difference(value, back[name]) is None


@given(TABLES, st.randoms(use_true_random=False))
def test_the_order_of_keys_never_changes_the_text(table: dict[str, Any], random: Any) -> None:
    def shuffled(value: Any) -> Any:
        if isinstance(value, dict):
            pairs = [(name, shuffled(each)) for name, each in value.items()]
            random.shuffle(pairs)
            return dict(pairs)
        return [shuffled(each) for each in value] if isinstance(value, list) else value

    extra = {"x": table, "plugins": {"a.b": table, IMAGES: {"registry": table}}}
    handlers = HANDLERS | {"a": "/a", "b": "/b"}
    assert text(extra=extra, handlers=handlers) == text(extra=shuffled(extra), handlers=shuffled(handlers))


@given(TEXTS, TEXTS, TEXTS, TEXTS, st.sampled_from([2, 3]))
def test_no_setting_can_break_out_of_its_value(root: str, name: str, binary: str, image: str, version: int) -> None:
    other: dict[str, Any] = {"handlers": {name: binary}, "default_runtime": name, "sandbox_image": image}
    table = tomllib.loads(text(version, root=root, snapshotter=root, **other))
    cri = table["plugins"][CRI if version == 2 else RUNTIME]["containerd"]
    assert table["root"] == root
    assert cri["default_runtime_name"] == name
    assert cri["runtimes"][name]["options"]["BinaryName"] == binary
    assert set(table) == {"version", "root", "state", "imports", "plugins"}


@given(st.text())
def test_any_reason_stays_a_comment(reason: str) -> None:
    with_reason, without = (text(slow_chown=True, slow_chown_reason=each) for each in (reason, ""))
    assert [line for line in with_reason.split("\n") if not line.startswith("#")] == [
        line for line in without.split("\n") if not line.startswith("#")
    ]


@given(TABLES)
def test_a_second_opinion_never_fails(table: dict[str, Any]) -> None:
    asked = settings(extra={"x": table})
    opinion = config.render(TEMPLATES, asked).doubt
    assert opinion is None or opinion.startswith("a reader of TOML 0.5 ")
