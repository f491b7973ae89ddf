"""A kubelet that runs when its range is written, and goes on with the one that it had, by the record."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tasks import next_step
from tests.deploy.node_trees import Tree
from tests.deploy.test_activation_steps import run
from userns.paths import MANIFEST

BOOT = "0b5c5c5e-0000-4000-8000-000000000000"


def record_of(process: int, ticks: int, boot: str = BOOT) -> str:
    return f"kubelet\t{process}\t{ticks}\t{boot}\n"


def runs(tree: Tree, process: int, ticks: int) -> None:
    """That process, whose program has a name that is hard to read, in a kernel's words."""
    before = "S 1 1 1 0 -1 4194304 1 0 0 0 0 0 0 0 20 0 1 0"
    tree.write(f"proc/{process}/stat", f"{process} (ku) be let) {before} {ticks} 1 2 3\n")
    tree.write("proc/sys/kernel/random/boot_id", f"{BOOT}\n")


def test_the_process_that_runs_is_written_down_as_the_kernel_has_it(tmp_path: Path) -> None:
    process = os.getpid()
    ticks = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[19]
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    said = run(tmp_path, "note_kubelet", "note_kubelet kubelet.service", systemctl=f"echo {process}")
    assert said == [f"kubelet\t{process}\t{ticks}\t{boot}"]


@pytest.mark.parametrize("answer", ["echo 0", "echo 99999999", "exit 1"])
def test_no_kubelet_is_no_line_and_no_failure(tmp_path: Path, answer: str) -> None:
    assert run(tmp_path, "note_kubelet", "note_kubelet kubelet.service && echo well", systemctl=answer) == ["well"]


def test_it_is_older_for_as_long_as_it_runs(tree: Tree, shell: list[str]) -> None:
    tree.write(MANIFEST[1:], record_of(71, 5000))
    assert not tree.read(shell).kubelet_is_older  # it has ended
    runs(tree, 71, 5000)
    assert tree.read(shell).kubelet_is_older
    runs(tree, 71, 5001)  # another process, of the same number
    assert not tree.read(shell).kubelet_is_older
    runs(tree, 71, 5000)
    tree.write(MANIFEST[1:], record_of(71, 5000, boot="another"))
    assert not tree.read(shell).kubelet_is_older
    tree.write(MANIFEST[1:], "kubelet\n" + record_of(70, 1) + record_of(71, 5000))
    assert tree.read(shell).kubelet_is_older


def test_a_rollback_takes_away_no_range_and_keeps_what_is_known_of_the_kubelet(tmp_path: Path) -> None:
    state, stage = tmp_path / "state", tmp_path / "stage"
    for each in (state / "undo", stage):
        each.mkdir(parents=True)
    (state / "undo" / "1").write_text("file\t/etc/a\tnow\n" + record_of(71, 5000))
    (state / "manifest").write_text("file\t/etc/a\tthen\n" + record_of(3, 4))
    (state / "undo" / "restore").write_text(f"put\t{state}/manifest\t1\n")
    (stage / "actions").touch()
    begin = f"tab='\t' state={state} back={state}/undo stage={stage}; replace() {{ cat >\"$1\"; }}; "
    run(tmp_path, "saved_record settle_manifest", begin + "settle_manifest")
    assert (state / "manifest").read_text() == "file\t/etc/a\tthen\n" + record_of(71, 5000)


def test_the_end_of_a_run_says_whose_kubelet_is_to_be_restarted(capsys: pytest.CaptureFixture[str]) -> None:
    text = "\n".join(next_step.restarts(["b", "a"], "look again"))
    assert "(systemctl restart kubelet) of a, b" in text
    assert "Then: look again" in text
