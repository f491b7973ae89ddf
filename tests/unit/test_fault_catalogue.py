"""The cases of the fault harness: drawn by a seed, named so that each runs again alone, and when each one strikes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from tests.faults.catalogue import FAULTS, Case, sample, whole
from tests.faults.ground import Ground
from tests.faults.running import Outcome, strikes
from tests.node.faults import STATE
from tests.node.test_faults import CI_SEED, SAMPLE

LENGTHS = {"config": 80, "runc": 80, "containerd": 102, "all": 126, "back": 162}


@pytest.mark.parametrize("seed", range(20))
def test_a_whole_run_has_every_fault_and_a_kill_at_every_step(seed: int) -> None:
    cases = whole(seed, LENGTHS)
    assert len(cases) >= 200
    assert {case.fault for case in cases} == set(FAULTS)
    killed = {case.step for case in cases if (case.fault, case.change) == ("kill", "config")}
    assert killed == set(range(1, 81))


def test_a_seed_draws_the_same_cases_again() -> None:
    assert whole(1, LENGTHS) == whole(1, LENGTHS) != whole(2, LENGTHS)
    assert sample(1, 12, LENGTHS) == sample(1, 12, LENGTHS) != sample(2, 12, LENGTHS)


@pytest.mark.parametrize("seed", range(20))
def test_a_name_says_all_of_a_case(seed: int) -> None:
    for case in whole(seed, LENGTHS):
        assert Case.of(str(case)) == case
        assert case.step is None or 1 <= case.step <= LENGTHS[case.change]


@pytest.mark.parametrize("seed", range(20))
def test_a_sample_is_of_different_faults_on_one_file_system(seed: int) -> None:
    cases = sample(seed, 12, {"config": 80, "containerd": 102})
    assert len({case.fault for case in cases}) == 12
    assert not any(case.apart for case in cases)
    assert {case.change for case in cases} <= {"config", "containerd"}


@pytest.mark.parametrize("lengths", [{"config": 60, "containerd": 80}, {"config": 120, "containerd": 150}])
def test_the_cases_of_ci_strike_at_a_step(lengths: dict[str, int]) -> None:
    cases = sample(CI_SEED, SAMPLE, lengths)
    assert all(case.step for case in cases), cases
    assert {"kill", "power", "step-fails"} <= {case.fault for case in cases}


@pytest.mark.parametrize(
    ("staged", "ends", "text"),
    [
        pytest.param(True, [False, False], "ok ", id="it is at work"),
        pytest.param(True, [False, True], "NOT STRUCK ", id="it has ended when the time has come"),
        pytest.param(False, [False, True], "NOT STRUCK ", id="it ends without a change"),
    ],
)
def test_a_fault_at_a_time_counts_only_where_the_change_was_on_its_way(
    tmp_path: Path, staged: bool, ends: list[bool], text: str
) -> None:
    directory = tmp_path / STATE / "staged"
    directory.mkdir(parents=True)
    says: Iterator[bool] = iter(ends)
    case = Case.of("power@config:~0.4")
    ground = cast(Ground, SimpleNamespace(root=tmp_path))

    def ended() -> bool:
        if staged:
            (directory / "0123456789abcdef").mkdir(exist_ok=True)
        return next(says)

    assert str(Outcome(case, strikes(ground, case, 0.01, ended), (), "", 1.0)).startswith(text)


@pytest.mark.parametrize(
    "name",
    ["", "kill", "kill@", "kill@nothing:1", "nothing@config:1", "kill@config:x", "kill@config:1/", "kill@config:~1.5"],
)
def test_what_names_no_case_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="is no case: expected a name such as"):
        Case.of(name)
