"""Diagnosis: error texts, each with what it has to be recognised as, and healthy logs that mean nothing."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.kernels import KERNELS
from tests import texts
from userns import diagnose as diagnosing
from userns.__main__ import ROOT, main
from userns.diagnose import Diagnosis, diagnose
from userns.settings import SETTINGS
from userns.tables import KNOWN_IDS
from userns.tables.symptoms import SYMPTOMS

TEXTS = [(each.text, each.symptom) for each in texts.TEXTS]

HEALTHY = """\
containerd[77]: time="2026-11-24T03:37:00Z" level=info msg="starting containerd" revision=77a7 version=v2.3.4
containerd[77]: level=info msg="loading plugin" id=io.containerd.snapshotter.v1.overlayfs
containerd[77]: level=info msg="skip loading plugin" error="zfs snapshotter cannot be enabled: path must be zfs" id=zfs
containerd[77]: level=info msg="RunPodSandbox for name:\\"nginx\\" uid:\\"9587ef35\\" returns sandbox id \\"5c\\""
containerd[77]: level=info msg="StartContainer for \\"3e5d4c\\" returns successfully"
containerd[77]: level=error msg="cni plugin not initialized"
containerd[77]: level=warning msg="cleaning up after shim disconnected" id=5c namespace=k8s.io
kubelet[99]: I1124 "Creating user namespace for pod" pod="default/nginx"
kubelet[99]: E1124 "Failed to pull image" err="failed to resolve reference: 404 Not Found"
kubelet[99]: W1124 pod "x" has a volume that is not writable: permission denied
overlay on / type overlay (rw,relatime,lowerdir=/tmp/ovl-idmapped2850394391/fs,upperdir=/var/lib/containerd/316643/fs)
overlay / overlay rw,relatime,lowerdir=/tmp/ovl-idmapped2850394391/fs,upperdir=/var/lib/containerd/316643/fs 0 0
99 98 0:42 / / rw,relatime - overlay overlay rw,lowerdir=/tmp/ovl-idmapped27/fs,upperdir=/var/lib/containerd/3/fs
         0      65536      65536
         0     131072      65536
kubelet:65536:7208960
drwxr-xr-x    2 root     root          4096 Dec  5 02:45 /mounted/
-rw-r--r-- 1 nobody root 12 Jan  1 00:00 state
uid=65534(nobody) gid=65534(nogroup) groups=65534(nogroup)
kernel: overlayfs: upper fs does not support RENAME_WHITEOUT.
kernel: overlayfs: missing 'lowerdir'
write /var/lib/x: no space left on device
mount: /mnt: permission denied.
ping: example.invalid: Name or service not known
[demo] runc: proven: root is host uid 65536, uid_map 0 65536 65536, an idmapped rootfs, started in 0.08 s
"""


def ids(text: str) -> list[str]:
    return [each.id for each in diagnose(text)]


@pytest.mark.parametrize(("text", "expected"), TEXTS, ids=lambda each: each if " " not in each else "")
def test_a_text_is_recognised_as_what_it_is_and_as_nothing_else(text: str, expected: str) -> None:
    assert ids(text) == [expected]
    (found,) = diagnose(text)
    assert found.cause
    assert found.fix
    assert found.source


def test_what_a_kernel_said_names_it_and_what_ran_on_it() -> None:
    measured = [each for each in texts.TEXTS if each.kernel]
    assert measured
    for each in measured:
        assert each.kernel in KERNELS
        assert each.containerd
        assert each.runtime


def test_every_symptom_has_a_text() -> None:
    assert {expected for _, expected in TEXTS} == {row.id for row in SYMPTOMS}


@pytest.mark.parametrize("line", [each for each in HEALTHY.splitlines() if not re.fullmatch(r"[\s\d]+", each)])
def test_a_healthy_line_means_nothing(line: str) -> None:
    assert diagnose(line) == ()


def test_a_healthy_log_means_nothing_as_a_whole() -> None:
    assert diagnose(HEALTHY * 20) == ()


def test_one_text_may_have_two_causes() -> None:
    """crun says the same of EL 9's kernels and of nested containers."""
    text = "Error: crun: mount_setattr `/etc/test-1/dir`: Operation not permitted: OCI permission denied"
    assert set(ids(text)) == {"idmap-disabled", "nested-user-namespace"}


