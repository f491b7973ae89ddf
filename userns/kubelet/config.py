"""What a kubelet's own configuration has to say so that it goes with the settings: feature gates, maxPods and so on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from urllib.parse import urlsplit

from userns.findings import Finding, blocker, note, warning
from userns.kubelet.idrange import ID_BLOCK, MAX_PODS
from userns.kubelet.ids import does
from userns.node import Node
from userns.tables import GATES, Gate
from userns.versions import parse, reaches

__all__ = ["KubeletSettings", "contradictions", "gates", "keeps_driver", "running"]

# KubeletConfiguration's own defaults.
_MAX_PODS, _IDS_PER_POD = str(MAX_PODS), str(ID_BLOCK)
_ENDPOINT = "/run/containerd/containerd.sock"
_GATE, _OLD_GATE = "UserNamespacesSupport", "UserNamespacesStatelessPodsSupport"


@dataclass(frozen=True, slots=True)
class KubeletSettings:
    """The settings that the kubelet has to share."""

    containerd: str
    cgroup_driver: str = "systemd"
    max_pods: int = MAX_PODS
    ids_per_pod: int = ID_BLOCK


def gates(
    kubernetes: str, settings: KubeletSettings | None = None, told: Mapping[str, str] = MappingProxyType({})
) -> list[Finding]:
    """What to do about feature gates, with the lines that a kubelet's configuration needs.

    Without `settings`, only what the version asks for. `told`: what the kubelet on the node has already.
    """
    rows = _rows(kubernetes)
    gate = _needed(rows)
    lines = tuple(_lines(kubernetes, gate, settings, told))
    findings = []
    for row in rows:
        message = row.message.format(kubernetes=kubernetes)
        if row is rows[0] and lines:
            message += ". The configuration of each kubelet (KubeletConfiguration) needs these lines"
            if any("idsPerPod" in line for line in lines):
                message += "; idsPerPod only while no pod with a user namespace is on its node, or it does not start"
        findings.append(note("kubernetes-feature-gates", message, row.source, lines if row is rows[0] else ()))
    return findings


def _rows(kubernetes: str) -> list[Gate]:
    version = parse(kubernetes)
    return [row for row in GATES if version in row.kubernetes]


def _needed(rows: Sequence[Gate]) -> str:
    """The gate that is off by default there, "" where none has to be set."""
    return next((row.gate for row in rows if row.gate), "")


def _lines(kubernetes: str, gate: str, settings: KubeletSettings | None, told: Mapping[str, str]) -> Iterator[str]:
    """In YAML: only what differs from the kubelet's own defaults, and is not there yet."""
    if gate and told.get(gate) != "true":
        yield "featureGates:"
        yield f"  {gate}: true"
    if settings is None:
        return
    driver = settings.cgroup_driver
    if not _finds_cgroup_driver(kubernetes, settings.containerd) and told.get("cgroupDriver") != driver:
        yield f"cgroupDriver: {driver}"
    pods = str(settings.max_pods)
    if pods != told.get("maxPods", _MAX_PODS):
        yield f"maxPods: {pods}"
    ids = str(settings.ids_per_pod)
    # From 1.33 on the field is there, and ignored: it would take effect with the upgrade to 1.35, under running pods.
    if does("reads-ids-per-pod", kubernetes) and ids != told.get("idsPerPod", _IDS_PER_POD):
        yield "userNamespaces:"
        yield f"  idsPerPod: {ids}"


def _finds_cgroup_driver(kubernetes: str, containerd: str) -> bool:
    """Whether the kubelet asks containerd for the driver, and gets an answer."""
    return does("asks-containerd-for-cgroup-driver", kubernetes) and reaches(containerd, "2.0")


def contradictions(
    kubernetes: str, settings: KubeletSettings, told: Mapping[str, str], works: bool = False
) -> Iterator[Finding]:
    """What a kubelet has been told against the settings. One that `works` has a driver also where it is told none."""
    wrong = []
    if told.get(_GATE) == "false":
        wrong.append(f"{_GATE}: false, which turns user namespaces off (from 1.36 on the kubelet does not start then)")
    if _OLD_GATE in told and does("has-one-gate", kubernetes):
        wrong.append(f"{_OLD_GATE}, which is gone: the kubelet does not start with a gate that it does not know")
    if (works or "cgroupDriver" in told) and not _finds_cgroup_driver(kubernetes, settings.containerd):
        driver, whence = _own_driver(told)
        if driver != settings.cgroup_driver:
            wrong.append(
                f"cgroupDriver {driver} ({whence}), and cgroup_driver is {settings.cgroup_driver}: pods would not start"
            )
    for name, setting, value in (
        ("maxPods", "max_pods", settings.max_pods),
        ("idsPerPod", "ids_per_pod", settings.ids_per_pod),
    ):
        if told.get(name, str(value)) != str(value):
            wrong.append(f"{name} {told[name]}, and {setting}, by which ranges and limits are sized, is {value}")
    if wrong:
        yield warning(
            "kubelet-config-differs",
            f"the kubelet's configuration has {'; '.join(wrong)}. Make the two agree",
            "Kubernetes docs, kubelet-config.v1beta1",
        )


