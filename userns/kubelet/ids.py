"""The kubelet's range of IDs on a node: whether the kubelet starts with it, and whether what is there agrees.

A kubelet that finds a user `kubelet` asks getsubids for its range; one that finds none takes all IDs from the first
block on. It refuses to start with a range that breaks the rules of userns.kubelet.idrange, and with pods on record
whose IDs are not in its range.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from userns import paths
from userns.findings import Finding, Severity, blocker, warning
from userns.kubelet import own_ids, programs, subids
from userns.kubelet.idrange import (
    ID_BLOCK,
    ID_SPACE,
    MAX_PODS,
    SHOWN,
    IdRange,
    free_range,
    inside,
    overlap,
    range_problems,
    shown,
    some,
)
from userns.node import Node, PodIds, Unit
from userns.tables import KUBELETS, NEWEST_KUBERNETES
from userns.versions import parse

__all__ = ["RangeWanted", "does", "findings"]

_RULES = "kubernetes/kubernetes pkg/kubelet/userns/userns_manager.go, kubelet_pods.go"
_LENGTH = "wrong user namespace length"
_BEFORE_PODS = (
    ", before a pod with hostUsers: false starts on this node: one that gets its IDs from the old range keeps the "
    "kubelet from starting again"
)


@dataclass(frozen=True, slots=True)
class RangeWanted:
    """The settings that concern the range. `image`: the node is a root directory that boots later."""

    range: IdRange | None = None
    kubernetes: str = ""
    ids_per_pod: int = ID_BLOCK
    max_pods: int = 110
    image: bool = False


def does(behaviour: str, kubernetes: str) -> bool:
    """Whether a kubelet of this version does what the table `kubelet` knows by this name."""
    return parse(kubernetes or NEWEST_KUBERNETES) in KUBELETS[behaviour].kubernetes


def findings(node: Node, wanted: RangeWanted) -> Iterator[Finding]:
    """What is wrong with the range that the kubelet has, or is to get."""
    yield from _Kubelet(node, wanted).findings()


@dataclass(frozen=True)
class _Kubelet:
    """The kubelet of a node: the one that is installed, else the one that the settings name."""

    node: Node
    wanted: RangeWanted

    @cached_property
    def version(self) -> str:
        return self.node.kubelet_version or self.wanted.kubernetes

    @cached_property
    def ids_per_pod(self) -> int:
        if not does("reads-ids-per-pod", self.version):
            return ID_BLOCK
        return self._told("idsPerPod", self.wanted.ids_per_pod, ID_BLOCK)

    @cached_property
    def max_pods(self) -> int:
        return self._told("maxPods", self.wanted.max_pods, MAX_PODS)

    def _told(self, name: str, wanted: int, default: int) -> int:
        """What the kubelet goes by: what it was told, or where it runs and was not, its own default."""
        told = self.node.kubelet_config.get(name, "")
        if re.fullmatch(r"[1-9]\d{0,6}", told, re.ASCII):
            return int(told)
        return wanted if self.node.running_kubelet is None else default

    @cached_property
    def default(self) -> IdRange:
        """What the kubelet takes where nobody gave it a range: all but the first block, and once but the last one."""
        left_out = 1 if does("hands-out-last-block", self.version) else 2
        return self.ids_per_pod, ID_SPACE - left_out * self.ids_per_pod

    @cached_property
    def taken(self) -> IdRange | None:
        """The range that pods get their IDs from after this run; None where that cannot be told."""
        if not does("asks-for-range", self.version):
            return self.default
        return self.wanted.range or (self.printed if self.node.kubelet_user else self.default)

    def findings(self) -> Iterator[Finding]:
        if self.taken and not self.wanted.image:
            theirs = [ids for ids, _ in self._others()]
            fits = {"ids_per_pod": self.wanted.ids_per_pod, "max_pods": self.max_pods}
            yield from own_ids.findings(self.node.own_ids, self.taken, theirs, **fits)
        wanted = self.wanted.range
        yield from self._ids_per_pod()
        if not does("asks-for-range", self.version):
            if wanted:
                yield warning(
                    "kubelet-id-range-ignored",
                    f"kubelet_id_range has no effect: the kubelet of Kubernetes {self.version} asks for no range, it "
                    "does from 1.30 on",
                    KUBELETS["asks-for-range"].source,
                )
                yield from subids.unreadable(self.node)
                yield from self._taken(wanted)
            return
        yield from programs.findings(
            self.node,
            ranged=bool(wanted),
            dies=does("dies-without-getsubids", self.version),
            asks_getent=does("asks-getent", self.version),
        )
        if wanted:
            yield from subids.unreadable(self.node)
            yield from self._taken(wanted)
            yield from self._outcome(wanted)
            yield from self._running(wanted)
        elif self.node.kubelet_user:
            yield from self._existing()
        else:
            yield from self._default()

    # --- how many IDs a pod gets ---

    @cached_property
    def _has(self) -> int:
        """The number of IDs a pod in the kubelet's configuration, or its default."""
        return self._told("idsPerPod", ID_BLOCK, ID_BLOCK)

    @cached_property
    def _resizes(self) -> bool:
        """Whether the kubelet is to get another number than it has, with which it does not take the pods on record."""
        if self.wanted.image or self.wanted.ids_per_pod == self._has or not does("reads-ids-per-pod", self.version):
            return False
        return bool(self.node.pods_untold or self._other_sizes)

    @cached_property
    def _other_sizes(self) -> tuple[PodIds, ...]:
        return tuple(each for each in self.node.pod_ids if each.length != self.wanted.ids_per_pod)

    def _ids_per_pod(self) -> Iterator[Finding]:
        """Whether ids_per_pod is what the kubelet goes by, and what becomes of the pods if it is told so.

        Nothing here tells it: the operator does, by the lines of `kubernetes-feature-gates`.
        """
        wanted, has = self.wanted.ids_per_pod, self._has
        if self._resizes:
            yield blocker(
                "kubelet-id-range-in-use",
                f"ids_per_pod is {wanted}, and the kubelet here gives each pod {has} IDs. With idsPerPod: {wanted} in "
                f"its configuration it would not start again: {self._pods(self._other_sizes)} with a user namespace "
                f'would have blocks of the wrong size ("{_LENGTH}"). Set ids_per_pod = {has} for this node. To '
                f"change it, empty the node before you touch that configuration. {self._drain()}",
                _RULES,
            )
        elif wanted == self.ids_per_pod:
            return
        elif does("reads-ids-per-pod", self.version):
            told = self.node.kubelet_config.get("idsPerPod")
            yield warning(
                "ids-per-pod-ignored",
                f"ids_per_pod = {wanted} has no effect yet: the kubelet here gives each pod {has} IDs, for its "
                f"configuration has {f'idsPerPod {told}' if told else 'no idsPerPod'}. Set that to {wanted} and "
                "restart the kubelet before a pod with hostUsers: false starts on this node: with one on record that "
                f'has another number of IDs it does not start ("{_LENGTH}")',
                KUBELETS["reads-ids-per-pod"].source,
            )
        else:
            there = has != ID_BLOCK
            yield warning(
                "ids-per-pod-ignored",
                f"ids_per_pod = {wanted} has no effect: a kubelet of Kubernetes {self.version} gives each pod "
                f"{ID_BLOCK} IDs, and idsPerPod is read from 1.35 on. "
                + (f"It has idsPerPod {has} already" if there else "Do not set idsPerPod yet")
                + f": a kubelet of 1.35 that finds it does not start while pods with {ID_BLOCK} IDs are on record "
                f'("{_LENGTH}"). '
                + ("Drain this node before that upgrade" if there else "Set it with that upgrade, on a drained node"),
                KUBELETS["reads-ids-per-pod"].source,
            )

    # --- who else has those IDs ---

    def _others(self) -> Iterator[tuple[IdRange, str]]:
        """The IDs that belong to somebody else, and who that is. Whom LDAP or sssd knows is not read."""
        yield from subids.of_others(self.node)
        yield from subids.accounts(self.node)

    def _taken(self, wanted: IdRange) -> Iterator[Finding]:
        if clashes := [who for theirs, who in self._others() if overlap(theirs, wanted)]:
            yield blocker(
                "kubelet-id-range-overlaps",
                f"kubelet_id_range takes {shown(wanted)}, and part of that is somebody else's: {some(clashes)}. A "
                f"pod's users would be theirs. {self._suggestion()}, or take away what nobody uses",
                _RULES,
            )

    def _suggestion(self) -> str:
        free = free_range(
            (ids for ids, _ in self._others()), ids_per_pod=self.wanted.ids_per_pod, max_pods=self.max_pods
        )
        if not free:
            return "Choose another range"
        return (
            f"Set kubelet_id_range to one that is free, such as {free} (by /etc/passwd, /etc/group, {paths.SUBUID} and "
            f"{paths.SUBGID}; users that only LDAP or sssd knows are not seen)"
        )

    # --- what getsubids says ---

    @cached_property
    def printed(self) -> IdRange | None:
        """The one range that getsubids prints for both, or None."""
        return None if self.answer_problem else programs.range_in(self.node.getsubids["subuid"][0])

    @cached_property
    def answer_problem(self) -> str:
        return programs.answer_problem(self.node.getsubids)

    def _problems(self, ids: IdRange | None) -> list[str]:
        if ids is None:
            return [self.answer_problem]
        return range_problems(*ids, ids_per_pod=self.ids_per_pod, max_pods=self.max_pods)

    def _existing(self) -> Iterator[Finding]:
        """A range that is not ours to write."""
        if not self.node.getsubids:
            return
        if problems := self._problems(self.printed):
            yield blocker(
                "kubelet-id-range-invalid",
                "there is a user kubelet, whose range the kubelet takes, and with this one it does not start, or pods "
                f"fail: {'; '.join(problems)}. (useradd adds such ranges by itself.) Set kubelet_id_range, which "
                f"writes a good one, or correct {paths.SUBUID} and {paths.SUBGID}",
                _RULES,
            )
            return
        assert self.printed is not None
        if clashes := [who for theirs, who in self._others() if overlap(theirs, self.printed)]:
            yield warning(
                "kubelet-id-range-overlaps",
                f"the kubelet's range is {shown(self.printed)}, and part of that is somebody else's: "
                f"{some(clashes)}. A pod's users are theirs. {self._suggestion()}",
                _RULES,
            )
        yield from self._stranded(self.printed, "the kubelet's range")

    def _outcome(self, wanted: IdRange) -> Iterator[Finding]:
        """Whether what is written has the effect that it should have."""
        short = range_problems(*wanted, ids_per_pod=self.ids_per_pod, max_pods=self.max_pods)
        if short:
            yield blocker(
                "kubelet-id-range-invalid",
                f"the kubelet has maxPods {self.max_pods} and idsPerPod {self.ids_per_pod}, and with kubelet_id_range "
                f"it does not start: {'; '.join(short)}. Set max_pods and ids_per_pod to what the kubelet has, and a "
                "range that fits, or change its configuration first",
                _RULES,
            )
        if not self.node.getsubids or self.printed == wanted:
            return
        if subids.kubelets(self.node) == (wanted, wanted):
            yield blocker(
                "kubelet-id-range-invalid",
                f"{paths.SUBUID} and {paths.SUBGID} give the kubelet {shown(wanted)}, and getsubids says otherwise: "
                f"{self.answer_problem or shown(self.printed or wanted)}. It asks what nsswitch.conf names under "
                '"subid": give the user kubelet the same range there, or take that line out',
                "getsubids(1), nsswitch.conf(5)",
            )

    # --- what runs ---

    def _running(self, wanted: IdRange) -> Iterator[Finding]:
        """Whether the kubelet, when it starts again, takes the pods that are there."""
        if self.wanted.image:
            return
        if self.printed == wanted:
            yield from self._stranded(wanted, "kubelet_id_range")
            if self.node.kubelet_is_older:
                yield warning(
                    "kubelet-restart-needed",
                    "the kubelet that runs was started before kubelet_id_range was written, and gives pods IDs of the "
                    "range that it had then: restart it now"
                    + (", once the pods with other IDs are gone" if self._outside(wanted) else _BEFORE_PODS),
                    "kubernetes/kubernetes#132966",
                )
            return
        before = self.printed if self.node.kubelet_user else self.default
        grows = (
            before is not None and inside(before, wanted) and not self._outside(wanted) and not self.node.pods_untold
        )
        if (self.node.pod_ids or self.node.pods_untold) and not grows:
            if self._resizes:
                return  # that has been said, and has the same cure
            yield blocker(
                "kubelet-id-range-in-use",
                f"the kubelet's range would change{f' from {shown(before)}' if before else ''} to {shown(wanted)} "
                f"under {self._pods(self.node.pod_ids)} with a user namespace: {self._of_change(wanted)}. "
                f"{self._drain()}",
                "kubernetes/kubernetes#132966",
            )
        elif self.node.units.get("kubelet", Unit()).active == "active":
            yield warning(
                "kubelet-restart-needed",
                "the kubelet runs, and reads its range only when it starts: restart it right after this run"
                + ("" if grows else _BEFORE_PODS),
                "kubernetes/kubernetes#132966",
            )

    def _of_change(self, wanted: IdRange) -> str:
        """What becomes of the kubelet where the range changes under pods."""
        if not self._outside(wanted) and not self.node.pods_untold:
            return (
                "they fit, and the kubelet gives out IDs of the old range until it is restarted: a pod more that gets "
                "such keeps it from starting again"
            )
        starts = "would not" if self._outside(wanted) else "may not"
        return f'the kubelet {starts} start again ("id … is out of range")'

    def _outside(self, ids: IdRange) -> tuple[PodIds, ...]:
        """The pods on record that a kubelet with this range refuses."""
        return tuple(
            each
            for each in self.node.pod_ids
            if each.start is None
            or each.length != self.ids_per_pod
            or each.start % self.ids_per_pod
            or not inside((each.start, each.length), ids)
        )

    def _stranded(self, ids: IdRange, what: str) -> Iterator[Finding]:
        if not self._resizes and (outside := self._outside(ids)):  # else that has been said, and has the same cure
            yield warning(
                "kubelet-id-range-in-use",
                f"{self._pods(outside, untold=False)} with a user namespace have IDs that do not fit {what}, "
                f"{shown(ids)} in blocks of {self.ids_per_pod}: the kubelet will not start again "
                f'("out of range", "{_LENGTH}"). {self._drain()}',
                "kubernetes/kubernetes#132966",
            )

    def _pods(self, pods: tuple[PodIds, ...], *, untold: bool = True) -> str:
        names = [each.pod for each in pods[:SHOWN]]
        count = len(pods) + (self.node.pods_untold if untold else 0)
        more = ", …" if count > len(names) else ""
        return f"{count} pod{'s' if count > 1 else ''} ({', '.join(names)}{more})"

    def _drain(self) -> str:
        place = self.node.filesystems.get("kubelet-root")
        root = place.path if place else "/var/lib/kubelet"
        return (
            "Cordon and drain this node, delete what is left of these pods (DaemonSets and static pods stay after a "
            f"drain) until no file {root}/pods/*/userns is there, and run again"
        )

    # --- no range at all ---

    def _default(self) -> Iterator[Finding]:
        """What the kubelet takes where nobody gave it a range."""
        if self.wanted.image:
            return
        if self.default[1] % self.ids_per_pod:
            yield blocker(
                "kubelet-id-range-invalid",
                f"idsPerPod {self.ids_per_pod} does not divide the kubelet's default range ({shown(self.default)}), "
                f"and the kubelet does not start. {self._suggestion()}",
                _RULES,
            )
        yield from self._stranded(self.default, "the kubelet's default range")
        users, sub_ids = (
            [who for theirs, who in each if overlap(theirs, self.default)]
            for each in (subids.accounts(self.node), subids.of_others(self.node))
        )
        last = does("hands-out-last-block", self.version)
        faults = []
        if users:
            faults.append(f"part of that is of users of this node, and a pod's users could be theirs ({some(users)})")
        if sub_ids:
            # No more than a note: most cloud images have such a line, and few of them a container without root.
            faults.append(
                "part of that is sub-IDs of other users, whose containers (rootless Podman, Docker) could have the "
                f"same IDs as pods ({some(sub_ids)})"
            )
        if last:
            faults.append(
                "the kernel never maps the last block, and a pod that gets it fails for ever "
                '("fork/exec /proc/self/exe: invalid argument"). A kubelet of Kubernetes 1.38 leaves it out, and does '
                "not start while a pod on record has it: delete such a pod before that upgrade"
            )
        if faults:
            yield Finding(
                "kubelet-default-range",
                Severity.WARNING if users else Severity.NOTE,
                f"without kubelet_id_range the kubelet takes {shown(self.default)} for pods: {'; '.join(faults)}. "
                f"{self._suggestion()}",
                KUBELETS["hands-out-last-block"].source,
            )
