"""The cases: which fault strikes which change, and when. A name says all of it, so that one case runs again alone."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from random import Random

from tests.faults import faults
from tests.faults.faults import DIRECTORIES, Blow

# The changes: of one thing, of all, and one of all that has to go back, for its containerd does not start.
CHANGES = ("config", "runc", "containerd", "all", "back")


@dataclass(frozen=True)
class Fault:
    """A fault, and the cases that it is drawn into."""

    blow: Blow
    cases: int
    """How many of a whole run."""
    changes: tuple[str, ...] = CHANGES
    when: str = "step"
    """"step": before one of the change's commands; "any": that, or somewhere on its way; "always": all along."""
    layout: str = "any"
    """"one": all on one file system; "apart": the programs, the state and containerd's files have their own."""
    in_sample: bool = True


FORWARD = ("config", "runc", "containerd", "all")
FETCHED = ("runc", "containerd", "all")
FAULTS: Mapping[str, Fault] = {
    "kill": Fault(faults.killed, 16, changes=("runc", "containerd", "all", "back")),
    "power": Fault(faults.power_cut, 20, when="any", layout="one"),
    "reboot": Fault(faults.reboot, 4, when="any", layout="one"),
    "stop": Fault(faults.stopped, 6),
    "step-fails": Fault(faults.step_fails, 16, changes=FORWARD),
    "controller-killed": Fault(faults.controller_killed, 8, when="any"),
    "controller-interrupted": Fault(faults.controller_interrupted, 4, when="any"),
    "ssh-cut": Fault(faults.ssh_cut, 6, when="any"),
    "network-lost": Fault(faults.network_lost, 4, when="any"),
    "two-controllers": Fault(faults.two_controllers, 5, changes=("config", "containerd")),
    "kill-before-a-second": Fault(faults.killed_before_a_second_controller, 3, changes=("config", "containerd")),
    "full-etc": Fault(faults.full("/etc/containerd"), 3, when="any", layout="apart"),
    "full-local": Fault(faults.full(DIRECTORIES["local"]), 3, when="any", layout="apart"),
    "full-state": Fault(faults.full(DIRECTORIES["state"]), 3, when="any", layout="apart"),
    "full-run": Fault(faults.full_run, 4, when="any", in_sample=False),
    "read-only-etc": Fault(faults.read_only(DIRECTORIES["etc"]), 3, changes=FORWARD, when="any"),
    "read-only-local": Fault(faults.read_only(DIRECTORIES["local"]), 3, changes=FORWARD, when="any"),
    "read-only-state": Fault(faults.read_only(DIRECTORIES["state"]), 3, changes=FORWARD, when="any"),
    "no-processes": Fault(faults.no_processes, 8, when="any", layout="one", in_sample=False),
    "does-not-start": Fault(faults.does_not_start, 3, changes=("containerd", "all"), when="always"),
    "has-no-cri": Fault(faults.has_no_cri, 3, changes=FORWARD, when="always"),
    "refuses-its-config": Fault(faults.refuses_its_config, 2, changes=FORWARD, when="always"),
    "hangs-on-stop": Fault(faults.hangs_on_stop, 4, when="always"),
    "frozen": Fault(faults.frozen, 1, changes=("config",), in_sample=False),
    "mirror-404": Fault(faults.mirror("404"), 1, changes=FETCHED, when="always"),
    "mirror-truncates": Fault(faults.mirror("truncate"), 2, changes=FETCHED, when="always"),
    "mirror-corrupts": Fault(faults.mirror("corrupt"), 2, changes=FETCHED, when="always"),
    "mirror-slow": Fault(faults.mirror("slow"), 2, changes=FETCHED, when="always"),
    "mirror-says-less": Fault(faults.mirror("says less"), 2, changes=FETCHED, when="always"),
    "mirror-says-more": Fault(faults.mirror("says more"), 2, changes=FETCHED, when="always"),
    "mirror-hangs": Fault(faults.mirror("hang"), 1, changes=("runc",), when="always", in_sample=False),
    "mirror-dead": Fault(faults.mirror_dead, 1, changes=FETCHED, when="always"),
    "clock-in-the-past": Fault(faults.clock("20 years ago"), 3, when="any"),
    "clock-in-the-future": Fault(faults.clock("20 years"), 2, when="any"),
}
NAME = re.compile(r"(?P<fault>[a-z0-9-]+)@(?P<change>[a-z]+)(:(?P<step>\d+)|:~(?P<after>0\.\d+))?(?P<apart>/apart)?")


@dataclass(frozen=True)
class Case:
    """A fault, the change that it strikes, and when: before a step, some way through the deploy, or all along."""

    fault: str
    change: str
    step: int | None = None
    after: float | None = None
    """A part of the time from the first that the deploy writes on the node to its end, as it was measured."""
    apart: bool = False

    def __str__(self) -> str:
        when = f":{self.step}" if self.step else f":~{self.after}" if self.after is not None else ""
        return f"{self.fault}@{self.change}{when}{'/apart' if self.apart else ''}"

    @classmethod
    def of(cls, name: str) -> Case:
        """The case of this name. Raises ValueError where there is none."""
        found = NAME.fullmatch(name)
        if not found or found["fault"] not in FAULTS or found["change"] not in CHANGES:
            raise ValueError(f"{name!r} is no case: expected a name such as kill@config:17 or power@all:~0.4")
        step, after = found["step"], found["after"]
        return cls(
            found["fault"],
            found["change"],
            int(step) if step else None,
            float(after) if after else None,
            found["apart"] is not None,
        )


def whole(seed: int, lengths: Mapping[str, int]) -> list[Case]:
    """The cases of a whole run: a kill at every step of a change of the config, and a draw of all the others.

    `lengths`: how many steps each change has on this node.
    """
    random = Random(seed)
    cases = [Case("kill", "config", step, apart=random.random() < 0.3) for step in range(1, lengths["config"] + 1)]
    cases += [_draw(random, name, lengths) for name, fault in FAULTS.items() for _ in range(fault.cases)]
    random.shuffle(cases)
    return cases


def sample(seed: int, count: int, lengths: Mapping[str, int]) -> list[Case]:
    """A few cases of as many faults, quick ones: on one file system, and of the changes whose length is known."""
    random = Random(seed)
    names = [
        name
        for name, fault in FAULTS.items()
        if fault.in_sample and fault.layout != "apart" and set(fault.changes) & lengths.keys()
    ]
    return [_draw(random, name, lengths, apart=False) for name in random.sample(names, count)]


def _draw(random: Random, name: str, lengths: Mapping[str, int], *, apart: bool | None = None) -> Case:
    fault = FAULTS[name]
    change = random.choice([each for each in fault.changes if each in lengths])
    if apart is None:
        apart = fault.layout == "apart" or (fault.layout == "any" and random.random() < 0.3)
    if fault.when == "always":
        return Case(name, change, apart=apart)
    if fault.when == "any" and random.random() < 0.3:
        # Not to its very end: another time it may be quicker, and what does not strike proves nothing.
        return Case(name, change, after=round(random.uniform(0, 0.7), 2), apart=apart)
    # Not randint, which may draw again: then the number of steps would decide what the cases after this one are.
    return Case(name, change, step=1 + int(random.random() * lengths[change]), apart=apart)
