"""The manifest of a bundle, and what a policy takes from one."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.files import templates
from tests import nodes
from userns import programs
from userns.bundles import Bundle, Bundled, BundleError
from userns.changes import InstallArtifact
from userns.planning import plan
from userns.policy import Policy, PolicyError, artifact_bundle_path, load
from userns.releases import Lock

LOCK = Lock.parse((Path(__file__).parents[2] / "artifacts" / "lock.toml").read_text())
SETTINGS: dict[str, Any] = {"install_from": "bundle", "artifact_bundle": "bundle.tar"}


def bundled(component: str, version: str, arch: str) -> Bundled:
    asset = LOCK.asset(component, version, arch)
    return Bundled(component, version, arch, asset.path, 12_345_678, asset.sha256, "", "somewhere")


def bundle(*architectures: str, containerd: str = "2.3.4") -> Bundle:
    wanted = (("containerd", containerd), ("runc", "1.4.3"))
    return Bundle(tuple(bundled(*each, arch) for each in wanted for arch in architectures), "b.tar")


def policy(held: Bundle | None, **settings: Any) -> Policy:
    return load({**SETTINGS, **settings}, LOCK, bundle=held)


class TestManifest:
    def test_it_is_read_as_it_was_written(self) -> None:
        held = bundle("amd64", "arm64")
        assert Bundle.parse(held.text, "b.tar") == held
        first = {**json.loads(held.text), "format": "userns-node bundle 1", "locks": ["0" * 64]}
        assert Bundle.parse(json.dumps(first), "b.tar") == held

    @pytest.mark.parametrize(
        ("change", "says"),
        [
            ({"format": "userns-node bundle 9"}, "another version of userns-node made it"),
            ({"assets": {}}, "no list of assets"),
            ({"assets": [{}]}, "does not have the keys"),
            ({"assets": [1]}, "does not have the keys"),
        ],
    )
    def test_another_shape_is_refused(self, change: dict[str, Any], says: str) -> None:
        with pytest.raises(BundleError, match=says):
            Bundle.parse(json.dumps({**json.loads(bundle("amd64").text), **change}))

    @pytest.mark.parametrize(
        ("key", "value", "says"),
        [
            ("component", "podman", "cannot be"),
            ("version", "latest", "cannot be"),
            ("architecture", "mips", "cannot be"),
            ("path", "/../../etc/passwd", "leads elsewhere"),
            ("path", "etc/passwd", "a path that is none"),
            ("size", -1, "cannot be"),
            ("size", True, "cannot be"),
            ("size", "5", "cannot be"),
            ("sha256", "A" * 64, "cannot be"),
            ("source", "a\nb", "no printable text"),
            ("verified", None, "no printable text"),
        ],
    )
    def test_a_value_that_cannot_be_is_refused(self, key: str, value: object, says: str) -> None:
        table = json.loads(bundle("amd64").text)
        table["assets"][0][key] = value
        with pytest.raises(BundleError, match=says):
            Bundle.parse(json.dumps(table))

    def test_one_asset_twice_is_refused(self) -> None:
        held = bundle("amd64")
        with pytest.raises(BundleError, match="twice"):
            Bundle.parse(replace(held, assets=held.assets * 2).text)

    @given(st.text() | st.recursive(st.none() | st.text(), st.lists).map(json.dumps))
    def test_any_other_text_is_refused_and_nothing_worse(self, text: str) -> None:
        with pytest.raises(BundleError):
            Bundle.parse(text)


class TestPolicy:
    def test_a_bundle_has_to_be_named(self) -> None:
        with pytest.raises(
            PolicyError, match='install_from = "bundle" needs it: name the file that `python -m artifacts'
        ):
            load({"install_from": "bundle"}, LOCK)

    def test_the_bundle_is_named_before_it_is_read_and_only_where_it_is_used(self) -> None:
        assert artifact_bundle_path(SETTINGS) == "bundle.tar"
        assert artifact_bundle_path({"artifact_bundle": "bundle.tar"}) is None
        assert artifact_bundle_path({"install_from": "bundle"}) is None
        with pytest.raises(PolicyError, match="artifact_bundle = 5"):
            artifact_bundle_path({**SETTINGS, "artifact_bundle": 5})

    def test_a_version_that_is_not_named_is_the_lock_files_whatever_the_bundle_has(self) -> None:
        released = load({}, LOCK)
        for held in (None, bundle("amd64"), bundle("amd64", containerd="2.2.7"), Bundle((), "b.tar")):
            assert policy(held).versions == released.versions

    def test_what_the_lock_does_not_pin_is_refused(self) -> None:
        with pytest.raises(PolicyError, match=r"the lock file has no digest for containerd 2\.1\.99"):
            policy(bundle("amd64"), containerd_version="2.1.99")


class TestPlan:
    def test_an_old_bundle_downgrades_no_node(self) -> None:
        old = tuple(bundled(*each, "amd64") for each in (("containerd", "2.0.10"), ("runc", "1.2.8")))
        wanted = policy(Bundle(old, "b.tar"))
        for node in (nodes.converged(), nodes.bare()):
            made = plan(node, wanted, templates())
            assert not [each for each in made.changes if isinstance(each, InstallArtifact)]
            assert {each.id for each in made.blockers} >= {"artifact-not-bundled"}
        messages = [each.message for each in made.blockers if each.id == "artifact-not-bundled"]
        assert messages[0] == (
            "b.tar has no containerd 2.3.4 for amd64 (it has containerd 2.0.10 for amd64). Make one that does, on a "
            "connected machine: python -m artifacts bundle OUT.tar containerd=2.3.4 runc=1.4.3 --arch amd64. "
            'Or set containerd_version = "2.0.10", if that is meant'
        )
        assert messages[1].endswith('Or set runc_version = "1.2.8", if that is meant')

    def test_nor_does_the_choice_hang_on_what_is_for_another_architecture(self) -> None:
        old = bundled("containerd", "2.0.10", "arm64")
        wanted = policy(Bundle((old, *bundle("amd64").assets), "b.tar"))
        assert programs.missing(nodes.bare(), wanted) == []
        arm = programs.missing(nodes.bare(machine="aarch64"), policy(Bundle((bundled("runc", "1.2.8", "amd64"),))))
        assert not [each for each in arm if "Or set" in each.message]

    def test_only_what_the_node_lacks_is_pushed(self) -> None:
        wanted = policy(bundle("amd64"))
        containerd, runc = programs.changes(nodes.bare(), wanted)
        assert isinstance(containerd, InstallArtifact)
        assert isinstance(runc, InstallArtifact)
        assert (containerd.pushed, runc.pushed) == (12_345_678, 12_345_678)
        assert "12.3 MB pushed from the bundle): it is not installed" in containerd.summary
        assert programs.changes(nodes.converged(), wanted) == []

    def test_a_release_is_not_pushed(self) -> None:
        change = programs.changes(nodes.bare(), load({}, LOCK))[0]
        assert isinstance(change, InstallArtifact)
        assert change.pushed is None
        assert "pushed" not in change.summary

    def test_a_node_of_an_architecture_that_it_lacks_is_refused_with_the_command(self) -> None:
        node, wanted = nodes.bare(machine="aarch64"), policy(bundle("amd64"))
        assert programs.changes(node, wanted) == []
        found = programs.missing(node, wanted)
        assert [(each.id, each.severity.value) for each in found] == [("artifact-not-bundled", "blocker")] * 2
        assert found[0].message == (
            "b.tar has no containerd 2.3.4 for arm64 (it has it for amd64). Make one that does, on a connected "
            "machine: python -m artifacts bundle OUT.tar containerd=2.3.4 runc=1.4.3 --arch arm64"
        )
        assert programs.missing(nodes.bare(), wanted) == []

    def test_another_content_than_the_lock_pins_is_as_good_as_none(self) -> None:
        held = bundle("amd64")
        other = replace(held, assets=(replace(held.assets[0], sha256="0" * 64), held.assets[1]))
        found = programs.missing(nodes.bare(), policy(other))
        assert "it has one with another SHA-256 than the lock file pins" in found[0].message

    def test_a_version_that_it_lacks_is_refused_with_what_it_has(self) -> None:
        wanted = policy(bundle("amd64"), containerd_version="2.2.7", crun_version="1.17")
        messages = [each.message for each in programs.missing(nodes.bare(), wanted)]
        assert "(it has containerd 2.3.4 for amd64)" in messages[0]
        assert "(it has no crun at all)" in messages[1]

    def test_without_the_file_at_hand_nothing_is_said_of_it(self) -> None:
        wanted = policy(None)
        assert programs.missing(nodes.bare(), wanted) == []
        assert all("pushed" not in each.summary for each in programs.changes(nodes.bare(), wanted))
