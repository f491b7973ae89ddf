"""An image: a root directory that boots later. Which kernel that will be, and what is baked for another one. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from userns import readiness, readiness_table
from userns.findings import Finding, blocker, note, warning
from userns.node import ImageKernel, Node, Overlay, Probe
from userns.policy import Policy
from userns.readiness import Readiness, Tier

__all__ = ["booting", "findings", "outcomes"]

_NO_KERNEL = "image-has-no-kernel"
UNPROBED = "an image is probed when it boots, on its own kernel"


def booting(node: Node, policy: Policy) -> Node:
    """An image as a node with the kernel that it will boot; any other node as it is.

    What only a running kernel can tell is unknown: neither the build host's file systems nor its values take part.
    """
    if node.image is None:
        return node
    kernel = _kernel(node, policy)
    if kernel is None:
        release, overlay = policy.target_kernel or "", Overlay()
    else:
        release, overlay = kernel.release, _overlay(kernel)
    return node.model_copy(
        update={
            "kernel": release,
            "overlay": overlay,
            "probes": {name: Probe(result="unknown", detail=UNPROBED) for name in node.probes},
            "filesystems": {name: each.model_copy(update={"type": ""}) for name, each in node.filesystems.items()},
        }
    )


def _kernel(node: Node, policy: Policy) -> ImageKernel | None:
    """The wanted kernel among those of the image: by its whole release, else the newest of its version."""
    kernels = node.image.kernels if node.image else ()
    wanted = policy.target_kernel
    if wanted is None:
        return next(iter(kernels), None)
    exact = next((each for each in kernels if each.release == wanted), None)
    return exact or next((each for each in kernels if _of_version(each.release, wanted)), None)


def _of_version(release: str, version: str) -> bool:
    """Whether `release` is one of `version`: "6.12.48-amd64" of "6.12" and "6.12.48", but not of "6.1"."""
    return release.startswith(version) and not release[len(version) : len(version) + 1].isalnum()


def _overlay(kernel: ImageKernel) -> Overlay:
    """How that kernel will have overlay: by its modules, else by its configuration."""
    state: str = kernel.overlay
    if state in ("absent", "unknown") and "CONFIG_OVERLAY_FS" in kernel.config:
        state = {"y": "builtin", "m": "module", "n": "absent"}.get(kernel.config["CONFIG_OVERLAY_FS"], state)
    metacopy = {"y": "Y", "n": "N"}.get(kernel.config.get("CONFIG_OVERLAY_FS_METACOPY", ""), "")
    return Overlay.model_validate({"state": state, "metacopy" if state == "builtin" else "default": metacopy})


def findings(node: Node, policy: Policy) -> Iterator[Finding]:
    """What is special about an image, or about a node that is taken for one."""
    if node.image is None:
        if policy.target_kernel is not None:
            yield blocker(
                "target-kernel-without-image",
                f"target_kernel = {policy.target_kernel!r} is for images, and this node runs: its kernel is "
                f"{node.kernel}. Take the setting out, or bake an image with inventories/golden.py",
            )
        return
    if policy.install_from == "package":
        yield blocker(
            "image-without-packages",
            'install_from = "package" is not available for images: nothing in an image reaches the network. Install '
            "from releases, or let the image's builder install the packages and deploy when it runs",
        )
    kernel = _kernel(node, policy)
    yield from _which_kernel(node, policy, kernel)
    if kernel is not None and kernel.config.get("CONFIG_USER_NS") == "n":
        yield blocker(
            "kernel-lacks-user-namespaces",
            f"Linux {kernel.release} in this image was built without CONFIG_USER_NS: install one that has it",
            "user_namespaces(7)",
        )


def of_its_kernel(node: Node, policy: Policy, found: Iterable[Finding]) -> Iterator[Finding]:
    """What was `found` of the kernel's abilities, without what there is no kernel for: _NO_KERNEL says what to do.

    Where that is allowed, the image would be baked, and what nobody knows counts again as what it cannot do.
    """
    nothing_to_judge = node.image is not None and not node.kernel and _NO_KERNEL not in policy.allow
    for each in found:
        if not (nothing_to_judge and each.id.endswith(("-cannot-idmap", "idmap-not-probed"))):
            yield each


def _which_kernel(node: Node, policy: Policy, kernel: ImageKernel | None) -> Iterator[Finding]:
    kernels = node.image.kernels if node.image else ()
    releases = ", ".join(each.release for each in kernels)
    if kernel is None and policy.target_kernel is None:
        yield blocker(
            _NO_KERNEL,
            "there is no kernel in the image's /lib/modules, and what it can do decides. Install one, or name the "
            'kernel that the image will boot with: target_kernel = "6.12"',
        )
    elif kernel is None:
        yield warning(
            "image-lacks-target-kernel",
            f"the image has no Linux {policy.target_kernel} "
            + (
                f"(it has {releases}): it will boot one of these, unless it is given a kernel from outside"
                if releases
                else "(it has none): it has to be given one from outside"
            ),
        )
    elif len(kernels) > 1:
        why = "the newest one" if policy.target_kernel is None else "the one that target_kernel names"
        same = {_tier(each.release, policy) for each in kernels} == {_tier(kernel.release, policy)}
        kind = note if same else warning
        yield kind(
            "image-several-kernels",
            f"the image has several kernels ({releases}), and it is baked for {kernel.release}, {why}. "
            + (
                "The others give the same tier"
                if same
                else "The others do not all give the same tier: what is baked "
                "is corrected at boot, but remove those that are not to be booted"
            ),
        )


def _tier(kernel: str, policy: Policy) -> Tier:
    return _of_kernel(kernel, policy).tier


def _of_kernel(kernel: str, policy: Policy) -> Readiness:
    return readiness.assess(
        **readiness.inputs(policy),
        kernel=kernel,
        paths={"containerd-root": policy.containerd_root, "kubelet-root": policy.kubelet_root},
        unprobed=UNPROBED,
    )


def outcomes(policy: Policy) -> Mapping[Tier, Readiness]:
    """What upstream's kernels, from the newest to the oldest, make of this policy: the readiness for each tier.

    An image has what a deploy would write for each of them, so that its first boot has only to choose.
    """
    found: dict[Tier, Readiness] = {}
    bounds = readiness_table.boundaries()
    for kernel in (*(str(each) for each in reversed(bounds)), "5.0"):
        ready = _of_kernel(kernel, policy)
        found.setdefault(ready.tier, ready)
    return found
