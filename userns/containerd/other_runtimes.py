"""What else on this node is a containerd, or owns, starts or replaces one."""

from __future__ import annotations

from collections.abc import Iterator

from userns import paths
from userns.findings import Finding, blocker, note, warning
from userns.node import ExecDropIn, Node, Unit
from userns.wants import Wants

__all__ = ["check"]

_CONFLICTING = ("containerd.io", "moby-containerd")
# By unit: the product, and the template of its containerd's configuration.
_OTHER_KUBERNETES = {
    "k3s": ("k3s", "config.toml.tmpl"),
    "k3s-agent": ("k3s", "config.toml.tmpl"),
    "rke2-server": ("rke2", "config.toml.tmpl"),
    "rke2-agent": ("rke2", "config.toml.tmpl"),
    "snap.microk8s.daemon-kubelite": ("MicroK8s", "containerd-template.toml"),
}


def check(node: Node, wants: Wants) -> Iterator[Finding]:
    """Every finding, in the order of the checks below."""
    for each in (_unit, _root, _binaries, _packages, _running, _of_others):
        yield from each(node, wants)


def _unit(node: Node, wants: Wants) -> Iterator[Finding]:
    unit = node.units.get("containerd") or Unit()
    if "masked" in (unit.load, unit.enabled):
        yield blocker(
            "containerd-masked",
            "containerd.service is masked: somebody wants it not to run here. If that has passed: "
            "systemctl unmask containerd",
        )
    packaged = wants.install_from == "package"
    programs = paths.installed(wants.install_from)
    drop_in = max(node.exec_drop_ins, key=lambda each: each.path.rpartition("/")[2], default=None)
    # What stays when we are done: a release's unit replaces the one that is there, but for its drop-ins.
    stays = packaged and unit.fragment not in wants.removes
    if drop_in:
        yield from _options(drop_in, wants)
    elif stays:
        config, root = node.config_option, node.root_option
        yield from _options(ExecDropIn(path=unit.fragment, program=unit.program, config=config, root=root), wants)
    elif node.config_option not in ("", paths.CONFIG):
        yield warning(
            "containerd-config-elsewhere",
            f"containerd is configured by {node.config_option} now. After this run it reads {paths.CONFIG}, and "
            "nothing of that file counts: carry over what is to stay (setting containerd_config, or a file in "
            "/etc/containerd/conf.d)",
        )
    program = drop_in.program if drop_in else unit.program
    if program in ("", programs["containerd"]) or (not drop_in and unit.fragment in wants.removes):
        return
    if drop_in or packaged or unit.fragment == paths.UNIT:
        yield warning(
            "containerd-unit-starts-another",
            f"containerd.service ({drop_in.path if drop_in else unit.fragment}) starts {program} and not "
            f"{programs['containerd']}. If a drop-in in {paths.UNIT}.d sets ExecStart, take it away (systemctl cat "
            "containerd); "
            + (
                f"if {paths.UNIT} hides the package's own unit, remove it"
                if packaged
                else "the unit itself is replaced by ours"
            ),
        )


def _options(started: ExecDropIn, wants: Wants) -> Iterator[Finding]:
    """What is written, probed and proven here has to be what containerd runs with."""
    config = started.config if started.config != paths.CONFIG else ""
    root = started.root if started.root.rstrip("/") != wants.containerd_root.rstrip("/") else ""
    options = " ".join((["--config", config] if config else []) + (["--root", root] if root else []))
    if options:
        yield blocker(
            "containerd-ignores-config",
            f"{started.path} starts containerd with {options}: "
            + (f"{paths.CONFIG}, which is written here, is never read" if config else "its root is not containerd_root")
            + f". Take {options} out of that ExecStart, or the file away, and then: systemctl daemon-reload",
            "containerd docs/ops.md, base configuration",
        )


