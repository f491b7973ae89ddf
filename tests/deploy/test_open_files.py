"""A fleet needs more open files than most systems begin with: pyinfra keeps a connection to every host."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from lab.paths import PYINFRA, REPO

# What a controller says with so many hosts, and the limit that it then has.
ALLOW = """
import resource, sys
from tasks import open_files
print(open_files.allow(int(sys.argv[1])))
print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""


def limited(limit: str, *words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", "-c", f'ulimit {limit} && exec "$@"', "sh", *map(str, words)],
        cwd=REPO,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        check=False,
    )


def allowed(limit: str, hosts: int) -> tuple[str, int]:
    said, left = limited(limit, sys.executable, "-c", ALLOW, str(hosts)).stdout.splitlines()
    return said, int(left)


def test_a_limit_that_is_enough_is_left_alone() -> None:
    assert allowed("-Sn 200", 100) == ("", 200)


def test_a_limit_that_may_be_raised_is_raised_for_so_many_hosts() -> None:
    said, left = allowed("-Sn 200", 101)
    assert (said, left >= 201) == ("", True)


def test_where_it_may_not_be_raised_far_enough_all_that_there_is_is_named() -> None:
    said, left = allowed("-Sn 200 && ulimit -Hn 300", 250)
    assert "250 hosts at once need 350 open files, and this shell allows 300" in said
    assert "ulimit -n 350" in said
    assert "--shard 200" in said
    assert left == 300


@pytest.mark.parametrize("words", [("deploy.py",), ("exec", "--", "true")])
def test_a_run_that_could_not_connect_to_all_of_its_hosts_connects_to_none(
    tmp_path: Path, words: tuple[str, ...]
) -> None:
    inventory = tmp_path / "many.py"
    inventory.write_text("nodes = [f'127.0.0.1:{port}' for port in range(1, 131)]\n")
    done = limited("-n 200", PYINFRA, "-y", inventory, *words)
    assert done.returncode == 1
    assert "130 hosts at once need 230 open files" in done.stderr
    assert "Connect" not in done.stdout + done.stderr.partition("130 hosts")[2]


def test_hosts_that_are_not_reached_over_ssh_need_no_connection(tmp_path: Path) -> None:
    assert limited("-n 90", PYINFRA, "-y", "@local", "exec", "--", "true").returncode == 0
