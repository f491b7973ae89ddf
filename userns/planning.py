"""The plan: from what a node is and what is wanted to decisions, findings and the exact changes. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date

from userns import advisories, conflicts, files, programs, readiness, readiness_table, render, requirements, upgrades
from userns.changes import (
    AddKubeletUser,
    Change,
    EnableService,
    InstallArtifact,
    InstallPackage,
    RemoveFile,
    RemoveLeftovers,
    RemoveMetrics,
    RestartService,
    SetMetacopy,
    SetSysctl,
    WriteFile,
)
from userns.containerd import dropins, lost_keys, runtime_handlers, unit_settings
from userns.findings import RESTART_NEEDED, Finding, Severity, apply_allow
from userns.image import kernels, record, sbom
from userns.node import Node, Unit
from userns.paths import CHECK_UNIT, FIRST_BOOT_UNIT, IMAGE_RECORD, IMAGE_SBOM, PRE_START, UNIT
from userns.policy import Policy
from userns.readiness import Readiness


@dataclass(frozen=True, slots=True)
class Decision:
    """Something decided for this node, with its reason and where the rule comes from."""

    name: str
    value: str
    reason: str
    source: str = ""

    def __str__(self) -> str:
        reason = f": {self.reason}" if self.reason else ""
        return f"{self.name} {self.value}{reason}" + (f" ({self.source})" if self.source else "")


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to happen on one node, and why.

    `programs` maps a program's name to its path after the change; `handlers` maps a runtime handler to the path
    of its binary; `manifest` is the digest of the record that the plan was made from ("" where there is none).
    """

    node: Node
    policy: Policy
    readiness: Readiness
    decisions: tuple[Decision, ...]
    findings: tuple[Finding, ...]
    changes: tuple[Change, ...]
    programs: Mapping[str, str]
    handlers: Mapping[str, str]

    @property
    def blockers(self) -> tuple[Finding, ...]:
        """The findings that refuse this node."""
        return tuple(each for each in self.findings if each.severity is Severity.BLOCKER)

    @property
    def refused(self) -> bool:
        """Whether the node must be left as it is."""
        return bool(self.blockers)

    @property
    def proves(self) -> bool:
        """Whether a deploy starts containers: after a change, and until the proof of the last one has succeeded."""
        return bool(self.changes) or self.node.unproven

    @property
    def awaits_kubelet(self) -> bool:
        """Whether a kubelet has to start anew before this node can have pods with a user namespace."""
        return any(each.id == RESTART_NEEDED for each in self.findings)

    @property
    def steps(self) -> tuple[str, ...]:
        """What a deploy does here, a line each: the changes, or the proof where nothing else is left to do."""
        again = "prove the last change: it was not proven yet, or its proof failed"
        return tuple(each.summary for each in self.changes) or ((again,) if self.node.unproven else ())

    @property
    def manifest(self) -> str:
        """The digest of the node's record when the plan was made, "" where there was none."""
        return self.node.manifest

    @property
    def metacopy(self) -> str:
        """Overlay's metacopy after this plan, Y or N; "" where that is not known."""
        wanted = files.wants_metacopy(self.node, self.policy, self.readiness)
        return self.node.overlay.metacopy if wanted is None else "Y" if wanted else "N"

    @property
    def snapshotter(self) -> str:
        """The snapshotter whose plugin must be healthy."""
        return self.policy.snapshotter

    @property
    def needs_empty_node(self) -> bool:
        """Whether no task may run when the change is made."""
        return upgrades.needs_empty_node(self.node, self.policy)

    def exists(self, path: str) -> bool:
        """Whether the node has this managed file already."""
        state = self.node.files.get(path)
        return state is not None and state.kind != "absent"

    def digest(self, path: str) -> str:
        """The digest of this managed file when the plan was made, "" where there was none."""
        state = self.node.files.get(path)
        return state.sha256 if state else ""


def prepare(policy: Policy, templates: Mapping[str, str], *, image: bool) -> None:
    """Make what `plan` will want whatever the node is, and keep it: there is time for it while a node is being read."""
    readiness_table.of_policy(policy)
    render.prepare(templates)
    if image:
        sbom.prepare()


def plan(node: Node, policy: Policy, templates: Mapping[str, str], today: date | None = None) -> Plan:
    """The plan for `node` under `policy`. The same input gives the same plan, in the same order.

    `templates` holds the text of each file in templates/ by name; `today` dates end-of-life findings (None: no
    such findings).
    """
    node = kernels.booting(node, policy)
    ready = readiness.of_node(node, policy)
    paths = programs.paths(policy)
    handlers = programs.handlers(policy)
    kept_off = files.says(node, PRE_START, render.pre_start(templates, metacopy=False))
    in_the_way = conflicts.of_node(node, policy, ready, metacopy_kept_off=kept_off)
    wanted = files.wanted(node, policy, ready, templates, tuple(in_the_way))

    found = [
        *kernels.findings(node, policy),
        *kernels.of_its_kernel(node, policy, ready.findings),
        *requirements.of_policy(node, policy),
        *advisories.of_policy(policy, today),
    ]
    if node.image is not None:  # what else is found hangs on what lies in the tree already
        told = record.text(node, policy, ready, apply_allow(found, policy.allow))
        wanted = wanted.with_text(IMAGE_RECORD, told, "what this image is, and why")
        bill = sbom.text(node, policy)
        wanted = wanted.with_text(IMAGE_SBOM, bill, "what was installed in this image, as CycloneDX")
    findings = [
        *found,
        *upgrades.of_node(node, policy),
        *programs.missing(node, policy),
        *in_the_way,
        *unit_settings.lost(node, wanted.texts.get(UNIT)),
        *wanted.findings,
        *dropins.lint(node.drop_ins, policy.config_version, wanted.config),
        *runtime_handlers.lost(node, policy.config_version, wanted.config),
        *lost_keys.lost(node, policy, wanted.config),
        *lost_keys.cni_elsewhere(node, policy, wanted.config),
    ]
    changes = _changes(node, policy, ready, wanted)
    return Plan(
        node=node,
        policy=policy,
        readiness=ready,
        decisions=_decisions(node, policy, ready),
        findings=apply_allow(list(dict.fromkeys(findings)), policy.allow),
        changes=changes,
        programs=paths,
        handlers=handlers,
    )


