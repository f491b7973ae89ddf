"""Where the check writes its answer: a device, a FIFO and a directory stay what they are, and no link is followed."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

from tests import nodes
from tests.conftest import program
from tests.unit.check_place import Place
from tests.unit.test_check import rendered
from userns import readiness


def written(here: Place, shell: list[str], *arguments: str, reading: Path | None = None) -> tuple[int, str, str, str]:
    """Exit code, standard output and error, and what came through the FIFO that is read meanwhile."""
    here.be(nodes.bare())
    policy = nodes.policy()
    text = rendered(policy, readiness.of_node(nodes.bare(), policy))
    reader = subprocess.Popen(["cat", str(reading or os.devnull)], stdout=subprocess.PIPE, text=True)
    try:
        done = here.run(text, *arguments, shell=shell)
        came, _ = reader.communicate(timeout=20)
    finally:
        reader.kill()
    return done.returncode, done.stdout, done.stderr, came


def test_a_fifo_is_written_into_and_stays(here: Place, tmp_path: Path, shell: list[str]) -> None:
    fifo, link = tmp_path / "fifo", tmp_path / "link"
    os.mkfifo(fifo)
    link.symlink_to("fifo")
    for name in (fifo, link):
        code, said, _, came = written(here, shell, "--write", str(name), reading=fifo)
        assert (code, json.loads(came)["tier"], said.split(",")[0]) == (1, "idmapped", "userns-node: degraded")
        assert (fifo.is_fifo(), link.is_symlink(), len(os.listdir(tmp_path))) == (True, True, 2)


def test_a_fifo_that_nobody_reads_does_not_hold_it(here: Place, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    here.program("timeout", f'case $* in *fifo) shift && set -- 1 "$@" ;; esac; exec {program("timeout")} "$@"')
    try:
        code, _, said, _ = written(here, ["sh"], "--write", str(tmp_path / "fifo"))
    finally:
        here.link("timeout")
    assert (code, said.splitlines()[-1]) == (73, f"check: {tmp_path}/fifo cannot be written")


def test_a_directory_is_not_written_into(here: Place, tmp_path: Path, shell: list[str]) -> None:
    (tmp_path / "directory").mkdir()
    (tmp_path / "link").symlink_to("directory")
    for name in ("directory", "link", "new/"):
        code, _, said, _ = written(here, shell, "--write", f"{tmp_path}/{name}")
        assert (code, said) == (73, f"check: {tmp_path}/{name} cannot be written\n")
    assert [path for path in tmp_path.rglob("*") if path.is_file() and not path.is_dir()] == []
    assert (tmp_path / "link").is_symlink()


def test_a_link_to_a_file_is_replaced_and_not_followed(here: Place, tmp_path: Path, shell: list[str]) -> None:
    """Whoever may write in that directory could lead root anywhere."""
    other = tmp_path / "other"
    other.write_text("theirs")
    for leads in ("other", "nowhere"):
        link = tmp_path / f"to-{leads}"
        link.symlink_to(leads)
        assert written(here, shell, "--write", str(link))[0] == 1
        assert not link.is_symlink()
        assert json.loads(link.read_text())["tier"] == "idmapped"
    assert (other.read_text(), (tmp_path / "nowhere").exists()) == ("theirs", False)


def test_standard_output_by_its_name_gets_the_json_alone(here: Place, shell: list[str]) -> None:
    code, said, _, _ = written(here, shell, "--write", "/proc/self/fd/1")
    assert (code, json.loads(said)["tier"]) == (1, "idmapped")


def test_standard_error_by_its_name_is_written_into(here: Place, shell: list[str]) -> None:
    code, _, said, _ = written(here, shell, "--write", "/proc/self/fd/2")
    assert (code, json.loads(said)["tier"]) == (1, "idmapped")
