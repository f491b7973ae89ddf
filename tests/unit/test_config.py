"""config.toml: the mapping that is meant, and a text that says exactly that, whatever the operator puts in."""

from __future__ import annotations

import datetime as dt
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests import nodes
from userns import paths
from userns.changes import WriteFile
from userns.containerd import config
from userns.containerd.config import ConfigError, Settings
from userns.containerd.merge import difference, plain

TEMPLATES = {path.name: path.read_text() for path in (Path(__file__).parents[2] / "templates").iterdir()}

CRI = "io.containerd.grpc.v1.cri"
RUNTIME = "io.containerd.cri.v1.runtime"
IMAGES = "io.containerd.cri.v1.images"
TRANSFER = "io.containerd.transfer.v1.local"
OVERLAYFS = "io.containerd.snapshotter.v1.overlayfs"
RUNC = "/usr/local/sbin/runc"
CRUN = "/usr/local/bin/crun"


def settings(version: int = 3, **other: Any) -> Settings:
    values: dict[str, Any] = {
        "version": version,
        "root": "/var/lib/containerd",
        "cgroup_driver": "systemd",
        "handlers": {"runc": RUNC},
        "default_runtime": "runc",
        "snapshotter": "overlayfs",
    }
    return Settings(**(values | other))


def text(version: int = 3, **other: Any) -> str:
    return config.render(TEMPLATES, settings(version, **other)).text


def read(version: int = 3, **other: Any) -> dict[str, Any]:
    return tomllib.loads(text(version, **other))


# --- what is written ---------------------------------------------------------------------------------------------


def test_version_2_keeps_all_of_cri_in_one_plugin() -> None:
    assert read(2, handlers={"runc": RUNC, "crun": CRUN}, sandbox_image="pause:3.10") == {
        "version": 2,
        "root": "/var/lib/containerd",
        "state": "/run/containerd",
        "imports": ["/etc/containerd/conf.d/*.toml"],
        "plugins": {
            CRI: {
                "sandbox_image": "pause:3.10",
                "containerd": {
                    "snapshotter": "overlayfs",
                    "default_runtime_name": "runc",
                    "runtimes": {
                        "runc": {
                            "runtime_type": "io.containerd.runc.v2",
                            "options": {"BinaryName": RUNC, "SystemdCgroup": True},
                        },
                        "crun": {
                            "runtime_type": "io.containerd.runc.v2",
                            "options": {"BinaryName": CRUN, "SystemdCgroup": True},
                        },
                    },
                },
            }
        },
    }


def test_version_3_has_runtimes_and_images_apart() -> None:
    assert read(3, sandbox_image="pause:3.10", slow_chown=True, cgroup_driver="cgroupfs") == {
        "version": 3,
        "root": "/var/lib/containerd",
        "state": "/run/containerd",
        "imports": ["/etc/containerd/conf.d/*.toml"],
        "plugins": {
            RUNTIME: {
                "containerd": {
                    "default_runtime_name": "runc",
                    "runtimes": {
                        "runc": {
                            "runtime_type": "io.containerd.runc.v2",
                            "options": {"BinaryName": RUNC, "SystemdCgroup": False},
                        }
                    },
                }
            },
            IMAGES: {"snapshotter": "overlayfs", "pinned_images": {"sandbox": "pause:3.10"}},
            OVERLAYFS: {"slow_chown": True},
        },
    }


@pytest.mark.parametrize("version", [2, 3])
def test_without_a_pause_image_containerd_keeps_its_own(version: int) -> None:
    assert "sandbox" not in text(version)


@pytest.mark.parametrize("version", [2, 3])
def test_every_handler_has_the_same_cgroup_driver(version: int) -> None:
    for driver, value in (("systemd", "true"), ("cgroupfs", "false")):
        shown = text(version, handlers={"runc": RUNC, "crun": CRUN}, cgroup_driver=driver)
        assert shown.count(f"SystemdCgroup = {value}\n") == 2
        assert shown.count("SystemdCgroup") == 2


@pytest.mark.parametrize("slow_chown", [True, False, None])
def test_slow_chown_is_never_written_for_containerd_1_7(slow_chown: bool | None) -> None:
    assert text(2, slow_chown=slow_chown) == text(2)


