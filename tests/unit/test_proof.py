from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from userns.findings import Severity
from userns.proof import BEGIN, END, Proof, ProofError, Result, judge, parse

IDMAPPED = "rw,relatime - overlay overlay rw,lowerdir=/tmp/ovl-idmapped3917900400/fs,upperdir=/c/5/fs,workdir=/c/5/work"
CHOWNED = "rw,relatime - overlay overlay rw,lowerdir=/c/3/fs:/c/1/fs,upperdir=/c/5/fs,workdir=/c/5/work"
REFUSED = (
    'ctr: snapshotter "overlayfs" doesn\'t support idmap mounts on this host, '
    "configure `slow_chown` to allow a slower and expensive fallback"
)


def row(handler: str = "runc", **changes: str) -> str:
    fields = {
        "verdict": "proven",
        "handler": handler,
        "uid_map": "0 65536 65536",
        "gid_map": "0 65536 65536",
        "rootfs": "idmapped",
        "host_uid": "65536",
        "owner": "65536",
        "written": "yes",
        "seconds": "0.11",
        "mount": IDMAPPED,
    } | changes
    return "\t".join(fields.values())


def text(*rows: str, asked: str = "runc", code: int = 0) -> str:
    return "\n".join([f"{BEGIN}\t2\t{asked}", *rows, f"{END}\t{code}", ""])


def ids(proof: Proof, expected: str = "idmapped", handlers: tuple[str, ...] = ()) -> list[str]:
    return [finding.id for finding in judge(proof, expected, handlers)]


def test_two_idmapped_handlers_are_a_proof_with_nothing_to_say() -> None:
    proof = parse(text(row("runc"), row("crun", seconds="0.06"), asked="runc crun"))
    assert proof.ok
    assert proof.asked == ("runc", "crun")
    assert proof.handlers["crun"] == Result(
        "crun", True, "0 65536 65536", "0 65536 65536", "idmapped", 65536, 65536, True, 0.06, IDMAPPED
    )
    assert judge(proof, "idmapped") == []
    assert proof.summary == (
        "runc: proven: root is host uid 65536, uid_map 0 65536 65536, an idmapped rootfs, started in 0.11 s",
        "crun: proven: root is host uid 65536, uid_map 0 65536 65536, an idmapped rootfs, started in 0.06 s",
    )


def test_a_handler_that_does_not_start_keeps_the_exact_words_of_the_runtime() -> None:
    proof = parse(text(f"failed\trunc\t0.04\t{REFUSED}", code=1))
    assert not proof.ok
    assert proof.handlers["runc"].error == REFUSED
    [finding] = judge(proof, "idmapped")
    assert finding.id == "proof-failed"
    assert finding.severity is Severity.BLOCKER
    assert REFUSED in finding.message
    assert REFUSED in proof.summary[0]


@pytest.mark.parametrize(
    ("changes", "expected", "found"),
    [
        ({}, "idmapped", []),
        ({"rootfs": "chowned", "mount": CHOWNED}, "chown", []),
        ({"rootfs": "chowned", "mount": CHOWNED}, "none", []),
        ({"rootfs": "chowned", "mount": CHOWNED}, "idmapped", ["proof-not-idmapped"]),
        ({}, "chown", ["proof-better"]),
        ({"uid_map": "0 0 4294967295", "verdict": "unproven"}, "idmapped", ["proof-uid-map"]),
        ({"gid_map": "0 65536 1", "verdict": "unproven"}, "idmapped", ["proof-gid-map"]),
        ({"gid_map": "", "verdict": "unproven"}, "idmapped", ["proof-gid-map"]),
        ({"host_uid": "0", "owner": "0", "verdict": "unproven"}, "idmapped", ["proof-host-uid"]),
        ({"host_uid": "", "owner": "", "verdict": "unproven"}, "idmapped", ["proof-host-uid"]),
        ({"owner": "0", "rootfs": "none", "verdict": "unproven"}, "chown", ["proof-owner", "proof-not-chowned"]),
        ({"written": "no", "verdict": "unproven"}, "idmapped", ["proof-not-writable"]),
        ({"verdict": "unproven"}, "idmapped", ["proof-failed"]),
    ],
)
def test_each_deviation_is_named(changes: dict[str, str], expected: str, found: list[str]) -> None:
    proof = parse(text(row(**changes), code=0 if changes.get("verdict") is None else 1))
    assert ids(proof, expected) == found


def test_a_container_in_the_nodes_own_namespace_is_called_that() -> None:
    proof = parse(text(row(uid_map="0 0 4294967295", verdict="unproven"), code=1))
    assert "the node's own user namespace" in judge(proof, "idmapped")[0].message


