"""The console of the command lines: a terminal that lacks characters, and a reader that has seen enough."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fleet.history import History
from tests.unit.test_explain import NODE
from userns.__main__ import ROOT


def start(*arguments: str, **environment: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", *arguments],
        cwd=ROOT,
        env=os.environ | environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def ascii_only(code: int, *arguments: str, given: bytes = b"") -> str:
    """What it prints where only ASCII can be encoded."""
    process = start(*arguments, PYTHONIOENCODING="ascii")
    out, err = process.communicate(given)
    assert (process.returncode, err) == (code, b"")
    return out.decode("ascii")


def test_a_help_with_an_ellipsis_is_printed_without_it() -> None:
    assert "COMPONENT VERSION\\u2026" in ascii_only(0, "artifacts", "add", "--help")


def test_a_diagnosis_with_an_ellipsis_is_printed_without_it() -> None:
    given = b"x" * 999 + b" runtime does not support user namespaces"
    assert ascii_only(0, "userns", "diagnose", given=given).startswith("line 1: \\u2026 xxx")


def test_json_is_json_there_too(tmp_path: Path) -> None:
    fact = tmp_path / "nodes.json"
    fact.write_text(json.dumps({"caf\xe9-\U0001f600": NODE.to_json()}))
    assert list(json.loads(ascii_only(0, "userns", "explain", "--json", str(fact)))) == ["caf\xe9-\U0001f600"]


@pytest.mark.parametrize("arguments", [("explain", "--containerd", "2.3.5"), ("explain", "--help")])
def test_a_reader_that_has_seen_enough_is_no_verdict(arguments: tuple[str, ...]) -> None:
    process = start("userns", *arguments, PYTHONUNBUFFERED="")  # with it argparse drops the error of its help itself
    assert process.stdout
    assert process.stderr
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(300) == 141


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("words", ["-m userns explain --containerd 2.3.5", "fleet.py history --history {}"])
def test_an_output_that_cannot_be_written_is_one_line(tmp_path: Path, words: str, unbuffered: str) -> None:
    History(tmp_path / "history.db").close()
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, *words.format(tmp_path / "history.db").split()],
            cwd=ROOT,
            env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert (done.returncode, done.stderr) == (1, "the output cannot be written: No space left on device\n")


def test_another_file_that_cannot_be_written_is_not_taken_for_the_output() -> None:
    write = "lambda: open('/dev/full', 'w').write('x' * 99999)"
    code = f"import sys; from userns import console\nsys.exit(console.run({write}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert "OSError: [Errno 28] No space left on device" in done.stderr
    assert "the output cannot be written" not in done.stderr


@pytest.mark.parametrize(("closed", "told"), [("2>&-", True), (">&-", False), ("<&- >&- 2>&-", False), ("<&-", True)])
def test_what_is_closed_is_written_to_by_nobody(tmp_path: Path, closed: str, told: bool) -> None:
    """The first file that is opened has the number of what was closed, and a child has it too."""
    code = (
        "import os, subprocess, sys; from userns import console\n"
        "def main():\n"
        f"    file = open({str(tmp_path / 'file')!r}, 'w')\n"
        "    print('out'); print('err', file=sys.stderr); os.write(2, b'raw'); sys.stderr.isatty()\n"
        "    return subprocess.run([sys.executable, '-c', 'import os; os.write(2, b\"child\")']).returncode\n"
        "sys.exit(console.run(main))\n"
    )
    words = ["sh", "-c", f'exec "$@" {closed}', "sh", sys.executable, "-c", code]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "out\n" if told else "")
    assert done.stderr == ("" if "2>&-" in closed else "err\nrawchild")
    assert (tmp_path / "file").read_text() == ""
