"""One host's trouble is that host's: it is named and explained, the others go on, and the exit code is 1."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests import nodes
from tests.deploy.fleet import CHANGE, PROVE, READ, TEXT, Fleet, Run, pyinfra
from userns import proof
from userns.node import Probe

DEBIAN_12 = {
    "kernel": "6.1.0-40-amd64",
    "os_version": "12",
    "probes": {**nodes.bare().probes, "tmpfs": Probe(result="cannot", step="tmpfs", errno="EINVAL")},
}
# What an operator, a cron job and a pipeline do; "closed" has no stdin at all, the others /dev/null.
MODES = {
    "dry": ["--dry"],
    "dry and closed": ["--dry"],
    "dry with diff": ["--dry", "--diff"],
    "dry with diff and closed": ["--dry", "--diff"],
    "dry as JSON": ["--dry", "--json"],
    "dry as JSON and closed": ["--dry", "--json"],
    "plan as JSON": ["--json"],
    "plan as JSON and closed": ["--json"],
    "for real": ["-y"],
    "for real and closed": ["-y"],
    "for real as JSON": ["-y", "--json"],
    "for real as JSON and closed": ["-y", "--json"],
}

# How each host is wrong, and what has to be said of it.
WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "typo": (
        {"containerd_verzion": "2.3.4"},
        "containerd_verzion = '2.3.4': there is no such setting. Write containerd_version",
    ),
    "type": (
        {"max_pods": "110"},
        "max_pods = '110': it is a string and not an int: write it without quotes. Allowed: ",
    ),
    "range": ({"max_pods": 0}, "max_pods = 0: it must be 1 to 65535. Allowed: a whole number of pods"),
    "choice": ({"default_runtime": "kata"}, "default_runtime = 'kata': it is none of the choices. Allowed: "),
    "unlocked": ({"runc_version": "0.1.2"}, "runc_version = '0.1.2': the lock file has no digest for runc 0.1.2"),
    "together": ({"default_runtime": "crun"}, "default_runtime = 'crun': crun is not installed: set crun_version too"),
    "number": ({"kubernetes_version": 1.3}, "kubernetes_version = 1.3: a number loses its last zero"),
    "slip": ({"allow": ["kernel-lacks-tmpfs-idmaps"]}, "did you mean 'kernel-lacks-tmpfs-idmap'?"),
    "unknown": ({"allow": ["no-such-thing"]}, "allow = 'no-such-thing': there is no finding with this id"),
    "lock": ({"artifact_lock": "no/such.toml"}, "artifact_lock = 'no/such.toml': it cannot be read: No such file"),
    "tables": ({"containerd_config": {"root": "/x"}}, 'containerd_config: root = "/x": set containerd_root'),
}


def fleet(directory: Path) -> Fleet:
    """Good hosts, and each kind of trouble."""
    made = Fleet(directory)
    made.add("fresh")
    made.add("converged", nodes.converged())
    for name, (settings, _) in WRONG.items():
        made.add(name, **settings)
    made.add("two-mistakes", max_pods="many", slow_chown="yes")
    made.add("debian-12", nodes.bare(**DEBIAN_12))
    made.add("debian-12-accepted", nodes.bare(**DEBIAN_12), allow=["kernel-lacks-tmpfs-idmap"])
    made.add("garbage", "-bash: warning: setlocale\nhello\n")
    made.add("cut-off", nodes.answer(nodes.bare())[:-30])
    made.add("nonsense", nodes.answer(nodes.bare()).replace("kernel\t6.12", "kernel\tsix"))
    made.add("silent", "")
    made.add("broken", answers={READ: {"success": False, "stderr": "sh: cannot fork"}})
    made.add(
        "no-text", nodes.bare(**nodes.sub_ids("a:1:2")), kubelet_id_range=(65536, 65536 * 110), answers={TEXT: "x"}
    )
    made.add_unreachable("unreachable")
    return made


REFUSED = [*WRONG, "two-mistakes", "debian-12", "garbage", "cut-off", "nonsense", "silent", "broken"]
GOOD = ["fresh", "converged", "debian-12-accepted"]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fleet")


@pytest.fixture(scope="module", params=MODES)
def run(request: pytest.FixtureRequest, directory: Path) -> Run:
    """The whole fleet, once in each mode."""
    return fleet(directory).deploy(*MODES[request.param], closed="closed" in request.param)


def test_the_exit_code_is_1_and_nothing_broke(run: Run) -> None:
    assert run.code == 1
    assert "Traceback" not in run.text
    assert "exception" not in run.text
    assert "pyinfra-debug.log" not in run.text


@pytest.mark.parametrize("host", WRONG)
def test_a_bad_setting_is_refused_with_its_name_its_value_and_what_is_allowed(run: Run, host: str) -> None:
    (told,) = run.refused(f"@fake/{host}")
    assert WRONG[host][1] in told


def test_all_mistakes_of_a_host_are_told_at_once(run: Run) -> None:
    assert [each.partition(" ")[0] for each in run.refused("@fake/two-mistakes")] == ["slow_chown", "max_pods"]


def test_a_blocker_refuses_its_node_and_says_what_could_be_accepted(run: Run) -> None:
    said = run.said("@fake/debian-12")
    assert said[0].startswith("tier rootfs-only: ")
    assert [line for line in said if line.startswith("blocker kernel-lacks-tmpfs-idmap: ")]
    (told,) = run.refused("@fake/debian-12")
    assert told.endswith('allow = ["kernel-lacks-tmpfs-idmap"]')
    assert run.will("@fake/debian-12") == []


def test_an_accepted_blocker_is_a_warning_and_the_node_goes_on(run: Run) -> None:
    said = run.said("@fake/debian-12-accepted")
    assert [
        line for line in said if line.startswith('warning kernel-lacks-tmpfs-idmap (a blocker, accepted by "allow")')
    ]
    assert run.refused("@fake/debian-12-accepted") == []
    assert run.will("@fake/debian-12-accepted")


@pytest.mark.parametrize(
    ("host", "why"),
    [
        ("garbage", "lacks its first line; it begins with '-bash: warning: setlocale'"),
        ("cut-off", "was cut off after"),
        ("nonsense", "is no kernel release such as 6.12.5"),
        ("silent", "the node answered nothing"),
        ("broken", "sh: cannot fork"),
        ("unreachable", "Could not connect"),
    ],
)
def test_a_node_that_cannot_be_read_says_why(run: Run, host: str, why: str) -> None:
    name = host if host == "unreachable" else f"@fake/{host}"
    assert why in "\n".join(run.said(name))
    assert run.will(name) == []


def test_the_good_hosts_go_on(run: Run) -> None:
    assert run.said("@fake/converged")[-1] == "nothing to do"
    assert len(run.will("@fake/fresh")) == 13


def test_no_refused_host_gets_an_operation(directory: Path) -> None:
    planned = fleet(directory).deploy("--dry", "--json")
    concerned = {host for each in planned.json["plan"] for host in each["hosts_with_change"]}
    assert concerned == {"@fake/fresh", "@fake/debian-12-accepted", "@fake/no-text"}
    assert planned.json["results"] is None


def test_the_results_name_every_host_that_failed(directory: Path) -> None:
    results = fleet(directory).deploy("-y", "--json").json["results"]
    names = ["unreachable", *(f"@fake/{name}" for name in REFUSED)]
    assert results["failed_hosts"] == sorted(names)
    assert results["totals"]["error"] == 0


def test_a_diff_that_cannot_be_had_refuses_that_host_alone(directory: Path) -> None:
    planned = fleet(directory).deploy("--dry", "--diff", "--json")
    assert planned.refused("@fake/no-text") == [
        "the node's files could not be read for a diff: the answer is not whole"
    ]
    assert planned.operations("@fake/no-text") == []
    assert planned.operations("@fake/fresh")


# --- nobody is left -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_where_all_hosts_are_refused_the_run_ends_in_order(tmp_path: Path, mode: str) -> None:
    options, closed = MODES[mode], mode.endswith("closed")
    bad = Fleet(tmp_path)
    hosts = [bad.add(f"bad-{number}", max_pods="many") for number in range(3 if closed else 1)]
    run = bad.deploy(*options, closed=closed)
    assert run.code == 1
    assert "Traceback" not in run.text
    assert "exception" not in run.text
    for host in hosts:
        assert len(run.refused(host)) == 1
    if "--json" in options:
        assert run.json["plan"] == []
        assert run.json["results"] is None or run.json["results"]["failed_hosts"] == sorted(hosts)


@pytest.mark.parametrize("options", [["--dry", "--json"], ["-y", "--json"]])
def test_json_is_json_where_no_host_can_be_reached(tmp_path: Path, options: list[str]) -> None:
    gone = Fleet(tmp_path)
    gone.add_unreachable("gone")
    run = gone.deploy(*options)
    assert (run.code, run.json["plan"]) == (1, [])


def test_json_is_json_where_the_only_host_fails_in_the_midst_of_it(tmp_path: Path) -> None:
    one = Fleet(tmp_path)
    host = one.add("one", answers={CHANGE: {"success": False, "stderr": "error: containerd.service did not start"}})
    run = one.deploy("-y", "--json")
    assert run.code == 1
    assert run.json["results"]["failed_hosts"] == [host]
    assert "error: containerd.service did not start" in run.said(host)


# --- what nobody foresaw ------------------------------------------------------------------------------------------

# The real deploy.py, with parts of it that raise an error on the host that is named for them.
SABOTAGE = """
from pathlib import Path
from pyinfra import host
from tasks import assess, containerd, install, settings, verify

