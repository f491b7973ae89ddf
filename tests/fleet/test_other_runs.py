"""Two rollouts at a time: what one must not do beside another one, and what it has to know once that has ended."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fleet.child import CannotRun
from fleet.history import History
from fleet.records import Record, Status
from tests.fleet.rollouts import Played


class Other:
    """Another rollout, which has begun before."""

    def __init__(self, played: Played) -> None:
        self.history = History(played.directory / "history.db")
        self.inventory = str(played.directory / "hosts.py")

    def begin(self, *names: str, group: str = "all", inventory: str = "") -> None:
        self.run = self.history.begin("apply", inventory or self.inventory, {})
        self.history.put(self.run, [Record(name=each, groups=(group,), status=Status.WAITING) for each in names])

    def end(self, record: Record) -> None:
        self.history.settle(self.run, record, 1)
        self.history.finish(self.run, "stopped: somebody wanted it", 1)


@pytest.fixture
def played(tmp_path: Path) -> Played:
    return Played(tmp_path)


@pytest.fixture
def other(played: Played) -> Iterator[Other]:
    made = Other(played)
    yield made
    made.history.close()


# --- while it goes on ---------------------------------------------------------------------------------------------


def test_two_rollouts_never_have_one_groups_nodes_away_at_a_time(played: Played, other: Other) -> None:
    """Each would have as many away as both may have."""
    other.begin("n9")
    with pytest.raises(CannotRun, match=r"run 1 of .* goes on over other nodes of all, .*max_unavailable.*: wait for"):
        played()
    assert played.done == set()
    assert played.plan() == 2
    other.end(Record(name="n9", groups=("all",), status=Status.CHANGED))
    assert played() == 0


@pytest.mark.parametrize("how", [{"group": "gpu"}, {"inventory": "another"}], ids=str)
def test_other_groups_may_be_rolled_out_side_by_side(played: Played, other: Other, how: dict[str, str]) -> None:
    other.begin("n9", **how)
    assert played() == 0


# --- once it has ended --------------------------------------------------------------------------------------------


def once(work: Callable[[], object]) -> Callable[[], None]:
    """What is done at the first call only."""
    left = [work]

    def begun() -> None:
        if left:
            left.pop()()

    return begun


def test_what_another_run_left_cordoned_while_this_one_began_is_given_back(played: Played, other: Other) -> None:
    other.begin("n1", "n2", "n3")

    def end() -> None:
        played.cordoned.add("n2")
        other.end(Record(name="n2", groups=("all",), status=Status.FAILED, drained=True))

    played.loading = once(end)
    assert played() == 0
    assert played.cordoned == set()


def test_what_another_run_gave_back_while_this_one_began_is_not_ours_any_more(played: Played, other: Other) -> None:
    played.becomes = {"n2": Status.FAILED}
    assert played() == 1
    played.becomes, played.done = {}, set()
    other.begin("n1", "n2", "n3")
    # And then somebody has cordoned it who does not want it back.
    played.loading = once(lambda: other.end(Record(name="n2", groups=("all",), status=Status.CHANGED)))
    assert played() == 0
    assert played.cordoned == {"n2"}


@pytest.mark.parametrize("resume", [True, False])
def test_a_run_that_another_one_has_overtaken_does_not_begin(played: Played, resume: bool) -> None:
    played.becomes = {"n2": Status.FAILED}
    assert played() == 1
    faster = Played(played.directory, cordoned=played.cordoned)
    played.becomes, played.loading = {}, once(lambda: faster())
    with pytest.raises(CannotRun, match=r"run 3 of .* was over .*n2.* while this one began"):
        played(resume=resume)
    assert played.cordoned == set()


def test_a_run_to_resume_that_has_nothing_left_to_read_is_not_alone_either(played: Played, other: Other) -> None:
    assert played(max_failures=0) == 0
    other.begin("n1", "n2", "n3")
    other.history.put(other.run, [Record(name=f"n{n}", status=Status.CHANGED, tier="chown") for n in (1, 2, 3)])
    other.history.finish(other.run, "interrupted: by somebody", 130)
    other.begin("n1", inventory="another")
    with pytest.raises(CannotRun, match="goes on over n1: wait for it"):
        played(resume=True)
