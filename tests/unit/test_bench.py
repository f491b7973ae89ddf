"""The benchmark's arithmetic: what it says of its figures is never better than what it measured."""

from __future__ import annotations

import cProfile
import json
import pstats
import time
from pathlib import Path
from statistics import median

import packaging.version
import pytest

from bench import fresh, images, many, plan, profile, report
from bench.ansible import tasks_that_were_ok
from bench.measure import Cost
from bench.report import OURS, THEIRS, Fleet
from lab import LabError

RECAP = """
PLAY RECAP *********************************************************************
node1                      : ok=31   changed=0    unreachable=0    failed=0    skipped=0    rescued=0    ignored=0
node2                      : ok=31   changed=0    unreachable=0    failed=0    skipped=0    rescued=0    ignored=0
"""


def cost(wall: float, cpu: float, nodes: float = 1.0) -> Cost:
    return Cost(wall, cpu, nodes, load=0.5, status=0, output="…")


def fleet(hosts: int = 10, *, real: bool = True) -> Fleet:
    ours = [cost(2.0, 1.0, 1.0), cost(9.0, 1.2, 1.1), cost(1.0, 0.8, 0.9)]
    return Fleet(hosts, real, {OURS: ours, THEIRS: [cost(119.9, 59.0, 80.0)]})


def test_a_ratio_is_of_medians_and_rounded_down() -> None:
    assert fleet().times("wall") == pytest.approx(59.95)
    assert report.ratio(fleet().times("wall")) == "59x"
    assert report.ratio(9.99) == "9.9x"


def test_the_table_has_a_row_for_each_fleet_and_says_which_ran_dry() -> None:
    table = report.markdown([fleet(), fleet(50, real=False)], {OURS: 1, THEIRS: 54}, cores=2)
    assert "| 10 nodes | 2.00 s | 120 s | 59x | 1.00 s | 59 s | 59x |" in table
    assert "| 50 addresses, dry | 2.00 s | 120 s | 59x | 1.00 s | 59 s | 59x |" in table
    assert "1 remote command for userns-node and 54 for Ansible, and spends 0.10 s and 8.00 s of its own CPU" in table
    assert "share 2 cores" in table


def test_the_json_keeps_every_run() -> None:
    figures = report.as_json([fleet()], {OURS: 1, THEIRS: 54}, 31, {"cores": 2})
    assert [run["wall"] for run in figures["fleets"][0]["runs"][OURS]] == [2.0, 9.0, 1.0]
    assert figures["fleets"][0]["times"]["controller_cpu"] == 59.0
    assert figures["machine"] == {"cores": 2}


def test_ansible_counts_only_where_every_task_was_ok_on_every_host() -> None:
    assert tasks_that_were_ok(RECAP, ["node1", "node2"]) == 31


@pytest.mark.parametrize(
    "output",
    [
        RECAP.replace("changed=0", "changed=1", 1),
        RECAP.replace("failed=0", "failed=1", 1),
        RECAP.replace("skipped=0", "skipped=1", 1),
        RECAP.replace("unreachable=0", "unreachable=1", 1),
        RECAP.replace("ok=31", "ok=30", 1),
        RECAP.replace("node2", "node3"),
        "",
    ],
)
def test_ansible_that_found_anything_to_do_is_no_measurement(output: str) -> None:
    with pytest.raises(LabError, match="did not find every node"):
        tasks_that_were_ok(output, ["node1", "node2"])


def test_a_second_worker_is_judged_by_medians_and_rounded_down() -> None:
    walls = {1: [20.0, 18.0, 90.0], 2: [10.02, 10.0, 11.0]}
    costs = [many.Cost(n, 800, wall, 8.0, 0.8, 1.6, 0.5) for n, each in walls.items() for wall in each]
    assert many.speedup(costs) == pytest.approx(20.0 / 10.02)
    assert many.per_node(costs) == {"workers_cpu": 10.0, "scheduler_cpu": 1.0, "controller_cpu": 2.0}
    assert many.summary(costs).startswith("two workers are 1.99 times as fast as one;")


def test_a_bakes_missed_goal_is_told_beside_its_median() -> None:
    bakes = {
        "first": [images.Cost(4.0, 2.0, 1.0), images.Cost(9.0, 2.2, 1.0), images.Cost(4.5, 2.1, 1.0)],
        "second": [images.Cost(1.2, 0.9, 1.0)],
    }
    table = images.table(bakes)
    assert "| the first | 5 s | 4.50 s | 2.10 s |" in table
    assert "| the second | 1 s | 1.20 s (missed) | 0.90 s |" in table
    raw = images.as_json(bakes, {"cores": 2})
    assert raw["bakes"]["second"] == [{"wall": 1.2, "cpu": 0.9, "load": 1.0}]


