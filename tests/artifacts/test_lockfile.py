"""The lock file: what an edit keeps, what it proves, and that it is whole at every moment."""

from __future__ import annotations

import errno
import os
import random
import stat
import tomllib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from artifacts.errors import Unusable
from artifacts.lockfile import PROJECT_LOCK, LockFile
from artifacts.locktext import KEYS, with_version
from tests.artifacts.conftest import LOCK, Run
from tests.artifacts.loopback import PATTERNS, LoopbackSite
from userns.releases import COMPONENTS, Lock

versions = st.builds(
    lambda numbers, pre: ".".join(map(str, numbers)) + pre,
    st.lists(st.integers(0, 40), min_size=2, max_size=3),
    st.sampled_from(["", "", "-rc.1", "-beta.0"]),
)
digest = st.text("0123456789abcdef", min_size=64, max_size=64)
says = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1, max_size=20).filter(str.strip)
entries = st.fixed_dictionaries({"amd64": digest}, optional={"arm64": digest, "s390x": digest}).flatmap(
    lambda digests: st.fixed_dictionaries({}, optional={"verified": says, "source": says}).map(
        lambda said: digests | said
    )
)
releases = st.dictionaries(st.tuples(st.sampled_from(COMPONENTS), versions), entries, max_size=8)

# No deadline: the machine may be slow.
thorough = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def head(component: str) -> dict[str, str]:
    return {"path": PATTERNS.path(component), "source": "somewhere"}


def written(text: str, wanted: dict[tuple[str, str], dict[str, str]]) -> str:
    for (component, version), entry in wanted.items():
        text = with_version(text, component, version, entry, head(component))
    return text


class TestText:
    @thorough
    @given(releases, st.randoms(use_true_random=False))
    def test_what_is_written_is_read_in_whatever_order_it_came(
        self, wanted: dict[tuple[str, str], dict[str, str]], chance: random.Random
    ) -> None:
        text = written("", wanted)
        shuffled = list(wanted.items())
        chance.shuffle(shuffled)
        assert written("", dict(shuffled)) == text
        read = {
            (component, version): entry
            for component, table in tomllib.loads(text).items()
            for version, entry in table["sha256"].items()
        }
        assert read == wanted
        lock = Lock.parse(text)
        for (component, version), entry in wanted.items():
            assert lock.verified(component, version) == entry.get("verified", "")
            assert lock.source(component, version) == entry.get("source", "somewhere")
            assert set(lock.architectures(component, version)) == set(entry) - {"verified", "source"}

    @thorough
    @given(releases)
    def test_a_second_time_changes_nothing(self, wanted: dict[tuple[str, str], dict[str, str]]) -> None:
        text = written(LOCK, wanted)
        assert written(text, wanted) == text

    @thorough
    @given(st.tuples(st.sampled_from(COMPONENTS), versions), entries)
    def test_every_line_that_was_there_stays_in_its_order(
        self, release: tuple[str, str], entry: dict[str, str]
    ) -> None:
        if release[1] in Lock.parse(LOCK).versions(release[0]):
            return
        after = iter(with_version(LOCK, *release, entry, head(release[0])).splitlines())
        assert all(line in after for line in LOCK.splitlines())

    @thorough
    @given(entries)
    def test_a_change_keeps_comments_and_drops_what_is_gone(self, entry: dict[str, str]) -> None:
        after = with_version(LOCK, "containerd", "2.2.7", entry, {})
        assert "  # checked twice\n" in after
        assert "# the one that runs everywhere\n[" in after
        found = tomllib.loads(after)["containerd"]["sha256"]["2.2.7"]
        assert found == entry
        assert sorted(found, key=KEYS.index) == list(found)

    def test_the_projects_own_lock_file_grows_by_the_new_lines_only(self) -> None:
        text = PROJECT_LOCK.read_text()
        after = with_version(text, "runc", "1.5.3", {"amd64": "e" * 64}, {})
        assert after.replace('[runc.sha256."1.5.3"]\namd64 = "' + "e" * 64 + '"\n\n', "") == text

    def test_line_ends_stay_as_they_are(self) -> None:
        after = with_version(LOCK.replace("\n", "\r\n"), "runc", "1.4.4", {"amd64": "e" * 64}, {})
        assert after.replace("\r\n", "") == after.replace("\n", "").replace("\r", "")
        assert after.count("\r\n") == LOCK.count("\n") + 3

    @pytest.mark.parametrize(
        "text",
        [
            '[runc]\npath = "/a/{version}/{arch}"\nsource = "x"\nsha256 = {"1.4.4" = {amd64 = "' + "a" * 64 + '"}}\n',
            '[runc]\npath = "/a/{version}/{arch}"\nsource = "x"\n[runc.sha256]\n"1.4.4".amd64 = "' + "a" * 64 + '"\n',
            '[runc]\npath = "/a/{version}/{arch}"\nsource = """\n[runc.sha256."1.4.4"]\n"""\n',
        ],
    )
    def test_forms_that_cannot_be_edited_are_refused(self, text: str) -> None:
        Lock.parse(text)
        with pytest.raises(Unusable, match="cannot be edited here"):
            with_version(text, "runc", "1.4.4", {"amd64": "b" * 64}, {})

    @pytest.mark.parametrize("header", ["[ runc . sha256 . '1.4.4' ]  # a comment", '[runc."sha256"."1.4.4"]'])
    def test_headers_in_any_spelling_are_found(self, header: str) -> None:
        text = LOCK + f'\n{header}\namd64 = "{"a" * 64}"\n'
        after = with_version(text, "runc", "1.4.4", {"amd64": "b" * 64}, {})
        assert after == text.replace("a" * 64, "b" * 64)


