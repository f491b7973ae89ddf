"""What an operator does after a good run: label the nodes, and see a pod of their own in a user namespace."""

from __future__ import annotations

import atexit
import shlex
from collections.abc import Iterable
from pathlib import Path

import click

LABEL = "userns-node/tier"
TEST_POD = Path(__file__).resolve().parent.parent / "templates" / "test-pod.yaml"
# What the test pod's nodeSelector asks for.
TEST_POD_TIER = "idmapped"

_proven: dict[str, str] = {}
_awaits: list[str] = []


def ready(node: str, tier: str, *, awaits_kubelet: bool = False) -> None:
    """Remember a proven node. What to do next is told once, at the end of the run, for all of them."""
    if not _proven and not _awaits:
        atexit.register(_tell)
    if awaits_kubelet:
        _awaits.append(node)
    else:
        _proven[node] = tier


def _tell() -> None:
    lines = steps(_proven) if _proven else []
    if _awaits:
        lines += restarts(_awaits, "pyinfra INVENTORY tasks.verify.user_namespace, which tells the label")
    click.echo("\n".join(lines), err=True)


def steps(tiers: dict[str, str], instead: str = "") -> list[str]:
    """The lines that tell it, for nodes and their tiers. `instead` is a command that labels them by itself."""
    return [
        "",
        "--> Next: label what is proven, by the names that `kubectl get nodes` has for it:",
        *(f"    {command}" for command in label_commands(tiers)),
        *([f"    or, and no other node: python {instead}"] if instead else []),
        "",
        "--> Then see a pod of your own. It prints its uid_map: 0, a number from 65536 on, 65536",
        *(f"    {command}" for command in pod_commands(tiers)),
        "",
        *(f"    {line}" for line in TEST_POD.read_text("utf-8").splitlines()),
    ]


def restarts(nodes: Iterable[str], then: str) -> list[str]:
    """The lines that tell for which nodes a kubelet has to start anew first. `then` is what labels them afterwards."""
    return [
        "",
        f"--> Restart the kubelet (systemctl restart kubelet) of {', '.join(sorted(nodes))}",
        "    It has another range of IDs than kubelet_id_range. Before that, these nodes should get no pod with",
        "    hostUsers: false, and they get no label.",
        f"    Then: {then}",
    ]


def label_commands(tiers: dict[str, str]) -> list[str]:
    """One command for each tier."""
    return [
        shlex.join(["kubectl", "label", "--overwrite", "node", *sorted(names), f"{LABEL}={tier}"])
        for tier in sorted(set(tiers.values()))
        if (names := [name for name, each in tiers.items() if each == tier])
    ]


def pod_commands(tiers: dict[str, str]) -> list[str]:
    """What runs the test pod on a proven node and shows its uid_map."""
    pod = shlex.quote(str(TEST_POD))
    if TEST_POD_TIER in tiers.values():
        apply = f"kubectl apply -f {pod}"
    else:
        apply = f"sed 's/tier: {TEST_POD_TIER}/tier: {min(tiers.values())}/' {pod} | kubectl apply -f -"
    return [apply, "kubectl logs userns-test"]
