"""An image's bill of materials: valid CycloneDX, the same for the same image, and without the build host's secrets."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from tests import nodes
from tests.unit.test_image import image_of
from userns import __version__, paths
from userns.changes import InstallArtifact, WriteFile
from userns.node import Node
from userns.planning import Plan
from userns.secret import Secret


def image(epoch: int | None = None) -> Node:
    node = image_of("6.12.48")
    assert node.image is not None
    return node.model_copy(
        update={
            "image": node.image.model_copy(update={"epoch": epoch}),
            "os_id": "debian",
            "os_version": "13",
        }
    )


def sbom(made: Plan) -> str:
    return next(each.content for each in made.changes if isinstance(each, WriteFile) and each.path == paths.IMAGE_SBOM)


def told(epoch: int | None = None, **settings: object) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(sbom(nodes.plan(image(epoch), **settings)))
    return found


SETTINGS: list[dict[str, object]] = [
    {},
    {"crun_version": "1.17"},
    {"release_url": "https://user:s3cret@mirror.example/a%20b", "crun_version": "1.17"},
    {"release_url": Secret("https://s3cret.example/gh")},
    {"install_from": "package", "containerd_version": "2.3.4", "runc_version": "1.4.3"},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("epoch", [None, 0, 1_700_000_000])
def test_it_is_valid_by_the_strict_schema(settings: dict[str, object], epoch: int | None) -> None:
    text = sbom(nodes.plan(image(epoch), **settings))
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    assert "s3cret" not in text


def test_a_mirror_that_is_a_secret_is_left_out_and_one_with_a_password_is_named_without() -> None:
    def distributed(release_url: object) -> list[str]:
        components = told(release_url=release_url)["components"]
        links = [link for each in components for link in each.get("externalReferences", ())]
        return [link["url"] for link in links if link["type"] == "distribution"]

    assert distributed(Secret("https://user:s3cret@mirror.example/gh")) == []
    named = distributed("https://user:s3cret@mirror.example/gh")
    assert len(named) == 2
    assert all(each.startswith("https://mirror.example/gh/") for each in named)


def test_the_validator_is_one_that_refuses() -> None:
    wrong = told() | {"serialNumber": "urn:uuid:1"}
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(wrong)) is not None


def test_it_tells_of_every_program_where_it_is_from_and_by_which_digest() -> None:
    made = nodes.plan(image(), crun_version="1.17")
    assets = {each.component: each for each in made.changes if isinstance(each, InstallArtifact)}
    components = {each["name"]: each for each in json.loads(sbom(made))["components"]}
    assert components.keys() == assets.keys() == {"containerd", "runc", "crun"}
    for name, component in components.items():
        asset = assets[name]
        digest = [{"alg": "SHA-256", "content": asset.sha256}]
        assert (component["version"], component["hashes"]) == (asset.version, digest)
        links = {each["type"]: each for each in component["externalReferences"]}
        assert links["distribution"] == {"type": "distribution", "url": asset.url, "hashes": digest}
        assert links["vcs"]["url"].startswith("https://github.com/")
        assert component["supplier"]["name"]
    assert components["containerd"]["purl"] == f"pkg:github/containerd/containerd@v{assets['containerd'].version}"
    assert components["crun"]["purl"] == "pkg:github/containers/crun@1.17"
    licences = {name: each["licenses"][0]["license"]["id"] for name, each in components.items()}
    assert licences == {"containerd": "Apache-2.0", "runc": "Apache-2.0", "crun": "GPL-2.0-or-later"}


def test_the_same_image_gives_the_same_text_and_another_one_another_serial_number() -> None:
    first, second = (sbom(nodes.plan(image(1))) for _ in range(2))
    assert first == second
    serials = {
        told()["serialNumber"],
        told(1)["serialNumber"],
        told(2)["serialNumber"],
        told(1, crun_version="1.17")["serialNumber"],
        told(1, containerd_version="2.3.3")["serialNumber"],
    }
    assert len(serials) == 5


def test_its_time_is_that_of_source_date_epoch_or_none() -> None:
    assert told(1_700_000_000)["metadata"]["timestamp"] == "2023-11-14T22:13:20Z"
    assert "timestamp" not in told()["metadata"]


def test_the_tool_has_the_projects_version() -> None:
    (tool,) = told()["metadata"]["tools"]["components"]
    project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
    assert (tool["name"], tool["version"]) == (project["name"], project["version"])
    assert project["version"] == __version__
