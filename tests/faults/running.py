"""Run cases: on one node after the other, several nodes side by side."""

from __future__ import annotations

import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from random import Random

from lab import Lab
from tests.faults.catalogue import FAULTS, Case
from tests.faults.faults import Scene
from tests.faults.ground import Ground
from tests.faults.verdict import Verdict
from tests.node.faults import UNITS, wait_for
from tests.node.releases import Releases
from tests.node.runs import Operator, must

UNFINISHED = "; run again, or reboot, to try again"


@dataclass(frozen=True)
class Outcome:
    """What came of one case."""

    case: Case
    struck: bool
    """The change came to the step at which the fault strikes."""
    problems: tuple[str, ...]
    """Why the node is worse than before; none where it is not."""
    dead: str
    """Why the container is thought dead that has to go on; empty where it counts."""
    seconds: float

    def __str__(self) -> str:
        text = "ok" if self.struck else "NOT STRUCK"
        text = "WORSE" if self.problems else "DEAD" if self.dead else text
        lines = [f"{text:5} {self.seconds:5.1f} s  {self.case}", *self.problems, self.dead]
        return "\n    ".join(line for line in lines if line)


class Worker:
    """Somebody with a node of each layout, made when it is needed."""

    def __init__(self, lab: Lab, releases: Releases, directory: Path) -> None:
        self._lab = lab
        self._releases = releases
        self._served = lab.serve(releases.mirror)
        self._operator = Operator(lab, directory, release_url=self._served.url, artifact_lock=str(releases.mirror.lock))
        self._operator.timeout = 1800
        self._grounds: dict[bool, Ground] = {}

    def ground(self, apart: bool = False) -> Ground:
        """The node."""
        if apart not in self._grounds:
            ground = Ground(self._lab, self._served, self._releases, self._operator, apart)
            ground.prepare()
            self._grounds[apart] = ground
        return self._grounds[apart]

    def length(self, change: str) -> int:
        """How many steps this change has, by making it."""
        ground = self.ground()
        goal = ground.changed("all" if change == "back" else change)
        with ground.steps.watched():
            if change == "back":
                assert ground.deploy(**{**goal, "containerd_version": self._releases.broken}).code == 1
            else:
                must(ground.deploy(**goal))
                ground.settings = goal
            return len(ground.steps.seen())

    def run(self, case: Case, seed: int) -> Outcome:
        """Run a case and judge it. A node that is worse off afterwards makes place for a new one."""
        began = time.monotonic()
        struck, dead = False, ""
        problems: list[str] = []
        try:
            ground = self.ground(case.apart)
            struck, problems, dead = _run(ground, case, Random(f"{seed} {case}"))
        except Exception:
            problems = [traceback.format_exc()]
        if problems or dead:
            self.drop(case.apart)
        return Outcome(case, struck, tuple(problems), dead, time.monotonic() - began)

    def drop(self, apart: bool = False) -> None:
        """End a node; the next case gets a new one."""
        if ground := self._grounds.pop(apart, None):
            ground.end()

    def end(self) -> None:
        """End its nodes."""
        for apart in list(self._grounds):
            self.drop(apart)


def at_work(ground: Ground) -> str:
    """What of us runs on the node. The unit for a boot may be there, idle, where a change could not be undone."""
    states = "--state=active,activating,deactivating,reloading"
    look = f"{UNITS} {states}; pgrep -fl '[u]serns-node/staged|[l]aunch.sh'"
    return ground.inside.ssh(look, check=False).stdout


def _run(ground: Ground, case: Case, random: Random) -> tuple[bool, list[str], str]:
    goal = ground.changed("all" if case.change == "back" else case.change)
    asked = {**goal, "containerd_version": ground.releases.broken} if case.change == "back" else dict(goal)
    scene = Scene(ground, goal, asked, wanted=[goal] if asked == goal else [], random=random)
    before = ground.look()
    blow = FAULTS[case.fault].blow(scene)
    with ground.steps.watched(case.step):
        next(blow)
        deploying = scene.begin()
        if case.after is not None:
            time.sleep(case.after)
        struck = case.step is None or ground.steps.wait(deploying.ended)
        if struck:
            next(blow)
        ground.steps.release()
        scene.run = deploying.end()
        if struck:
            next(blow, None)
        wait_for(lambda: not at_work(ground))
    told = any(UNFINISHED in line for line in scene.run.said(ground.node))
    stays = scene.stops_the_way_back
    verdict = Verdict(ground, before, scene.problems, scene.ends_who_cleans, stays, unfinished=stays and told)
    dead = "" if scene.ends_containers else ground.counter.stopped_counting()
    verdict.judge(scene.wanted, goal)
    if scene.ends_containers:
        ground.count()
    else:
        dead = dead or ground.counter.stopped_counting() or ground.counter.unknown()
    return struck, verdict.problems, dead
