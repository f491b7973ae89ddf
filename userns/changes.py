"""Changes: what a plan would do to a node, each in words that an operator can act on."""

from __future__ import annotations

from dataclasses import dataclass, field

from userns.paths import STATE


@dataclass(frozen=True, slots=True)
class InstallArtifact:
    """Fetch a locked release asset, verify its SHA-256, and put its programs in place.

    `programs` maps the name inside the asset (`""` for a bare binary) to the path on the node. `url` may hold a
    mirror's password. `pushed` is the asset's size in bytes where the controller pushes it from its bundle, and None
    where the node downloads it.
    """

    component: str
    version: str
    url: str = field(repr=False)
    sha256: str
    programs: dict[str, str]
    why: str
    pushed: int | None = None

    @property
    def summary(self) -> str:
        """One line for the dry run."""
        push = "" if self.pushed is None else f", {self.pushed / 1e6:.1f} MB pushed from the bundle"
        return f"install {self.component} {self.version} (sha256 {self.sha256[:12]}…{push}): {self.why}"


@dataclass(frozen=True, slots=True)
class InstallPackage:
    """Install an exact version of the node's own package and hold it."""

    component: str
    package: str
    version: str
    programs: tuple[str, ...]
    why: str

    @property
    def summary(self) -> str:
        """One line for the dry run."""
        return f"install package {self.package}, upstream version {self.version}, and hold it: {self.why}"


@dataclass(frozen=True, slots=True)
class HoldPackage:
    """Hold a package that is installed as it should be; nothing is installed or restarted."""

    package: str
    why: str

    @property
    def summary(self) -> str:
        """One line for the dry run."""
        return f"hold package {self.package}: {self.why}"


@dataclass(frozen=True, slots=True)
class WriteFile:
    """Replace a managed file by rename. `content` is its whole text; `mode` is octal text (`"644"`).

    `keeps` is where the text that is there now goes first, where it is somebody else's: it stays there for good.
    """

    path: str
    content: str = field(repr=False)
    mode: str
    why: str
    restarts: bool = False
    keeps: str = ""

    @property
    def summary(self) -> str:
        """One line for the dry run."""
        kept = f"; what is there was not written by a deploy, and is kept as {self.keeps}" if self.keeps else ""
        return f"write {self.path}: {self.why}{kept}"


@dataclass(frozen=True, slots=True)
class RemoveFile:
    """Remove a file that an earlier run put there and that the policy no longer wants."""

    path: str
    why: str
    restarts: bool = False

    @property
    def summary(self) -> str:
        """One line for the dry run."""
        return f"remove {self.path}: {self.why}"


@dataclass(frozen=True, slots=True)
class RemoveMetrics:
    """Run the check's unit anew, which removes the metrics that it has written and writes no more (metrics.sh)."""

    path: str
    why: str

    @property
    def summary(self) -> str:
        """One line for the dry run."""
        return f"remove {self.path}: {self.why}"


@dataclass(frozen=True, slots=True)
class RemoveLeftovers:
    """Remove what a cut-off bake, or a node's life before, has left in an image's STATE. Every bake ends with that."""

    names: tuple[str, ...]
    why: str

    @property
    def summary(self) -> str:
        """One line for the dry run."""
        return f"remove {', '.join(self.names)} in {STATE}: {self.why}"


@dataclass(frozen=True, slots=True)
class SetSysctl:
    """Raise a live kernel setting."""

    key: str
    value: int
    why: str

    @property
    def summary(self) -> str:
        """One line for the dry run."""
        return f"set {self.key} = {self.value}: {self.why}"


@dataclass(frozen=True, slots=True)
class SetMetacopy:
    """Set overlay's live `metacopy` parameter; only mounts made afterwards see it."""

    value: str
    why: str

    @property
    def summary(self) -> str:
        """One line for the dry run."""
        return f"set overlay metacopy={self.value} in the running kernel: {self.why}"


@dataclass(frozen=True, slots=True)
class AddKubeletUser:
    """Create the system user `kubelet`, without the sub-ID range that useradd may add by itself."""

    why: str

    @property
    def summary(self) -> str:
        """One line for the dry run."""
        return f"create system user kubelet: {self.why}"


@dataclass(frozen=True, slots=True)
class EnableService:
    """Start a unit at boot."""

    why: str
    unit: str = "containerd.service"

    @property
    def summary(self) -> str:
        """One line for the dry run."""
        return f"enable {self.unit}: {self.why}"


@dataclass(frozen=True, slots=True)
class RestartService:
    """Restart (or start) containerd and wait until its socket, snapshotter and CRI answer."""

    why: str

    @property
    def summary(self) -> str:
        """One line for the dry run."""
        return f"restart containerd.service: {self.why}"


Change = (
    InstallArtifact
    | InstallPackage
    | HoldPackage
    | WriteFile
    | RemoveFile
    | RemoveMetrics
    | RemoveLeftovers
    | SetSysctl
    | SetMetacopy
    | AddKubeletUser
    | EnableService
    | RestartService
)