def test_slow_chown_none_leaves_the_key_out() -> None:
    assert OVERLAYFS not in read(3)["plugins"]


def test_slow_chown_stands_below_its_reason() -> None:
    shown = text(3, slow_chown=True, slow_chown_reason="overlay cannot idmap here:\nEINVAL at mount")
    assert "# overlay cannot idmap here:\n# EINVAL at mount\nslow_chown = true\n" in shown


def test_a_reason_can_never_become_a_setting() -> None:
    reason = "a\nslow_chown = false\r\nb\rc\x00\x85d\u2028e {{ 7 * 7 }} {% raw %} \x1b[31m\n\n  \n"
    shown = text(3, slow_chown=True, slow_chown_reason=reason)
    assert tomllib.loads(shown)["plugins"][OVERLAYFS] == {"slow_chown": True}
    assert "# slow_chown = false\n# b\n# c  d e {{ 7 * 7 }} {% raw %}  [31m\nslow_chown = true\n" in shown


@pytest.mark.parametrize("version", [2, 3])
def test_the_head_says_who_owns_the_file_and_where_drop_ins_go(version: int) -> None:
    head = text(version).split(f"\nversion = {version}\n")[0]
    assert all(line.startswith("#") for line in head.splitlines())
    for said in ("userns-node", "inventory", "/etc/containerd/conf.d/", f"`version = {version}`"):
        assert said in head


@pytest.mark.parametrize("version", [2, 3])
def test_sections_are_one_blank_line_apart_and_the_text_ends_with_one_newline(version: int) -> None:
    extra = {"oom_score": -999, "grpc": {"gid": 1}, "plugins": {"a.b": {"c": {"d": 1}}, "e.f": {}}}
    for shown in (text(version), text(version, extra=extra, sandbox_image="pause", slow_chown=True)):
        assert "\n\n\n" not in shown
        assert shown.endswith("\n")
        assert not shown.endswith("\n\n")
        for before, line in zip(shown.splitlines(), shown.splitlines()[1:], strict=False):
            assert not line.startswith("[") or before == "" or before.startswith("#")


def test_an_unknown_config_version_is_refused() -> None:
    with pytest.raises(ConfigError, match="config version 4 is not known"):
        text(4)


def test_a_default_runtime_without_a_handler_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"default_runtime 'crun' has no handler; those installed: runc"):
        text(default_runtime="crun")


# --- the operator's tables ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "extra"),
    [
        (3, {"oom_score": -999}),
        (3, {"plugins": {RUNTIME: {"enable_selinux": True}}}),
        (3, {"plugins": {RUNTIME: {"containerd": {"ignore_rdt_not_enabled_errors": True}}}}),
        (3, {"plugins": {RUNTIME: {"containerd": {"runtimes": {"runc": {"cgroup_writable": True}}}}}}),
        (3, {"plugins": {RUNTIME: {"containerd": {"runtimes": {"runc": {"options": {"Root": "/x"}}}}}}}),
        (3, {"plugins": {IMAGES: {"registry": {"config_path": "/etc/containerd/certs.d"}}}}),
        (3, {"plugins": {IMAGES: {"pinned_images": {"other": "an/image:1"}}}}),
        (3, {"plugins": {OVERLAYFS: {"mount_options": ["metacopy=on"]}}}),
        (3, {"plugins": {"io.containerd.transfer.v1.local": {"unpack_config": [{"platform": "linux"}, {}]}}}),
        (2, {"plugins": {CRI: {"enable_selinux": True, "registry": {"config_path": "/etc/containerd/certs.d"}}}}),
        (2, {"plugins": {OVERLAYFS: {}}}),
        (2, {"proxy_plugins": {"stargz": {"type": "snapshot", "capabilities": ["remap-ids"]}}}),
    ],
)
@pytest.mark.parametrize("full", [True, False])
def test_extra_keys_join_the_sections_that_we_write(version: int, extra: dict[str, Any], full: bool) -> None:
    other: dict[str, Any] = {"sandbox_image": "pause", "slow_chown": True} if full else {}
    shown, want = text(version, extra=extra, **other), config.intended(settings(version, extra=extra, **other))
    assert difference(want, tomllib.loads(shown)) is None
    assert config.second_opinion(shown, want) is None
    assert set(_leaves(want)) == set(_leaves(read(version, **other))) | set(_leaves(extra))


