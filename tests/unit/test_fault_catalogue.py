"""The cases of the fault harness: drawn by a seed, named so that each runs again alone."""

from __future__ import annotations

import pytest

from tests.faults.catalogue import FAULTS, Case, sample, whole

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


@pytest.mark.parametrize(
    "name", ["", "kill", "kill@", "kill@nothing:1", "nothing@config:1", "kill@config:x", "kill@config:1/"]
)
def test_what_names_no_case_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="is no case: expected a name such as"):
        Case.of(name)