def fresh_figures(ours: float) -> list[fresh.Figure]:
    walls = {fresh.BY_HAND: (5.0, 5.0, 9.0), fresh.SAME_STEPS: (10.0, 10.0, 99.0), fresh.OURS: (ours, ours, 1.0)}
    return [fresh.Figure(tool, 4, wall, 1.0, 2.0, 0.5) for tool, three in walls.items() for wall in three]


@pytest.mark.parametrize(
    ("ours", "same", "by_hand"), [(12.41, "1.25", "2.49"), (12.5, "1.25", "2.50"), (12.51, "1.26 (missed)", "2.51")]
)
def test_fresh_nodes_against_scripts_are_ratios_of_medians_rounded_up(ours: float, same: str, by_hand: str) -> None:
    row = f"| 4 | {ours:.1f} s | 10.0 s | {same} | 5.0 s | {by_hand} | 2.0 s, 2.0 s, 2.0 s |"
    assert row in fresh.table(fresh_figures(ours))


def test_a_plans_cost_is_told_for_each_node_and_apart_for_played_ones_and_for_the_least_that_there_is() -> None:
    runs = ((1000, plan.TRUE, 6.0), (1000, plan.PLAN, 8.0), (1000, plan.PLAN, 9.0), (1000, plan.PLAY, 4.0))
    table = plan.table([plan.Figure(nodes, what, 20.0, cpu, 9.0, 99.5, 0.5) for nodes, what, cpu in runs])
    assert table.splitlines()[2:] == [
        "| 1,000 | `true` | 20.0 s | 6.0 s | 6 ms | 9.0 s | 100 MiB |",
        "| 1,000 | a plan | 20.0 s | 8.5 s | 8 ms | 9.0 s | 100 MiB |",
        "| 1,000 | a plan, played | 20.0 s | 4.0 s | 4 ms | 9.0 s | 100 MiB |",
    ]


def test_a_profile_names_whose_code_it_is_and_gives_built_ins_to_their_callers() -> None:
    def ours() -> int:
        return sum(sorted(range(1_000_000)))

    with cProfile.Profile(time.process_time) as found:  # in its own time: it is one of many processes
        ours()
        json.dumps([{"a": 1}] * 10_000, indent=1)
        packaging.version.Version("1.2.3")
    shares = profile.by_package(pstats.Stats(found))
    assert {"userns-node", "Python's library", "packaging"} <= shares.keys()
    assert "~" not in shares
    assert shares["userns-node"] > shares["packaging"]


def test_the_table_of_a_profile_adds_up() -> None:
    assert profile.table({"paramiko": 5.0, "gevent": 4.9, "cffi": 0.06, "yaml": 0.04}).splitlines()[2:] == [
        "| paramiko | 50% |",
        "| gevent | 49% |",
        "| all others | 1% |",
    ]


def test_the_page_on_many_controllers_reckons_with_the_figures_that_are_kept() -> None:
    root = Path(__file__).resolve().parent.parent.parent
    plans, shared = (
        json.loads(max((root / "bench/results").glob(f"*-{kind}.json")).read_text("utf-8")) for kind in ("plan", "many")
    )
    runs = [run for run in plans["runs"] if run["what"] == "a plan"]
    few, lot = (median(run["controller_cpu"] for run in runs if run["nodes"] == nodes) for nodes in (10, 1000))
    each = (lot - few) / 990 * 1000
    page = (root / "docs/how-to/many-controllers.md").read_text("utf-8")
    assert f"{lot:.1f} s for 1,000 addresses in one process, and {few:.1f} s for 10, in " in page
    assert f"{each:.1f} ms for each more | {round(each, 1) * 100:.0f} s |" in page
    assert f"| {few:.1f} s: a plan of 10 addresses | 500 shards, {round(few, 1) * 500:.0f} s |" in page
    per_node = shared["cpu_ms_per_node"]
    assert f"| {per_node['controller_cpu']} ms a node (`python -m bench many`, 4,000 nodes) |" in page
    assert f"| {per_node['scheduler_cpu']} ms a node |" in page
