"""What an image has for its first boot: what a deploy would write for each kind of kernel, and what picks from it.

Pure, and decides nothing new: config.toml and the check are rendered as for a running node, once for each tier that a
kernel can give. On the node a shell asks the kernel (by the check itself) and takes the rendering of the answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from userns import check, paths, render
from userns.containerd import config
from userns.image import kernels
from userns.policy import Policy
from userns.readiness import Readiness

__all__ = ["files"]


def files(
    templates: Mapping[str, str], policy: Policy, kernel: str, ready: Readiness, expected: check.Expected
) -> Iterator[tuple[str, str, str | None]]:
    """Path, purpose and text of each file; None where a kernel of that kind gives nothing else under this policy.

    `kernel` and `ready` are what the image is baked for, and `expected` is what its own check expects beside.
    """
    tiers = {**kernels.outcomes(policy), ready.tier: ready}
    configs = {_name(each): each for each in reversed(tiers.values())} | {_name(ready): ready}
    for name, path in paths.CONFIG_FOR.items():
        text = config.render(templates, config.of_policy(policy, configs[name])).text if name in configs else None
        yield (
            path,
            f"what config.toml is on a kernel that needs {'slow_chown' if name != 'idmapped' else 'nothing'}",
            text,
        )
    for tier, path in paths.CHECK_FOR.items():
        text = check.text(templates, policy, tiers[tier], expected) if tier in tiers else None
        yield path, f"what the check is on a kernel that gives the tier {tier}", text
    picks = tuple((tier, _name(each)) for tier, each in tiers.items())
    yield (
        paths.FIRST_BOOT,
        "fits the image to the kernel that it boots",
        render.fill(
            templates,
            "first-boot.sh.j2",
            paths=paths,
            kernel=kernel,
            tier=ready.tier,
            picks=picks,
            max_user_namespaces=expected.max_user_namespaces,
        ),
    )
    yield (
        paths.FIRST_BOOT_UNIT,
        "runs that before containerd",
        render.fill(templates, "userns-node-first-boot.service.j2", paths=paths),
    )


def _name(ready: Readiness) -> str:
    return "slow-chown" if ready.slow_chown else "idmapped"