def _changes(node: Node, policy: Policy, ready: Readiness, wanted: files.Wanted) -> tuple[Change, ...]:
    installs = programs.changes(node, policy)
    written = files.changes(node, policy, wanted)
    live = _live(node, policy, ready)
    users: list[Change] = []
    if policy.kubelet_id_range is not None and not node.kubelet_user:
        users.append(AddKubeletUser("the kubelet looks up its range of ids by this name"))
    stale: list[Change] = []
    if node.stale_metrics and node.image is None:
        stale.append(RemoveMetrics(node.stale_metrics, f"{CHECK_UNIT.rpartition('/')[2]} no longer writes it"))
    if node.image is not None and node.image.leftovers:
        stale.append(
            RemoveLeftovers(node.image.leftovers, "an image does not need it, and a bake that was cut off leaves it")
        )
    return (*installs, *users, *written, *live, *stale, *_service(node, [*installs, *written]))


def _live(node: Node, policy: Policy, ready: Readiness) -> list[Change]:
    """Values of the running kernel. A container shares its kernel with others, and in an image none runs."""
    if node.container != "none" or node.image is not None:
        return []
    live: list[Change] = []
    key = files.MAX_USER_NAMESPACES
    needed, value = files.max_user_namespaces(node, policy), node.sysctls.get(key)
    if value is not None and value < needed:
        figure = files.raised_user_namespaces(node, policy)
        live.append(SetSysctl(key, figure, f"it is {value}, too few for {policy.max_pods} pods"))
    metacopy = files.wants_metacopy(node, policy, ready)
    if metacopy is not None and node.overlay.state != "absent":
        wanted = "Y" if metacopy else "N"
        # Of a module that is not loaded, modprobe.d decides; the hook loads it before containerd.
        now = node.overlay.metacopy or node.overlay.default
        if now not in ("", wanted) or (metacopy and node.overlay.metacopy == ""):
            live.append(SetMetacopy(wanted, "only mounts made from now on follow it"))
    return live


def _service(node: Node, changes: Sequence[Change]) -> list[Change]:
    service: list[Change] = []
    units = (CHECK_UNIT,) if node.image is None else (CHECK_UNIT, FIRST_BOOT_UNIT)
    for name in ("containerd", *(path.rpartition("/")[2].removesuffix(".service") for path in units)):
        enabled = node.units.get(name, Unit()).enabled
        if enabled not in ("enabled", "static"):
            service.append(EnableService(f"it is {enabled or 'not there yet'}", f"{name}.service"))
    unit = node.units.get("containerd", Unit())
    if node.image is None and (reason := _why_restart(node, unit, changes)):
        service.append(RestartService(reason))
    return service


def _why_restart(node: Node, unit: Unit, changes: Sequence[Change]) -> str:
    installed = [each.component for each in changes if isinstance(each, InstallArtifact | InstallPackage)]
    if unit.active != "active":
        return f"it is {unit.active}"
    if installed:
        # containerd asks a runtime once, when it starts, what it can do.
        return f"new {', '.join(installed)}"
    if rewritten := [each.path for each in changes if isinstance(each, WriteFile | RemoveFile) and each.restarts]:
        return f"new {', '.join(rewritten)}"
    if node.unfinished:
        return "an earlier change was cut off"
    return ""


def _decisions(node: Node, policy: Policy, ready: Readiness) -> tuple[Decision, ...]:
    metacopy = files.wants_metacopy(node, policy, ready)
    stays = policy.overlay_metacopy == "auto" and ready.rootfs != "chown"
    why_metacopy = {
        True: "it is on, and layers that were chowned with it are unreadable without it"
        if stays
        else "a rootfs that is chowned copies inodes then, not data; it costs nothing where none is",
        False: "the settings turn it off",
        None: "the settings leave it as it is where no rootfs is chowned",
    }[metacopy]
    decisions = [
        Decision("tier", ready.tier, ready.summary),
        *(
            Decision(component, version, f"from a {policy.install_from}")
            for component, version in policy.versions.items()
        ),
        Decision(
            "config.toml version",
            str(policy.config_version),
            "containerd 1.x reads at most 2" if policy.config_version == 2 else "every containerd 2.x reads it",
            "containerd RELEASES.md, configuration versions",
        ),
    ]
    if policy.config_version > 2:
        decisions.append(Decision("slow_chown", str(ready.slow_chown).lower(), ready.slow_chown_reason))
    decisions.append(
        Decision("metacopy", {True: "Y", False: "N", None: "unchanged"}[metacopy], why_metacopy, "overlayfs.rst")
    )
    decisions += [Decision("because", statement, "", source) for statement, source in ready.reasons]
    return tuple(decisions)
