"""Where upstream publishes the digests of a release, and who may sign them: upstream.toml, a row a component."""

from __future__ import annotations

import posixpath
import re
import tomllib
from importlib.resources import files
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from userns.releases import ARCHITECTURES

__all__ = ["FINGERPRINT", "UPSTREAM", "Release", "Upstream"]

FINGERPRINT = re.compile(r"^[0-9A-F]{40}$")


class _Row(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str


class Signer(_Row):
    """Somebody who may sign: the fingerprint of the primary key."""

    name: str
    fingerprint: Annotated[str, Field(pattern=FINGERPRINT)]


class Upstream(_Row):
    """How one component's digests are published."""

    list: str
    signed: Literal["inside", "beside", "no"]
    keyring: str = ""
    signers: tuple[Signer, ...] = ()


class Release:
    """The paths of one release, made from the lock's pattern for its assets."""

    def __init__(self, component: str, version: str, pattern: str) -> None:
        self.component = component
        self.version = version
        self.upstream = UPSTREAM[component]
        self._pattern = pattern.replace("{version}", version)

    def __str__(self) -> str:
        return f"{self.component} {self.version}"

    def assets(self) -> dict[str, str]:
        """The path of the asset for every architecture that is known here, whether upstream has it or not."""
        return {arch: self._pattern.replace("{arch}", arch) for arch in ARCHITECTURES.values()}

    def list_of(self, asset: str) -> str:
        """The path of the checksum file that names this asset."""
        directory, name = posixpath.split(asset)
        return posixpath.join(directory, self.upstream.list.replace("{asset}", name))

    def companions(self) -> set[str]:
        """The paths of what lies beside the assets: checksum files and signatures."""
        paths = set(self.assets().values())
        paths |= {self.list_of(asset) for asset in paths}
        return (paths | {f"{path}.asc" for path in paths}) - set(self.assets().values())

    @property
    def directory(self) -> str:
        """Where the assets are: the part of their paths that all of them have."""
        return posixpath.commonpath([posixpath.dirname(path) for path in self.assets().values()])


UPSTREAM = {
    name: Upstream.model_validate(row)
    for name, row in tomllib.loads(files(__package__).joinpath("upstream.toml").read_text("utf-8")).items()
}