def running(node: Node, kubelet_root: str, kubernetes: str) -> Iterator[Finding]:
    """Where the kubelet that runs, of the version `kubernetes`, is not the one that the settings are for.

    Of one that does not run only a file is known, which flags may overrule, and a node may be on its way from one
    runtime to another just then: that is told, and stops nothing.
    """
    kubelet, endpoint = node.running_kubelet, _other_runtime(node.kubelet_config)
    if kubelet is None:
        if endpoint:
            yield warning(
                "kubelet-uses-another-runtime",
                f"no kubelet runs here, and the configuration of the next one, {kubelet_root.rstrip('/')}/config.yaml, "
                f"has containerRuntimeEndpoint {endpoint}. The containerd that this run sets up listens on "
                f"{_ENDPOINT}: unless a flag of the kubelet's says otherwise, no pod would use it. Set "
                f"containerRuntimeEndpoint: unix://{_ENDPOINT} there before you start it",
                "KubeletConfiguration containerRuntimeEndpoint, kubelet --container-runtime-endpoint",
            )
        return
    if not kubelet.uses_root:
        yield blocker(
            "kubelet-root-differs",
            f"the kubelet that runs here has its root in {kubelet.root}, and kubelet_root is {kubelet_root}: what was "
            "probed and would be proven there says nothing of its pods. Set kubelet_root to the kubelet's --root-dir",
            "kubelet --root-dir",
        )
    yield from _gate_off(node.kubelet_config, kubernetes)
    if endpoint:
        yield blocker(
            "kubelet-uses-another-runtime",
            f"the kubelet that runs here uses {endpoint}, and the containerd that this run sets up listens on "
            f"{_ENDPOINT}: it would be installed and proven, and no pod would use it. Leave this node out; or, if it "
            "is to move to containerd, allow this for the run, and drain the node and set "
            f"containerRuntimeEndpoint: unix://{_ENDPOINT} (flag: --container-runtime-endpoint) right after it",
            "KubeletConfiguration containerRuntimeEndpoint, kubelet --container-runtime-endpoint",
        )


def keeps_driver(node: Node, settings: KubeletSettings, kubernetes: str, containerd: str) -> Iterator[Finding]:
    """A kubelet that works beside `containerd` ("": not known), and would have another driver after the run."""
    before, wanted = node.cgroup_driver, settings.cgroup_driver
    if not before or not containerd or _other_runtime(node.kubelet_config):
        return
    own, whence = _own_driver(node.kubelet_config)
    asked = _finds_cgroup_driver(kubernetes, containerd)
    if own == wanted or _finds_cgroup_driver(kubernetes, settings.containerd):
        # A restart is enough, and one that does not run has that before it.
        now, why = (before, "containerd had it") if asked else (own, f"containerd {containerd} tells none; {whence}")
        if now != wanted and node.running_kubelet:
            yield _keeps(
                f"the kubelet that runs here uses the cgroup driver {now} ({why}), and cgroup_driver is {wanted}. It "
                "asks containerd when it starts and not again: after this run no new pod would start until it is "
                f'restarted. Set cgroup_driver = "{now}"; or drain the node, allow this, and restart the kubelet right '
                "after the run"
            )
    elif before != wanted:
        silent = not does("asks-containerd-for-cgroup-driver", kubernetes)
        reader = f"a kubelet {kubernetes} does not ask" if silent else f"containerd {settings.containerd} tells none"
        yield _keeps(
            f"the kubelet here has the cgroup driver {own} ({whence}; {reader}), and cgroup_driver is {wanted}, which "
            "containerd did not have so far: after this run no new pod would start, nor after a restart of the kubelet "
            f'alone. Set cgroup_driver = "{own}"; or drain the node, allow this, and right after the run set '
            f"cgroupDriver: {wanted} in the kubelet's configuration and restart it"
        )
    elif asked:
        yield _keeps(
            f"containerd {containerd} tells the kubelet here the cgroup driver {wanted}, and {settings.containerd} "
            f"tells none: from its next start on the kubelet would use {own} ({whence}), and no new pod would start. "
            f"Set cgroupDriver: {wanted} in the kubelet's configuration first: until then it changes nothing"
        )
    # else they differ already: this run makes nothing worse, and a warning says so


def _other_runtime(told: Mapping[str, str]) -> str:
    """The endpoint of a kubelet that uses another runtime, "" where it uses containerd's."""
    endpoint = told.get("containerRuntimeEndpoint", "")
    try:
        ours = endpoint in ("", "null", "~") or urlsplit(endpoint).path.removeprefix("/var") == _ENDPOINT
    except ValueError:  # brackets, as of a template that nobody has filled in
        ours = False
    return "" if ours else endpoint


def _own_driver(told: Mapping[str, str]) -> tuple[str, str]:
    """The driver of a kubelet that is told none by containerd, and where it has that from."""
    if (driver := told.get("cgroupDriver", "")) in ("systemd", "cgroupfs"):
        return driver, "its own configuration has it"
    return "cgroupfs", "its default, as its own configuration names none"


def _keeps(message: str) -> Finding:
    return blocker("kubelet-keeps-cgroup-driver", message, "KEP-4033; kubernetes.io, configuring a cgroup driver")


def _gate_off(told: Mapping[str, str], kubernetes: str) -> Iterator[Finding]:
    """With the gate off a kubelet refuses pods in a user namespace (pkg/kubelet/userns/userns_manager.go)."""
    needed = _needed(_rows(kubernetes))
    if (off := needed or _GATE) in told and told[off] == "false":
        yield blocker(
            "user-namespaces-gate-off",
            f"the kubelet that runs here has {off}: false: every pod with hostUsers: false fails on this node. "
            + (f"Set {off}: true in" if needed else "Take that out of")
            + " its configuration, and restart it",
            "KEP-127",
        )
    elif needed and told.get(needed) != "true":
        yield warning(
            "user-namespaces-gate-off",
            f"the kubelet that runs here is {kubernetes}, where {needed} is off by default, and neither its "
            "configuration nor its flags turn it on, as far as they were read (AllAlpha and AllBeta are not): pods "
            "with hostUsers: false fail here, and where the API server has it off too, they run without a user "
            "namespace and nobody says so",
            "KEP-127; kubernetes/kubernetes#126484",
        )