def test_an_extra_key_of_our_section_stands_in_it_and_opens_no_second_table() -> None:
    shown = text(3, extra={"plugins": {IMAGES: {"max_concurrent_downloads": 5}}})
    assert f"[plugins.'{IMAGES}']\nsnapshotter = \"overlayfs\"\nmax_concurrent_downloads = 5\n" in shown
    assert shown.count(f"{IMAGES}']") == 1


@pytest.mark.parametrize("version", [2, 3])
def test_another_handler_may_be_added(version: int) -> None:
    cri = CRI if version == 2 else RUNTIME
    nvidia = {"runtime_type": "io.containerd.runc.v2", "options": {"BinaryName": "/n", "SystemdCgroup": True}}
    table = read(version, extra={"plugins": {cri: {"containerd": {"runtimes": {"nvidia": nvidia}}}}})
    assert table["plugins"][cri]["containerd"]["runtimes"]["nvidia"] == nvidia
    assert set(table["plugins"][cri]["containerd"]["runtimes"]) == {"runc", "nvidia"}


@pytest.mark.parametrize(
    ("extra", "names"),
    [
        ({"version": 2}, "version"),
        ({"root": "/secret"}, "root"),
        ({"root": {"secret": 1}}, "root"),
        ({"state": "/secret"}, "state"),
        ({"imports": ["/secret/*.toml"]}, "imports"),
        ({"plugins": 3}, "plugins"),
        ({"plugins": {IMAGES: {"snapshotter": "secret"}}}, f'plugins."{IMAGES}".snapshotter'),
        ({"plugins": {OVERLAYFS: {"slow_chown": False}}}, f'plugins."{OVERLAYFS}".slow_chown'),
        (
            {"plugins": {RUNTIME: {"containerd": {"runtimes": {"runc": {"options": {"SystemdCgroup": False}}}}}}},
            f'plugins."{RUNTIME}".containerd.runtimes.runc.options.SystemdCgroup',
        ),
    ],
)
def test_an_extra_key_never_changes_one_of_ours(extra: dict[str, Any], names: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        text(3, extra=extra, slow_chown=True)
    assert f"it sets {names}," in str(refusal.value)
    assert "secret" not in str(refusal.value)


def test_an_extra_key_may_repeat_what_is_written_anyway() -> None:
    assert text(3, extra={"version": 3, "root": "/var/lib/containerd"}) == text(3)


def test_more_directories_may_be_imported_beside_ours() -> None:
    wanted = ["/etc/containerd/conf.d/*.toml", "/etc/other/*.toml"]
    assert read(3, extra={"imports": wanted})["imports"] == wanted


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (None, "leave the key out"),
        (object(), "type object"),
        (b"x", "type bytes"),
        (float("nan"), "not a number"),
        (2**63, "beyond 64 bits"),
        ("\ud800", "surrogate"),
        ({1: 2}, "key that is not a string: 1"),
        (dt.time(1, 2, tzinfo=dt.UTC), "time with a zone"),
        (dt.datetime(2026, 1, 1, tzinfo=dt.timezone(dt.timedelta(seconds=30))), "offset with seconds"),
    ],
)
def test_what_toml_cannot_say_is_refused_by_the_name_of_its_key(value: object, why: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        text(extra={"debug": {"a b": [0, value]}})
    assert str(refusal.value).startswith('containerd_config: debug."a b"[1] ')
    assert why in str(refusal.value)


def test_tuples_and_subclasses_become_what_toml_gives_back() -> None:
    class Name(str):
        __slots__ = ()

    class Number(int):
        pass

    assert difference([["a", 1]], plain(((Name("a"), Number(1)),))) is None


# --- the self-check and the second reader ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda t: t.replace("toml(ours.root)", "ours.root"), "is not TOML"),
        (lambda t: t.replace("toml(snapshotter)", "toml(snapshotter ~ ' ')"), f'at plugins."{IMAGES}".snapshotter'),
        (lambda t: t.replace("version = 3\n", 'version = "3"\n'), "at version"),
        (lambda t: t.replace("{{ rest }}", ""), "at debug"),
    ],
)
def test_a_text_that_says_something_else_never_leaves(change: Callable[[str], str], says: str) -> None:
    name = "config-v3.toml.j2"
    broken = TEMPLATES | {name: change(TEMPLATES[name])}
    assert broken != TEMPLATES
    with pytest.raises(ConfigError, match="report this as a bug") as refusal:
        config.render(broken, settings(extra={"debug": {"level": "info"}}))
    assert says in str(refusal.value)


