"""Programs: which of containerd, runc and crun a node lacks, and the locked asset or package that gives them."""

from __future__ import annotations

from userns.changes import HoldPackage, InstallArtifact, InstallPackage, RemoveFile
from userns.findings import Finding, blocker
from userns.node import Binary, Node, Unit
from userns.paths import INSTALLED, PACKAGED, UNIT, installed
from userns.policy import Policy
from userns.releases import ARCHITECTURES, Asset
from userns.versions import of_package, upstream

# What each component's asset holds: the member of the archive ("" for a bare binary) and the program's name.
MEMBERS = {
    "containerd": {
        "bin/containerd": "containerd",
        "bin/ctr": "ctr",
        "bin/containerd-shim-runc-v2": "containerd-shim-runc-v2",
    },
    "runc": {"": "runc"},
    "crun": {"": "crun"},
}


def paths(policy: Policy) -> dict[str, str]:
    """Where each program is, once installed."""
    return installed(policy.install_from)


def in_use(node: Node, policy: Policy, component: str) -> str:
    """The version of a component that this node uses now, "" where it has none.

    Of containerd that is what containerd.service starts; else what is where the policy would have it, or in its other
    place, or what a package says. `upgrades.running_containerd` guesses at no other program than the unit's.
    """
    if path := _path(node, policy, component):
        return upstream(node.binaries[path].version) or node.binaries[path].version
    package = node.packages.get(component)
    return of_package(package.version) if package else ""


def packaged(node: Node, policy: Policy, component: str) -> bool:
    """Whether what is in use of a component is the distribution's own package."""
    return component in node.packages and _path(node, policy, component) in ("", PACKAGED[component])


def _path(node: Node, policy: Policy, component: str) -> str:
    """Where the program of a component is whose version counts; "" where none has one."""
    starts = node.units.get("containerd", Unit()).program if component == "containerd" else ""
    for path in (starts, *(places[component] for places in (paths(policy), PACKAGED, INSTALLED))):
        if (binary := node.binaries.get(path)) is not None and binary.version:
            return path
    return ""


def handlers(policy: Policy) -> dict[str, str]:
    """Each runtime handler with the path of its binary: runc, and crun where it is installed."""
    return {name: paths(policy)[name] for name in ("runc", "crun") if name in policy.versions}


def changes(node: Node, policy: Policy) -> list[InstallArtifact | InstallPackage | HoldPackage | RemoveFile]:
    """What has to be installed. What is not at hand for the node's architecture is left out: see `missing`."""
    if policy.install_from == "package":
        return [*_packages(node, policy), *_leftovers(node)]
    return [*_artifacts(node, policy)]


def missing(node: Node, policy: Policy) -> list[Finding]:
    """What cannot be installed here, because the lock file or the bundle does not have it for this architecture."""
    arch = ARCHITECTURES.get(node.machine)
    if arch is None or policy.install_from == "package":  # an unknown architecture is a blocker of its own
        return []
    found = []
    for component, version in policy.versions.items():
        if arch not in policy.lock.architectures(component, version):
            found.append(blocker("artifact-not-locked", policy.lock.missing(component, version, arch)))
        elif policy.bundle and not policy.bundle.find(asset := policy.lock.asset(component, version, arch)):
            found.append(blocker("artifact-not-bundled", policy.bundle.missing(asset, policy.versions.items())))
    return found


def _artifacts(node: Node, policy: Policy) -> list[InstallArtifact]:
    arch = ARCHITECTURES.get(node.machine)
    found = []
    for component, version in policy.versions.items():
        if arch is None or arch not in policy.lock.architectures(component, version):
            continue
        asset = policy.lock.asset(component, version, arch)
        bundled = policy.bundle.find(asset) if policy.bundle else None
        if policy.bundle and not bundled:
            continue
        programs = {member: INSTALLED[name] for member, name in MEMBERS[component].items()}
        why = _why_install(node, asset, list(programs.values()))
        if why:
            size = bundled.size if bundled else None
            found.append(InstallArtifact(component, version, policy.url(asset), asset.sha256, programs, why, size))
    return found


def _why_install(node: Node, asset: Asset, programs: list[str]) -> str:
    """Why the asset's programs must be put in place, or "" where they are what the lock pins."""
    there = [node.binaries.get(path) for path in programs]
    if all(binary is None for binary in there):
        return "it is not installed"
    for path, binary in zip(programs, there, strict=True):
        if binary is None:
            return f"{path} is missing"
        if not binary.recorded:
            shown = f" (it calls itself {binary.version})" if binary.version else ""
            return f"{path} is not as recorded, in content, mode or owner{shown}"
        if binary.version != asset.version:
            return f"{path} is {binary.version}"
        if binary.asset != asset.sha256:
            return f"{path} came from another asset than the lock now pins"
    return ""


def _packages(node: Node, policy: Policy) -> list[InstallPackage | HoldPackage]:
    found: list[InstallPackage | HoldPackage] = []
    for component, version in policy.versions.items():
        package = node.packages.get(component)
        programs = tuple(PACKAGED[name] for name in MEMBERS[component].values())
        if package is None:
            why = "it is not installed"
        elif version not in (of_package(package.version), package.version):
            why = f"{package.version} is installed"
        elif any(_drifted(node.binaries.get(path)) for path in programs):
            why = "its files are not the ones that the record names"
        elif other := [each.version for each in map(node.binaries.get, programs) if each and each.version != version]:
            # A change that went back where apt could not: its files are another version's, whatever dpkg says.
            why = f"its programs are {other[0]}, and {package.version} is installed"
        elif not package.held:
            why = f"{package.version} is not held, so an upgrade of the node would replace it"
            found.append(HoldPackage(component, why))
            continue
        else:
            continue
        found.append(InstallPackage(component, component, version, programs, why))
    return found


def _drifted(binary: Binary | None) -> bool:
    return binary is None or not binary.recorded


def _leftovers(node: Node) -> list[RemoveFile]:
    """What an earlier run installed from a release and that would hide the package's own programs.

    runc and crun stay: shims of running containers still call them by their path.
    """
    found = [
        RemoveFile(INSTALLED[name], "it came from a release and would hide the package's own", restarts=True)
        for name in MEMBERS["containerd"].values()
        if (binary := node.binaries.get(INSTALLED[name])) is not None and binary.recorded
    ]
    state = node.files.get(UNIT)
    if found and state is not None and state.kind == "file":
        found.append(RemoveFile(UNIT, "the package brings its own unit", restarts=True))
    return found
