"""The verdict on a node after a fault: does it run one whole set, and does a rerun bring it where it was to go?"""

from __future__ import annotations

import re
from collections.abc import Container
from dataclasses import dataclass, field, replace
from pathlib import PurePath

from tests.faults.ground import HEALTHY, Ground, Look, Settings
from tests.node.faults import MARK, RECOVERY, STATE, UNITS
from tests.node.runs import differences, leftovers

CONTAINERD = "usr/local/bin/containerd"
CONFIG = "etc/containerd/config.toml"
# The unit for a boot with what it would run: where there is no mark they only remove themselves.
FOR_A_BOOT = re.compile(rf"(/etc/systemd/system/.*)?userns-node-recover\.service|/{STATE}/activate\.sh$")
# What a proof that was cut off leaves, and containerd of it: the next proof removes it.
OF_A_PROOF = r"/(run|var/lib)/containerd/.*/userns-node-check$|/tmp/userns-node-check\.\w+$"
# What the shell that waits for a change removes at its end, else a boot.
OF_A_SHELL = re.compile(r"/run/(systemd/system/)?userns-node-activate-\w+(\.log|\.sh|-undo\.service)$")
# That, stages, and the set to go back to before it is needed or when it was.
WORK = re.compile(rf"/{STATE}/(staged/|undo|committed|uncleared|[a-z.]+\.new$)|{FOR_A_BOOT.pattern}|{OF_A_PROOF}")


@dataclass
class Verdict:
    """What is wrong with a node after a fault; nothing, where all is well."""

    ground: Ground
    before: Look
    problems: list[str] = field(default_factory=list)
    ended: bool = False
    """Whoever would have cleaned up was ended with what he did: what lies where nobody reads it waits for a rerun."""
    stays: bool = False
    """It could not be cleaned up where it lies: the unit for a boot does that, or the next change, and it goes then."""
    unfinished: bool = False
    """The run has told that it could not undo the change, and why: then a mark has to say so on the node, too."""

    def judge(self, wanted: list[Settings], goal: Settings) -> None:
        """Look at the node after a fault, and bring it to `goal`.

        `wanted`: what may be there beside the set of before, because somebody deployed it.
        """
        after = self.ground.look()
        if self.unfinished:
            if not (self.ground.root / MARK.lstrip("/")).exists():
                self.problems.append("the change is unfinished, and no mark on the node says so")
            self._converges(goal)
            return
        self._runs_what_is_there("after the fault", after)
        waits = self._waits()
        self._nothing_is_left("after the fault", but=WORK if self.ended or self.stays else None, waits=waits)
        after = replace(after, files={path: what for path, what in after.files.items() if f"/{path}" not in waits})
        found = differences(self.before.files, after.files)
        whole = not found or any(self._is(one, after) for one in wanted if one != goal)
        self._converges(goal)
        # A set that was never seen before is whole where deploying it again changed nothing.
        if not whole and not (goal in wanted and self.ground.known.get(str(goal)) == after.files):
            self.problems.append(f"neither the old set nor the new one: {', '.join(found[:8])}")

    def _is(self, one: Settings, after: Look) -> bool:
        if str(one) in self.ground.known:
            return self.ground.known[str(one)] == after.files
        run = self.ground.deploy(**one)
        return run.code == 0 and not run.done(self.ground.node)

    def _converges(self, goal: Settings) -> None:
        run = self.ground.deploy(**goal)
        if run.code:
            self.problems.append(f"the rerun failed: {run.text[-1500:]}")
            return
        if run.done(self.ground.node):
            again = self.ground.deploy(**goal)
            if again.code or again.done(self.ground.node):
                self.problems.append(f"the second rerun was not for nothing: {again.text[-1500:]}")
        if self.stays and self._for_a_boot():  # the rerun had nothing to change
            self.ground.inside.ssh(f"systemctl start {PurePath(RECOVERY).name}", check=False)
        now = self.ground.look()
        self._runs_what_is_there("after the rerun", now)
        self._nothing_is_left("after the rerun")
        self._is_the_goal(goal, now)
        self.ground.settings = goal

    def _is_the_goal(self, goal: Settings, now: Look) -> None:
        releases = self.ground.releases
        programs = {"usr/local/sbin/runc": releases.mirror.asset("runc", goal["runc_version"]).sha256}
        for name in ("containerd", "ctr", "containerd-shim-runc-v2"):
            programs[f"usr/local/bin/{name}"] = releases.program(name, goal["containerd_version"])
        for path, digest in programs.items():
            if now.files.get(path) != f"100755 0:0 {digest}":
                self.problems.append(f"/{path} is not what was deployed: {now.files.get(path)}")
        if goal["containerd_config"]["debug"]["address"] not in (self.ground.root / CONFIG).read_text():
            self.problems.append(f"/{CONFIG} is not what was deployed")
        found = differences(self.ground.known.setdefault(str(goal), now.files), now.files)
        if found:
            self.problems.append(f"the same settings gave other files before: {', '.join(found[:8])}")

    def _runs_what_is_there(self, when: str, look: Look) -> None:
        if look.health != HEALTHY:
            self.problems.append(f"{when} containerd, its unit, its CRI are: {look.health}, expected {HEALTHY}")
        if look.files.get(CONTAINERD, "").split(" ")[-1] != look.program:
            self.problems.append(f"{when} containerd runs another program than the one on the disk")
        if look.socket not in (self.ground.root / CONFIG).read_text():
            self.problems.append(f"{when} containerd has read another config than the one on the disk: {look.socket}")

    def _for_a_boot(self) -> bool:
        return (self.ground.root / RECOVERY.lstrip("/")).exists()

    def _waits(self) -> set[str]:
        """What lies beside its target until the next change, or a boot: the node has to have it in writing."""
        written = self.ground.root / STATE / "uncleared"
        if not (self.stays and self._for_a_boot() and written.exists()):
            return set()
        lines = [line.split("\t") for line in written.read_text().splitlines()]
        targets = [PurePath(target) for kind, target, _ in lines if kind in ("put", "absent")]
        return {str(each.parent / f".{each.name}.userns-node-{age}") for each in targets for age in ("old", "new")}

    def _nothing_is_left(
        self, when: str, but: re.Pattern[str] | None = None, waits: Container[str] = frozenset()
    ) -> None:
        found = leftovers(self.ground.inside)
        look = f"{UNITS}; ls -d /run/userns-node-activate* 2>/dev/null"
        found += [line.strip() for line in self.ground.inside.ssh(look, check=False).stdout.splitlines()]
        found = [each for each in found if each not in waits and not (but and but.match(each))]
        if self.ended:
            found = [each for each in found if not OF_A_SHELL.match(each)]
        if found:
            self.problems.append(f"{when} there is left: {', '.join(found[:8])}")