originals = []

def sabotage(module, name, error):
    original, where = getattr(module, name), module.__name__.removeprefix("tasks.") + "." + name

    def sabotaged(*args, **kwargs):
        if host.name == "@fake/" + where:
            raise error
        return original(*args, **kwargs)

    originals.append((module, name, original))
    setattr(module, name, sabotaged)

try:
    {sabotage}
    exec(Path("deploy.py").read_text())
finally:
    for original in originals:
        setattr(*original)
"""
PLACES = {
    "assess.templates": "ZeroDivisionError('at https://user:hunter2@mirror.example')",
    "settings.load": "KeyError('no such key')",
    "install.stage": "RuntimeError('first line\\nsecond line')",
    "containerd.stage": "ValueError('a control character')",
    "verify.prove": "OSError('disk full')",
}
PLACE = "assess.templates"


def sabotaged(directory: Path, places: Mapping[str, str]) -> Path:
    path = directory / "sabotaged.py"
    calls = [
        f"sabotage({module}, {name!r}, {error})"
        for (module, name), error in ((place.split("."), error) for place, error in places.items())
    ]
    path.write_text(SABOTAGE.format(sabotage="; ".join(calls)))
    return path


@pytest.mark.parametrize("options", [["-y"], ["--dry", "--json"]], ids=" ".join)
def test_an_error_that_nobody_foresaw_stays_with_its_host(tmp_path: Path, options: list[str]) -> None:
    made = Fleet(tmp_path)
    good = made.add("good")
    buggy = {made.add(place): error for place, error in PLACES.items()}
    run = pyinfra(made.inventory, sabotaged(tmp_path, PLACES), *options)
    assert run.code == 1
    assert len(run.will(good)) == 13
    assert "Traceback" not in run.text
    assert "hunter2" not in run.text
    if "--json" in options:
        assert run.operations(good)
    for host, error in buggy.items():
        assert run.refused(host)[0].startswith(f"unexpected {error.partition('(')[0]}: ")
        how = "`pyinfra INVENTORY deploy.py --dry --debug --limit HOST` shows where; please report it"
        assert how in "\n".join(run.said(host))
        assert "--json" not in options or run.operations(host) == []


def test_a_config_that_cannot_be_written_is_the_operators_and_no_bug(tmp_path: Path) -> None:
    made = Fleet(tmp_path)
    host = made.add(PLACE)
    error = "assess.ConfigError('containerd_config: it sets a.b, which is written from the other settings')"
    run = pyinfra(made.inventory, sabotaged(tmp_path, {PLACE: error}), "--dry")
    assert run.code == 1
    assert run.refused(host) == ["containerd_config: it sets a.b, which is written from the other settings"]


def test_an_error_on_the_only_host_ends_the_run_in_order(tmp_path: Path) -> None:
    made = Fleet(tmp_path)
    host = made.add(PLACE)
    run = pyinfra(made.inventory, sabotaged(tmp_path, PLACES), "--dry")
    assert run.code == 1
    assert len(run.refused(host)) == 1
    assert "No hosts remaining" not in run.text


@pytest.mark.parametrize("closed", [False, True])
def test_an_operator_with_a_config_of_their_own_is_asked_nothing_either(tmp_path: Path, closed: bool) -> None:
    (tmp_path / "own.py").write_text("")
    made = Fleet(tmp_path)
    bad, good = made.add("bad", max_pods="many"), made.add("good")
    run = made.deploy("--dry", "--config", str(tmp_path / "own.py"), closed=closed)
    assert run.code == 1
    assert len(run.refused(bad)) == 1
    assert len(run.will(good)) == 13
    assert "Traceback" not in run.text


def test_debug_shows_where_such_an_error_came_from(tmp_path: Path) -> None:
    made = Fleet(tmp_path)
    made.add(PLACE)
    run = pyinfra(made.inventory, sabotaged(tmp_path, PLACES), "--dry", "--debug")
    assert "in sabotaged" in run.text
    assert "hunter2" not in run.text


def test_a_node_without_a_proof_fails_and_the_others_are_proven(tmp_path: Path) -> None:
    answers = {
        "silent": ("", "no line 'userns-node-proof'"),
        "cut": ("userns-node-proof\t2\trunc\n", "the proof was cut off"),
        "failed": (
            "userns-node-proof\t2\trunc\nfailed\trunc\t0.1\tno idmap here\nuserns-node-proof-end\t1",
            "no idmap here",
        ),
        "no-handler": ("userns-node-proof\t2\t\nuserns-node-proof-end\t0", "proof-handler-missing"),
    }
    made = Fleet(tmp_path)
    good = made.add("good")
    bad = {made.add(name, answers={PROVE: answer}): why for name, (answer, why) in answers.items()}
    run = made.deploy("-y", "--json")
    assert run.code == 1
    assert run.json["results"]["failed_hosts"] == sorted(bad)
    for host, why in bad.items():
        assert why in "\n".join(run.said(host))
    assert "runc: proven" in "\n".join(run.said(good))
    assert f"kubectl label --overwrite node {good} userns-node/tier=idmapped" in run.stderr


def test_an_error_in_judging_a_proof_does_not_end_the_run_of_all(tmp_path: Path) -> None:
    made = Fleet(tmp_path)
    host, done = made.add("one"), made.add("done", nodes.converged())
    (tmp_path / "broken.py").write_text(
        'from tasks import verify\nverify.proof.judge = None\nexec(open("deploy.py").read())\n'
    )
    run = pyinfra(made.inventory, tmp_path / "broken.py", "-y", "--json")
    assert run.json["results"]["failed_hosts"] == [host]
    said = "\n".join(run.said(host))
    assert "unexpected TypeError: " in said
    assert "`pyinfra INVENTORY tasks.verify.user_namespace --debug --limit HOST` shows where" in said
    assert "nothing to do" in run.said(done)


def test_what_was_told_of_a_failed_proof_is_not_printed_again_raw(tmp_path: Path) -> None:
    made = Fleet(tmp_path)
    answer = f"{proof.BEGIN}\t{proof.FORMAT}\trunc\nfailed\trunc\t0.1\tno idmap here\n{proof.END}\t1"
    bad = made.add("bad", answers={PROVE: answer})
    run = made.deploy("-y")
    assert "runc: did not start in a user namespace: no idmap here" in run.said(bad)
    assert proof.END not in run.stderr