class TestReading:
    @pytest.mark.parametrize(
        ("content", "reason"),
        [
            (None, "there is no lock file"),
            (b"\xff", "is not UTF-8 text"),
            (b"[containerd", "cannot be used: this is not TOML"),
            (b"[nerdctl]\n", "unknown component"),
            (b'[runc]\npath = "x"\n', "cannot be used: runc.path"),
            (b'[runc]\npath = "/a/{version}/{arch}"\nsource = "x"\n[runc.sha256."1.4"]\nverified = 1\n', "verified"),
        ],
    )
    @pytest.mark.parametrize("command", [["add", "runc", "1.4.4"], ["check", "/"], ["list"]])
    def test_what_cannot_be_used(
        self, run: Run, tmp_path: Path, command: list[str], content: bytes | None, reason: str
    ) -> None:
        file = tmp_path / "bad.toml"
        if content is not None:
            file.write_bytes(content)
        ran = run(*command, "--lock", file)
        assert (ran.code, ran.out) == (2, "")
        assert reason in ran.err
        assert str(file) in ran.err
        assert len(ran.err.splitlines()) == 1

    def test_a_directory(self, run: Run, tmp_path: Path) -> None:
        ran = run("list", "--lock", tmp_path)
        assert ran.code == 2
        assert "cannot be read: Is a directory" in ran.err


class TestWriting:
    def test_the_mode_stays_and_nothing_lies_about(self, lock: Path) -> None:
        lock.chmod(0o640)
        LockFile(str(lock)).replace("# new\n")
        assert lock.read_text() == "# new\n"
        assert stat.S_IMODE(lock.stat().st_mode) == 0o640
        assert os.listdir(lock.parent) == [lock.name]

    def test_a_symbolic_link_stays_one(self, lock: Path, tmp_path: Path) -> None:
        link = tmp_path / "link.toml"
        link.symlink_to(lock.name)
        LockFile(str(link)).replace("# new\n")
        assert link.is_symlink()
        assert lock.read_text() == "# new\n"

    def test_what_is_no_regular_file_is_not_replaced(self, lock: Path, tmp_path: Path) -> None:
        """As /dev/null, which reads as a lock of nothing."""
        file = LockFile(str(lock))
        lock.unlink()
        os.mknod(lock, stat.S_IFSOCK | 0o600)
        with pytest.raises(Unusable, match="is no regular file: nothing was written"):
            file.replace("# new\n")
        assert stat.S_ISSOCK(lock.stat().st_mode)
        assert os.listdir(lock.parent) == [lock.name]

    @pytest.mark.parametrize("call", ["fsync", "replace"])
    def test_a_disk_that_is_full(
        self, run: Run, site: LoopbackSite, lock: Path, monkeypatch: pytest.MonkeyPatch, call: str
    ) -> None:
        def full(*_: object) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        site.containerd("2.3.5")
        monkeypatch.setattr(os, call, full)
        ran = run("add", "containerd", "2.3.5", "--lock", lock, "--release-url", site.url)
        monkeypatch.undo()
        assert (ran.code, ran.out) == (2, "")
        assert f"{lock} could not be written: No space left on device. It is as it was" in ran.err
        assert lock.read_text() == LOCK
        assert os.listdir(lock.parent) == [lock.name]

    def test_somebody_elses_change_is_not_lost(self, lock: Path) -> None:
        file = LockFile(str(lock))
        lock.write_text(LOCK + "# another\n")
        with pytest.raises(Unusable, match="changed by somebody else"):
            file.replace(LOCK)
        assert lock.read_text().endswith("# another\n")
