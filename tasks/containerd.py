"""Lay the planned files beside the old ones, then change over in one step that can go back."""

from __future__ import annotations

from pyinfra import host

from tasks import image, operations
from tasks.stage import Stage
from userns import changes, paths
from userns.kubelet import subids
from userns.planning import Plan

SLOTS = (*paths.MANAGED, *paths.IMAGE)
# Waiting for another run's lock (300 s), packages, a restart and its health check, and the way back.
CHANGE_SECONDS = 1800


def stage(plan: Plan, stage: Stage) -> None:
    """Queue every planned file's text, and write down what the activation does with the rest of the plan."""
    files = {change.path: change for change in plan.changes if isinstance(change, changes.WriteFile)}
    together: dict[str, str] = {}
    for number, path in host.loop(tuple(enumerate(SLOTS))):
        if file := files.get(path):
            stage.add("put", file.mode, path, f"text{number}", "", "", "")
            if file.keeps:  # what was shown as a diff, and is kept, is what is replaced
                stage.add("unchanged", path, plan.digest(path))
            elif plan.node.image is not None:
                together[f"text{number}"] = file.content
                continue
            operations.put(
                name=f"Stage {path}",
                stage=stage.path,
                filename=f"text{number}",
                content=file.content,
                keep=(path, file.keeps) if file.keeps else (),
            )
    if together:
        image.put(name=f"Stage {len(together)} files", stage=stage.path, texts=together)
    for path in paths.SHARED:
        if path in files:
            stage.add("unchanged", path, plan.digest(path))
    for change in plan.changes:
        match change:
            case changes.HoldPackage(package=package):
                stage.add("hold", package)
            case changes.RemoveFile(path=path):
                stage.add("remove", path)
            case changes.SetSysctl(key=key, value=value):
                stage.add("sysctl", key, str(value))
            case changes.SetMetacopy(value=metacopy):
                stage.add("metacopy", metacopy)
            case changes.AddKubeletUser():
                stage.add("user", "kubelet")
            case changes.EnableService(unit=unit):
                stage.add("enable", unit)
            case changes.RestartService():
                stage.add("restart", "containerd.service")
    removed = [change.path for change in plan.changes if isinstance(change, changes.RemoveFile)]
    # Not in an image: the kernel that runs is the build host's, and the first boot sets metacopy itself.
    if plan.node.image is None and paths.MODPROBE in (*files, *removed):
        stage.add("initramfs", "update")  # it may hold a copy, from which overlay is loaded
    ids = plan.policy.kubelet_id_range
    if ids and plan.node.image is None and subids.differ(plan.node, ids):
        stage.add("range", "kubelet.service")  # which goes on with the one that it has
    if plan.needs_empty_node:
        stage.add("no-tasks")
    stage.add("containerd", plan.programs["containerd"])
    stage.add("health", plan.programs["ctr"], plan.snapshotter)


def activate(plan: Plan, stage: Stage) -> None:
    """Queue the change-over."""
    if plan.node.image is not None:
        image.activate(
            name="Put in place, start nothing", stage=stage.path, actions=stage.text, _timeout=CHANGE_SECONDS
        )
        return
    restarts = any(isinstance(change, changes.RestartService) for change in plan.changes)
    operations.activate(
        name="Change over, restart containerd, check its health" if restarts else "Change over",
        stage=stage.path,
        token=stage.token,
        actions=stage.text,
        told=tuple(f"what was in {each.path} is kept as {each.keeps}" for each in _keeping(plan)),
        _timeout=CHANGE_SECONDS,
    )


def _keeping(plan: Plan) -> list[changes.WriteFile]:
    return [change for change in plan.changes if isinstance(change, changes.WriteFile) and change.keeps]