@pytest.mark.parametrize("version", [2, 3])
def test_an_old_reader_agrees_on_everything_that_we_write(version: int) -> None:
    ours = settings(
        version, handlers={"runc": RUNC, "crun": CRUN}, sandbox_image="pause", slow_chown=True, slow_chown_reason="x"
    )
    assert config.render(TEMPLATES, ours).doubt is None


def test_an_old_reader_that_cannot_read_is_reported_without_the_value() -> None:
    mixed = settings(extra={"debug": {"mixed": [1, "secret"]}})
    opinion = config.render(TEMPLATES, mixed).doubt
    assert opinion is not None
    assert "cannot read" in opinion
    assert "secret" not in opinion


def test_an_old_reader_that_reads_something_else_is_reported_by_the_key() -> None:
    opinion = config.second_opinion("a = 1\n[b]\nc = 2\n", {"a": 1, "b": {"c": 3}})
    assert opinion == "a reader of TOML 0.5 reads b.c of config.toml differently"


@pytest.mark.parametrize(
    ("want", "have", "path"),
    [
        ({"a": 1}, {"a": True}, ("a",)),
        ({"a": 1}, {"a": 1.0}, ("a",)),
        ({"a": [1, 2]}, {"a": [1, 3]}, ("a", 1)),
        ({"a": [1]}, {"a": [1, 2]}, ("a",)),
        ({"a": {"b": 1}}, {"a": {}}, ("a", "b")),
        ({"a": {}}, {"a": []}, ("a",)),
        ({"a": [{"b": 1}]}, {"a": [{"b": 1}]}, None),
    ],
)
def test_a_difference_is_named_by_its_first_key(want: Any, have: Any, path: tuple[str | int, ...] | None) -> None:
    assert difference(want, have) == path


def _leaves(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    if isinstance(value, dict) and value:
        return [leaf for name, each in value.items() for leaf in _leaves(each, (*path, name))]
    return [(*path, repr(value))]


def registry(**table: object) -> dict[str, Any]:
    return {"containerd_config": {"plugins": {IMAGES: {"registry": table}}}}


@pytest.mark.parametrize(
    ("wanted", "there"),
    [
        ({}, False),
        ({"snapshotter": "native"}, True),
        ({"snapshotter": "native", "containerd_version": "1.7.34", "kubernetes_version": "1.26"}, False),
        ({"snapshotter": "native", "containerd_config": {"plugins": {IMAGES: {"use_local_image_pull": False}}}}, False),
        ({"snapshotter": "native", "containerd_config": {"plugins": {TRANSFER: {"unpack_config": [{"a": 1}]}}}}, False),
    ],
)
def test_for_another_snapshotter_cri_pulls_by_itself(wanted: dict[str, Any], there: bool) -> None:
    changes = nodes.plan(nodes.bare(), **wanted).changes
    (written,) = (each.content for each in changes if isinstance(each, WriteFile) and each.path == paths.CONFIG)
    assert ("use_local_image_pull = true" in written) is there


@pytest.mark.parametrize(
    ("wanted", "there"),
    [
        ({}, True),
        ({"containerd_version": "1.7.34", "kubernetes_version": "1.26"}, False),
        (registry(configs={"mirror.example": {"auth": {"username": "u"}}}), True),
        (registry(mirrors={"docker.io": {"endpoint": ["https://mirror.example"]}}), False),
        (registry(config_path="/srv/certs.d"), False),
        (registry(config_path=""), False),
    ],
)
def test_the_directory_of_the_registries_hosts_is_written_where_nothing_else_is_said(
    wanted: dict[str, Any], there: bool
) -> None:
    changes = nodes.plan(nodes.bare(), **wanted).changes
    (written,) = (each.content for each in changes if isinstance(each, WriteFile) and each.path == paths.CONFIG)
    assert ('config_path = "/etc/containerd/certs.d"' in written) is there