def test_several_symptoms_come_once_each_in_the_order_of_their_first_line() -> None:
    texts = [text for text, _ in TEXTS if "\n" not in text]
    expected = list(dict.fromkeys(name for text, name in TEXTS if "\n" not in text))
    assert ids("\n".join([*texts, HEALTHY, *reversed(texts)])) == expected


def test_the_line_is_told_with_its_number() -> None:
    (found,) = diagnose(HEALTHY + "could not find an empty slot to allocate a user namespace\r\n" + HEALTHY)
    assert found.number == HEALTHY.count("\n") + 1
    assert found.line == "could not find an empty slot to allocate a user namespace"


def test_what_a_line_shows_cannot_harm_a_terminal_and_is_short() -> None:
    text = (
        "\x1b]0;owned\x07\x1b[31m" + "x\x00" * 4000 + " runtime does not support user namespaces \x1b[2J" + "y" * 9999
    )
    (found,) = diagnose(text)
    assert found.line.isprintable()
    assert "runtime does not support user namespaces" in found.line
    assert len(found.line) < 320


@pytest.mark.parametrize("before", [0, 1, 60_000, 65_530, 65_536, 200_000, 1_000_003])
@pytest.mark.parametrize("chunk", [7000, 1 << 20])
def test_a_symptom_far_inside_an_endless_line_is_found(before: int, chunk: int) -> None:
    text = b"\xff" * before + b"runtime does not support user namespaces" + b"\xfe" * 70_000 + b"\nnext"
    search = diagnosing.Search()
    numbers = set()
    for number, line in diagnosing.lines(text[start : start + chunk] for start in range(0, len(text), chunk)):
        search.line(number, line)
        numbers.add(number)
    assert [each.id for each in search.found()] == ["runtime-without-user-namespaces"]
    assert numbers == {1, 2}


@given(st.binary(max_size=300))
def test_no_bytes_are_too_odd(raw: bytes) -> None:
    diagnose(raw.decode("utf-8", "surrogateescape"))
    diagnose(raw.decode("latin-1") + "\nunsupported config version `3`")


@given(st.lists(st.binary(max_size=40), max_size=8))
def test_lines_are_those_of_the_whole_however_it_comes(chunks: list[bytes]) -> None:
    whole = b"".join(chunks).decode("utf-8", "replace").split("\n")
    expected = list(enumerate(whole, 1))
    assert list(diagnosing.lines(chunks)) == (expected if whole[-1] else expected[:-1])


@pytest.mark.parametrize(
    "text",
    [
        "mount_setattr ",
        "a on /",
        "unable to shift gid/uid",
        "0 ",
        "error mounting ",
        " to rootfs at",
        "sudo: ",
        "kubelet:",
    ],
)
def test_no_text_makes_the_search_slow(text: str) -> None:
    """Against a search whose time grows with the square of a line: that would take minutes here."""
    started = time.monotonic()
    diagnose(text * (2_000_000 // len(text)))
    assert time.monotonic() - started < 60


# --- the table -----------------------------------------------------------------------------------------------------


def test_every_row_names_what_exists() -> None:
    names = {row.id for row in SYMPTOMS}
    assert len(names) == len(SYMPTOMS)
    for row in SYMPTOMS:
        assert re.fullmatch(r"[a-z0-9.-]+", row.id)
        assert set(row.instead_of) <= names - {row.id}
        assert set(row.findings) <= set(KNOWN_IDS), row.id
        assert set(row.settings) <= set(SETTINGS), row.id


@pytest.mark.parametrize("row", SYMPTOMS, ids=lambda row: row.id)
def test_patterns_are_in_lower_case_and_bounded(row: Any) -> None:
    for pattern in (*row.patterns, *row.together):
        plain = re.sub(r"\\[A-Za-z]", "", pattern)
        assert plain == plain.lower()
        assert not re.search(r"(?<![\\\[])\.[*+]", pattern), "a repetition of anything without a bound"


# --- the command line ----------------------------------------------------------------------------------------------


@pytest.fixture
def stdin(monkeypatch: pytest.MonkeyPatch) -> Any:
    def give(content: bytes) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))

    return give