def _root(node: Node, wants: Wants) -> Iterator[Finding]:
    if node.other_root and not wants.image:
        yield blocker(
            "containerd-root-moves",
            f"containerd keeps its containers and images in {node.other_root}, and containerd_root is "
            f"{wants.containerd_root}: it would know none of them any more, while their processes run on. Drain the "
            f"node, remove its containers (crictl rmp --all --force) and take {node.other_root} away, or set "
            "containerd_root to it",
            "containerd docs/ops.md, root",
        )


def _binaries(node: Node, wants: Wants) -> Iterator[Finding]:
    ours = paths.installed(wants.install_from)["containerd"]
    for path, binary in sorted(node.binaries.items()):
        if path.rpartition("/")[2] == "containerd" and path != ours and path not in wants.removes:
            owner = next((name for name in ("containerd", "containerd.io") if name in node.packages), "")
            whose = f" of the package {owner}" if owner and path == paths.PACKAGED["containerd"] else ""
            yield note(
                "containerd-second",
                f"{path} ({binary.version or 'unknown version'}){whose} is a second containerd beside {ours}. It is "
                "left alone; scripts that call containerd or ctr without a path may meet either",
            )


def _packages(node: Node, wants: Wants) -> Iterator[Finding]:
    theirs = [name for name in _CONFLICTING if name in node.packages]
    if wants.install_from == "package" and theirs:
        yield blocker(
            "package-conflicts",
            f"{' and '.join(theirs)} is installed, which cannot stand beside the distribution's containerd and runc: "
            'apt would take it away, and Docker with it. Set install_from = "release", whose containerd stands beside '
            "it, or move Docker off this node",
            "Conflicts of the packages containerd.io (Docker) and moby-containerd (Microsoft)",
        )


def _running(node: Node, wants: Wants) -> Iterator[Finding]:
    """A second one that runs. Two of them at one root: the later one waits for the database for ever."""
    if wants.image:
        return
    for each in node.other_containerds:
        process = f"{each.program or 'a containerd'} (pid {each.pid}, {each.unit or 'of no unit'})"
        if each.uses_root:
            end = f"systemctl disable --now {each.unit}" if each.unit else f"kill {each.pid}"
            yield blocker(
                "containerd-second-running",
                f"{process} runs beside containerd.service and uses {wants.containerd_root}: containerd.service could "
                f"not start with the same root. End it ({end}; its containers run on, and containerd.service takes "
                "them over), or give it a root of its own",
                "containerd docs/ops.md, root and state",
            )
        else:
            yield note(
                "containerd-second-running",
                f"{process} runs beside containerd.service, with a root of its own: it is left alone, and does not use "
                "what is configured here",
            )


def _of_others(node: Node, wants: Wants) -> Iterator[Finding]:
    for name, (product, template) in _OTHER_KUBERNETES.items():
        unit = node.units.get(name)
        if unit and unit.load == "loaded":
            yield blocker(
                "kubernetes-brings-containerd",
                f"{name}.service is here: {product} brings a containerd of its own, and no pod would run in the one "
                f"that is installed here. Configure {product}'s ({template}), or point its kubelet at this one "
                "(--container-runtime-endpoint) and allow this",
                "k3s docs, advanced: using an existing container runtime; canonical/microk8s#4402",
            )
    nodeadm = node.units.get("nodeadm-run")
    if nodeadm and nodeadm.load == "loaded":
        yield warning(
            "config-written-at-boot",
            f"nodeadm-run.service is here (an EKS node): at each boot it writes {paths.CONFIG} anew, and what a deploy "
            "wrote there is gone, which the check after that boot says (file-changed). Give nodeadm what it is to "
            "write (spec.containerd.config of its NodeConfig; snapshotter and runtimes above all), or deploy "
            "again after each boot",
            "amazon-eks-ami nodeadm/internal/containerd/config.go, nodeadm-run.service; amazon-eks-ami#1637",
        )
    crio = node.units.get("crio")
    if crio and crio.active == "active":
        yield blocker(
            "crio-runs",
            "crio.service runs here: a kubelet that uses its socket gets nothing of what is configured and proven for "
            "containerd. Look at the kubelet's containerRuntimeEndpoint, and allow this where it is containerd's",
        )
