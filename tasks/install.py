"""Bring the wanted versions of containerd, runc and crun onto a node, beside what runs there."""

from __future__ import annotations

from pyinfra import host
from pyinfra.api.exceptions import PyinfraError

from artifacts.errors import ArtifactsError
from tasks import image, operations, pushing, settings
from tasks.stage import Stage
from userns.changes import InstallArtifact, InstallPackage
from userns.planning import Plan
from userns.releases import COMPONENTS


def stage(plan: Plan) -> Stage:
    """Queue the downloads and pushes that the plan names, and return the stage that they fill."""
    stage = Stage()
    stage.add("expect", plan.manifest)
    artifacts = {change.component: change for change in plan.changes if isinstance(change, InstallArtifact)}
    packages = [change for change in plan.changes if isinstance(change, InstallPackage)]
    # The same slots on every host: pyinfra orders operations by their place in the code.
    for component in host.loop(COMPONENTS):
        if artifact := artifacts.get(component):
            _stage_artifact(stage, artifact, plan)
    if packages:
        for package in packages:
            stage.add("package", package.package)
            for path in package.programs:
                stage.add("save", path)
                stage.add("record", path, package.component, package.version, "package")
        operations.download_packages(
            name=f"Download packages {', '.join(each.package for each in packages)}",
            stage=stage.path,
            packages=[(each.package, each.version) for each in packages],
        )
    return stage


def _stage_artifact(stage: Stage, artifact: InstallArtifact, plan: Plan) -> None:
    names = {member: path.rpartition("/")[2] for member, path in artifact.programs.items()}
    for member, path in artifact.programs.items():
        stage.add("put", "755", path, names[member], artifact.component, artifact.version, artifact.sha256)
    if artifact.pushed is None:
        fetch = operations.fetch if plan.node.image is None else image.fetch
        fetch(
            name=f"Fetch {artifact.component} {artifact.version} and verify its SHA-256",
            stage=stage.path,
            url=artifact.url,
            sha256=artifact.sha256,
            programs=names,
            proxy=plan.policy.release_proxy,
        )
        return
    bundle = settings.bundle(plan.policy)
    asset = next(each for each in bundle.bundle.assets if each.sha256 == artifact.sha256)
    try:
        bundle.prove(asset)  # here, once for all hosts, and not after it was sent to each
    except ArtifactsError as error:
        raise PyinfraError(str(error)) from error
    pushing.install()
    pushing.shown.progress.expect(asset.size)
    operations.push(
        name=f"Push {artifact.component} {artifact.version} from the bundle and verify its SHA-256",
        stage=stage.path,
        bundle=bundle,
        asset=asset,
        programs=names,
    )
