"""Run cases: on one node after the other, several nodes side by side."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from random import Random

from lab import Lab
from tests.faults.catalogue import FAULTS, Case
from tests.faults.faults import Scene
from tests.faults.ground import Ground, Settings
from tests.faults.verdict import Verdict
from tests.node.faults import MARK, STATE, UNITS, wait_for
from tests.node.releases import Releases
from tests.node.runs import Operator, must

UNFINISHED = "; run again, or reboot, to try again"


@dataclass(frozen=True)
class Outcome:
    """What came of one case."""

    case: Case
    struck: bool
    """The change came to where the fault strikes."""
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
        self._seconds: dict[str, float] = {}

    def ground(self, apart: bool = False) -> Ground:
        """The node."""
        if apart not in self._grounds:
            ground = Ground(self._lab, self._served, self._releases, self._operator, apart)
            ground.prepare()
            self._grounds[apart] = ground
        return self._grounds[apart]

    def length(self, change: str) -> int:
        """How many steps this change has, by making it there and back: a node's first one may have a few more."""
        return min(self._length(change) for _ in range(2))

    def _length(self, change: str) -> int:
        ground = self.ground()
        goal, asked = _settings(ground, change)
        with ground.steps.watched():
            deploying = ground.deploying(**asked)
            assert begins(ground, deploying.ended), deploying.end().text
            began = time.monotonic()
            run = deploying.end()
            self._seconds[change] = time.monotonic() - began
            if asked != goal:
                assert run.code == 1
            else:
                must(run)
                ground.settings = goal
            return len(ground.steps.seen())

    def seconds(self, change: str) -> float:
        """How long a deploy with this change takes from the first that it writes on the node."""
        if change not in self._seconds:
            self.length(change)
        return self._seconds[change]

    def run(self, case: Case, seed: int) -> Outcome:
        """Run a case and judge it. A node that is worse off afterwards makes place for a new one."""
        began = time.monotonic()
        struck, dead = False, ""
        problems: list[str] = []
        try:
            ground = self.ground(case.apart)
            after = None if case.after is None else case.after * self.seconds(case.change)
            struck, problems, dead = _run(ground, case, after, Random(f"{seed} {case}"))
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
    look = f"{UNITS} {states}; pgrep -fl '[u]serns-node/staged|[l]aunch.sh|[v]erify.sh'"
    return ground.inside.ssh(look, check=False).stdout


def begins(ground: Ground, ended: Callable[[], bool]) -> bool:
    """Wait until the deploy writes on the node; false where it came to its end without."""
    staged = ground.root / STATE / "staged"
    wait_for(lambda: ended() or any(staged.glob("*")), seconds=1800)
    return any(staged.glob("*"))


def strikes(ground: Ground, case: Case, after: float | None, ended: Callable[[], bool]) -> bool:
    """Wait for the moment of the fault, `after` seconds after the begin; false where the deploy had ended by then."""
    if case.step is not None:
        return ground.steps.wait(ended)
    if after is None:
        return True
    if not begins(ground, ended):
        return False
    time.sleep(after)
    return not ended()


def _settings(ground: Ground, change: str) -> tuple[Settings, Settings]:
    """Where this change leads, and what is asked for: the same, or what can't work."""
    goal = ground.changed("all" if change == "back" else change)
    return goal, {**goal, "containerd_version": ground.releases.broken} if change == "back" else dict(goal)


def _run(ground: Ground, case: Case, after: float | None, random: Random) -> tuple[bool, list[str], str]:
    goal, asked = _settings(ground, case.change)
    scene = Scene(ground, goal, asked, wanted=[goal] if asked == goal else [], random=random)
    before = ground.look()
    with closing(FAULTS[case.fault].blow(scene)) as blow, ground.steps.watched(case.step):
        next(blow)
        deploying = scene.begin()
        struck = strikes(ground, case, after, deploying.ended)
        if struck:
            next(blow)
        ground.steps.release()
        scene.run = deploying.end()
        if struck:
            next(blow, None)
        wait_for(lambda: not at_work(ground))
    told = any(UNFINISHED in line for line in scene.run.said(ground.node))
    told = told or (scene.speechless and (ground.root / MARK.lstrip("/")).exists())
    stays = scene.stops_the_way_back
    cleans, ends = (struck and each for each in (scene.ends_who_cleans, scene.ends_containers))
    verdict = Verdict(ground, before, scene.problems, cleans, stays, unfinished=stays and told)
    dead = "" if ends else ground.counter.stopped_counting()
    verdict.judge(scene.wanted, goal)
    if ends:
        ground.count()
    else:
        dead = dead or ground.counter.stopped_counting() or ground.counter.unknown()
    return struck, verdict.problems, dead