def test_a_handler_without_a_result_is_missing() -> None:
    proof = parse(text(row(), asked="runc crun"))
    assert not proof.ok
    assert ids(proof) == ["proof-handler-missing"]
    assert proof.summary[-1] == "crun: no result"


def test_a_handler_that_the_script_was_never_asked_for_is_missing_too() -> None:
    assert ids(parse(text(row())), handlers=("runc", "crun")) == ["proof-handler-missing"]


def test_a_proof_of_no_handler_proves_nothing() -> None:
    proof = parse(text(asked=""))
    assert not proof.ok
    assert ids(proof) == ["proof-handler-missing"]


def test_a_containerd_that_is_not_there_is_untried_and_no_handler_is_blamed() -> None:
    proof = parse(text("untried\tno containerd socket at /run/containerd/containerd.sock", code=2))
    assert not proof.ok
    assert ids(proof) == ["proof-untried"]
    assert proof.summary == ("not tried: no containerd socket at /run/containerd/containerd.sock",)


def test_what_is_left_behind_warns_and_refuses_nothing() -> None:
    proof = parse(text(row(), "left\tnamespace userns-node-check: must be empty"))
    assert proof.ok
    [finding] = judge(proof, "idmapped")
    assert (finding.id, finding.severity) == ("proof-left-behind", Severity.WARNING)


def test_an_exit_code_that_no_result_explains_is_a_blocker() -> None:
    proof = parse(text(row(), code=1))
    assert not proof.ok
    assert ids(proof) == ["proof-failed"]


def test_banners_noise_carriage_returns_and_an_earlier_proof_are_passed_over() -> None:
    noisy = "Welcome\tto node1\n" + text(row("old"), asked="old") + "sh: warning\n" + text("Killed", row()) + "bye\n"
    assert parse(noisy.replace("\n", "\r\n")) == parse(text(row()))


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        ("", "no line 'userns-node-proof'"),
        ("sh: 1: verify.sh: not found\n", "not found"),
        (text(row())[:-30], "cut off"),
        (f"{BEGIN}\t1\trunc\n{END}\t0\n", "begins with 'userns-node-proof 1 runc'"),
        (text("proven\trunc\t0 65536 65536"), "has 3 fields"),
        (text("failed\trunc"), "has 2 fields"),
        (text(row(rootfs="odd")), "rootfs is 'odd'"),
        (text(row(host_uid="root")), "'root' is not a user id"),
        (text(row(seconds="soon")), "'soon' is not a number of seconds"),
        (text(row(seconds="1.5e3")), "'1.5e3' is not a number of seconds"),
    ],
)
def test_text_that_is_no_whole_proof_says_what_is_wrong(broken: str, words: str) -> None:
    with pytest.raises(ProofError, match=words.replace("(", r"\(")):
        parse(broken)


def test_an_unknown_expectation_is_refused_with_its_value() -> None:
    with pytest.raises(ValueError, match="'chowned', expected one of idmapped, chown, remapped, none"):
        judge(parse(text(row())), "chowned")


FIELD = st.one_of(
    st.sampled_from(["proven", "unproven", "failed", "untried", "left", BEGIN, END, "1", "0", "", "idmapped", "yes"]),
    st.sampled_from(["0 65536 65536", "65536", "0.10", "²", "\N{ARABIC-INDIC DIGIT ONE}", "-1", "1e9", "9" * 30, "."]),
    st.text(max_size=8),
)
LINES = st.lists(st.lists(FIELD, max_size=11).map("\t".join), max_size=8).map("\n".join)


@given(st.one_of(st.text(), LINES, LINES.map(lambda lines: text(lines))))
def test_any_text_is_a_proof_or_a_proof_error(anything: str) -> None:
    try:
        proof = parse(anything)
    except ProofError:
        return
    for expected in ("idmapped", "chown", "none"):
        blockers = [finding for finding in judge(proof, expected) if finding.severity is Severity.BLOCKER]
        # What is not proven always has a reason that refuses it.
        assert proof.ok or blockers
    assert all(isinstance(line, str) for line in proof.summary)


@given(st.lists(st.booleans(), min_size=1, max_size=4), st.sampled_from(["idmapped", "none"]))
def test_ok_is_exactly_what_the_judgement_does_not_refuse(proven: list[bool], expected: str) -> None:
    names = [f"handler{number}" for number in range(len(proven))]
    rows = [row(name) if good else f"failed\t{name}\t0.10\tctr: no" for name, good in zip(names, proven, strict=True)]
    proof = parse(text(*rows, asked=" ".join(names), code=0 if all(proven) else 1))
    assert proof.ok == all(proven) == (judge(proof, expected) == [])