def test_what_is_recognised_is_told_with_cause_fix_and_source(stdin: Any, capsys: pytest.CaptureFixture[str]) -> None:
    stdin(HEALTHY.encode() + TEXTS[0][0].encode() + b"\n")
    assert main(["diagnose"]) == 0
    out = capsys.readouterr().out
    number = HEALTHY.count("\n") + 1
    assert out.startswith(f"line {number}: failed to create containerd container: snapshotter")
    for word in ("cause: ", "fix: ", "source: ", "containerd-refuses-without-slow-chown", "slow_chown"):
        assert word in out


def test_it_says_so_when_it_does_not_know(stdin: Any, capsys: pytest.CaptureFixture[str]) -> None:
    stdin(HEALTHY.encode())
    assert main(["diagnose"]) == 1
    assert "nothing in this text is known" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "root", "number"),
    [
        (b"0 65536 65536\n", 65536, 1),
        (b"         0     131072      65536\n", 131072, 1),
        (b"\r\n0\t4294836224\t65536\r\n", 4294836224, 2),
        (b"0 65536 1000\n1000 200000 64536\n", 65536, 1),
        (b"1000 200000 64536\n0 65536 1000", 65536, 2),
    ],
)
def test_a_good_uid_map_is_a_good_answer(
    stdin: Any, capsys: pytest.CaptureFixture[str], text: bytes, root: int, number: int
) -> None:
    stdin(text)
    assert main(["diagnose"]) == 0
    first, second, *rest = capsys.readouterr().out.splitlines()
    assert first.startswith(f"line {number}: 0 {root} ")
    assert second == f"  this pod has a user namespace: its root is host uid {root}"
    assert rest == ["  source: user_namespaces(7)"]
    stdin(text)
    assert main(["diagnose", "--json"]) == 0
    (told,) = json.loads(capsys.readouterr().out)["-"]
    assert (told["id"], told["fix"]) == ("user-namespace", "")


@pytest.mark.parametrize(
    "text",
    [
        "0 0 65536",  # root is the host's
        "1000 65536 65536",  # no root
        "0 65536",
        "0 65536 65536 0",
        "0 65536 65536\nError: cannot reach the pod",
        "Error: cannot reach the pod\n0 65536 65536",
        "\n",
    ],
)
def test_what_is_no_good_uid_map_is_none(text: str) -> None:
    assert diagnose(text) == ()


@pytest.mark.parametrize(
    ("text", "id"), [("0 0 4294967295", "host-users-ignored"), ("0 4294901760 65536", "kubelet-last-slot")]
)
def test_a_bad_uid_map_is_not_called_good(text: str, id: str) -> None:
    assert ids(text) == [id]


def test_files_are_told_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, text in (("one.log", TEXTS[0][0]), ("two.log", HEALTHY), ("three.log", TEXTS[4][0])):
        (tmp_path / name).write_text(text)
    names = [str(tmp_path / name) for name in ("one.log", "two.log", "three.log")]
    assert main(["diagnose", *names]) == 0
    out = capsys.readouterr().out
    assert f"{names[0]}, line 1: " in out
    assert names[1] not in out
    assert f"{names[2]}, line 1: " in out


def test_json_is_for_programs(stdin: Any, capsys: pytest.CaptureFixture[str]) -> None:
    stdin(TEXTS[0][0].encode() + b"\n\xff\xfe\x00")
    assert main(["diagnose", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [Diagnosis(**each).id for each in told["-"]] == [TEXTS[0][1]]
    stdin(b"")
    assert main(["diagnose", "--json"]) == 1
    assert json.loads(capsys.readouterr().out) == {"-": []}


@pytest.mark.parametrize("arguments", [["diagnose", "/nowhere"], ["diagnose", "/"], ["diagnose", "--no-such-option"]])
def test_wrong_usage_is_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert "error: " in capsys.readouterr().err


def test_the_command_reads_a_pipe() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "userns", "diagnose"],
        input=b"\xf0\x28\x8c\x28\n" + TEXTS[2][0].encode(),
        capture_output=True,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(b"line 2: Unable to shift GID/UID")
