"""`python -m artifacts add`: what comes into the lock file, and what never does."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from tests.artifacts.common import clear_signed_runc, entry, refused, trusting
from tests.artifacts.conftest import LOCK, Run
from tests.artifacts.keys import Keys
from tests.artifacts.loopback import Answer, LoopbackSite, checksum_lines, digests
from userns.releases import Lock


class TestContainerd:
    def test_every_architecture_is_pinned_from_its_checksum_file(
        self, add: Run, site: LoopbackSite, lock: Path
    ) -> None:
        site.containerd("2.3.5")
        ran = add("containerd", "2.3.5")
        assert (ran.code, ran.err) == (0, "")
        how = "checksum file, downloaded twice, without TLS"
        assert ran.out == f"containerd 2.3.5: added: amd64, arm64, ppc64le, riscv64, s390x ({how})\n"
        assert entry(lock, "containerd", "2.3.5") == digests("containerd", "2.3.5") | {
            "verified": how,
            "source": f"{site.url}/containerd/containerd/releases/download/v2.3.5/",
        }
        assert Lock.parse(lock.read_text()).versions("containerd") == ("2.3.5", "2.2.7", "1.7.34")

    def test_every_other_line_of_the_lock_file_stays(self, add: Run, site: LoopbackSite, lock: Path) -> None:
        site.containerd("2.1.9")
        add("containerd", "2.1.9")
        lines = lock.read_text().split("\n")
        start = lines.index('[containerd.sha256."2.1.9"]')
        end = lines.index('[containerd.sha256."1.7.34"]')
        assert "\n".join(lines[:start] + lines[end:]) == LOCK
        assert lines[end - 1] == "" == lines[start - 1]

    def test_a_comment_stays_above_its_version(self, add: Run, site: LoopbackSite, lock: Path) -> None:
        site.containerd("2.3.5")
        add("containerd", "2.3.5")
        assert '# the one that runs everywhere\n[containerd.sha256."2.2.7"]\n' in lock.read_text()

    def test_a_second_time_changes_nothing(self, add: Run, site: LoopbackSite, lock: Path) -> None:
        site.containerd("2.3.5")
        add("containerd", "2.3.5")
        before = (lock.read_bytes(), lock.stat().st_ino, lock.stat().st_mtime_ns)
        ran = add("containerd", "2.3.5")
        assert ran.out.startswith("containerd 2.3.5: unchanged: ")
        assert before == (lock.read_bytes(), lock.stat().st_ino, lock.stat().st_mtime_ns)

    def test_the_order_of_adding_makes_no_difference(self, add: Run, site: LoopbackSite, lock: Path) -> None:
        for version in ("2.3.5", "2.2.8", "2.0.11"):
            site.containerd(version)
        texts = set()
        for order in itertools.permutations(("2.3.5", "2.2.8", "2.0.11")):
            lock.write_text(LOCK)
            for version in order:
                assert add("containerd", version).code == 0
            texts.add(lock.read_text())
        assert len(texts) == 1

    def test_an_architecture_that_upstream_lacks_is_named(self, add: Run, site: LoopbackSite, lock: Path) -> None:
        published = site.containerd("2.3.5")
        del site.answers[published.list_of(published.assets()["ppc64le"])]
        assert "; upstream has none for ppc64le" in add("containerd", "2.3.5").out
        assert "ppc64le" not in entry(lock, "containerd", "2.3.5")

    def test_dry_writes_nothing_and_shows_the_difference(self, add: Run, site: LoopbackSite, lock: Path) -> None:
        site.containerd("2.3.5")
        ran = add("containerd", "2.3.5", "--dry")
        assert ran.code == 0
        assert '+[containerd.sha256."2.3.5"]' in ran.out.splitlines()
        assert lock.read_text() == LOCK

    def test_a_second_download_that_disagrees(self, add: Run, site: LoopbackSite, lock: Path) -> None:
        published = site.containerd("2.3.5")
        path = published.list_of(published.assets()["arm64"])
        good = site.answers[path]
        assert isinstance(good, Answer)
        site.answers[path] = [good, Answer(b"0" * 64 + good.body[64:])]
        reason = refused(add, lock, "containerd", "2.3.5")
        assert "a second download does not agree on arm64" in reason
        assert "0" * 64 in reason

    def test_a_second_download_that_is_gone(self, add: Run, site: LoopbackSite, lock: Path) -> None:
        published = site.containerd("2.3.5")
        path = published.list_of(published.assets()["arm64"])
        good = site.answers[path]
        assert isinstance(good, Answer)
        site.answers[path] = [good, Answer(status=404)]
        assert "this one says nothing" in refused(add, lock, "containerd", "2.3.5")

    def test_two_sites_must_agree(self, add: Run, site: LoopbackSite, other_site: LoopbackSite, lock: Path) -> None:
        published = site.containerd("2.3.5")
        other_site.answers = dict(site.answers)
        path = published.list_of(published.assets()["amd64"])
        other_site.put(path, b"0" * 64 + f"  {published.assets()['amd64'].rpartition('/')[2]}\n".encode())
        assert other_site.url in refused(add, lock, "containerd", "2.3.5", "--second-url", other_site.url)
        other_site.answers = dict(site.answers)
        assert add("containerd", "2.3.5", "--second-url", other_site.url).code == 0
        assert entry(lock, "containerd", "2.3.5")["verified"] == "checksum file, the same on two sites, without TLS"

    def test_checksum_files_that_are_swapped(self, add: Run, site: LoopbackSite, lock: Path) -> None:
        published = site.containerd("2.3.5")
        first, second = (published.list_of(published.assets()[arch]) for arch in ("amd64", "arm64"))
        site.answers[first], site.answers[second] = site.answers[second], site.answers[first]
        assert "does not name the asset that it is for" in refused(add, lock, "containerd", "2.3.5")

    @pytest.mark.parametrize(
        ("body", "reason"),
        [
            (b"", "does not name the asset"),
            (b"<html>please log in</html>", "does not name the asset"),
            (b"\xff\xfe\x00", "is not a checksum file"),
            (b"0" * 63 + b"  containerd-2.3.5-linux-amd64.tar.gz\n", "does not name the asset"),
            (
                b"".join(digit * 64 + b"  containerd-2.3.5-linux-amd64.tar.gz\n" for digit in (b"0", b"1")),
                "2 different digests",
            ),
        ],
    )
    def test_what_is_no_checksum_file(self, add: Run, site: LoopbackSite, lock: Path, body: bytes, reason: str) -> None:
        published = site.containerd("2.3.5")
        site.put(published.list_of(published.assets()["amd64"]), body)
        assert reason in refused(add, lock, "containerd", "2.3.5")

    def test_one_digest_for_two_architectures(self, add: Run, site: LoopbackSite, lock: Path) -> None:
        published = site.containerd("2.3.5")
        for path in published.assets().values():
            site.put(published.list_of(path), b"a" * 64 + f"  {path.rpartition('/')[2]}\n".encode())
        assert "one digest for two architectures" in refused(add, lock, "containerd", "2.3.5")

    def test_a_release_that_is_not_there(self, add: Run, lock: Path) -> None:
        assert "is there such a release?" in refused(add, lock, "containerd", "2.3.99")


class TestPinned:
    def test_another_digest_is_refused_with_both(self, add: Run, site: LoopbackSite, lock: Path) -> None:
        site.containerd("2.2.7")
        reason = refused(add, lock, "containerd", "2.2.7")
        assert f"amd64 is {'1' * 64} in the lock file" in reason
        assert digests("containerd", "2.2.7")["amd64"] in reason
        assert "--replace" in reason

    def test_replace_changes_the_lines_in_place(self, add: Run, site: LoopbackSite, lock: Path) -> None:
        site.containerd("2.2.7")
        assert add("containerd", "2.2.7", "--replace").out.startswith("containerd 2.2.7: replaced: ")
        new = digests("containerd", "2.2.7")
        assert (
            "# the one that runs everywhere\n"
            '[containerd.sha256."2.2.7"]\n'
            f'amd64 = "{new["amd64"]}"  # checked twice\n'
            f'arm64 = "{new["arm64"]}"\n'
            f'ppc64le = "{new["ppc64le"]}"\n'
            f'riscv64 = "{new["riscv64"]}"\n'
            f's390x = "{new["s390x"]}"\n'
            'verified = "checksum file, downloaded twice, without TLS"\n'
        ) in lock.read_text()

    def test_an_architecture_that_upstream_has_no_more_is_not_dropped(
        self, add: Run, site: LoopbackSite, lock: Path
    ) -> None:
        published = site.containerd("2.2.7")
        del site.answers[published.list_of(published.assets()["arm64"])]
        text = LOCK.replace("1" * 64, digests("containerd", "2.2.7")["amd64"])
        lock.write_text(text)
        ran = add("containerd", "2.2.7")
        assert ran.code == 1
        assert "arm64" in ran.err
        assert "upstream has none" in ran.err
        assert lock.read_text() == text

    def test_the_same_digests_get_what_they_lack(self, add: Run, site: LoopbackSite, lock: Path) -> None:
        site.containerd("1.7.34")
        lock.write_text(LOCK.replace("3" * 64, digests("containerd", "1.7.34")["amd64"]))
        assert add("containerd", "1.7.34").out.startswith("containerd 1.7.34: added: ")
        assert entry(lock, "containerd", "1.7.34")["verified"] == "checksum file, downloaded twice, without TLS"
        assert add("containerd", "1.7.34").out.startswith("containerd 1.7.34: unchanged: ")

    def test_nor_does_a_checksum_file_that_came_by_a_better_way(self, add: Run, site: LoopbackSite, lock: Path) -> None:
        site.containerd("1.7.34")
        pinned = digests("containerd", "1.7.34")["amd64"]
        ways = ("downloaded twice", "the same on two sites, without TLS", "the same on two sites")
        for way in ways:  # one architecture is pinned, and the site has more
            text = LOCK.replace(f'amd64 = "{"3" * 64}"', f'amd64 = "{pinned}"\nverified = "checksum file, {way}"')
            lock.write_text(text)
            ran = add("containerd", "1.7.34")
            assert ran.code == 1
            assert "was verified less: checksum file, downloaded twice, without TLS" in ran.err
            assert lock.read_text() == text

    def test_nor_are_an_operators_own_words_on_it_lost(self, add: Run, site: LoopbackSite, lock: Path) -> None:
        site.containerd("1.7.34")
        own = f'amd64 = "{digests("containerd", "1.7.34")["amd64"]}"\nverified = "built here, twice"'
        text = LOCK.replace(f'amd64 = "{"3" * 64}"', own)
        lock.write_text(text)
        ran = add("containerd", "1.7.34")
        assert (ran.code, lock.read_text()) == (1, text)
        assert "is pinned already (built here, twice), and what" in ran.err

    def test_a_better_verification_is_written_down_and_a_worse_one_is_not(
        self, add: Run, site: LoopbackSite, keys: Keys, lock: Path
    ) -> None:
        published = site.publish("crun", "1.31")
        path = published.list_of(published.assets()["amd64"])
        site.put(path, checksum_lines("crun", "1.31"))
        add("crun", "1.31")
        assert entry(lock, "crun", "1.31")["verified"] == "checksum file, downloaded twice, without TLS"
        site.put(f"{path}.asc", keys.detach_sign(checksum_lines("crun", "1.31")))
        assert add("crun", "1.31", *trusting(keys)).out.startswith("crun 1.31: verified: ")
        assert entry(lock, "crun", "1.31")["verified"].startswith("signature by ")
        before = lock.read_text()
        del site.answers[f"{path}.asc"]
        assert add("crun", "1.31").out.startswith("crun 1.31: unchanged: ")
        assert lock.read_text() == before


class TestSeveral:
    def test_all_come_in_at_once(self, add: Run, site: LoopbackSite, keys: Keys, lock: Path) -> None:
        site.containerd("2.3.5")
        site.containerd("2.2.8")
        clear_signed_runc(site, keys, "1.4.4")
        ran = add("containerd", "2.3.5", "2.2.8", "runc", "1.4.4", *trusting(keys))
        assert ran.code == 0
        assert [line.split(":")[0] for line in ran.out.splitlines()] == [
            "containerd 2.3.5",
            "containerd 2.2.8",
            "runc 1.4.4",
        ]

    def test_one_that_is_refused_keeps_all_out_and_all_refusals_are_told(
        self, add: Run, site: LoopbackSite, keys: Keys, lock: Path
    ) -> None:
        site.containerd("2.3.5")
        site.put(clear_signed_runc(site, keys, "1.4.4"), b"")
        reason = refused(add, lock, "containerd", "2.3.5", "2.3.99", "runc", "1.4.4", *trusting(keys))
        assert "v2.3.99" in reason
        assert "clear-signed" in reason
        assert "nothing was written" in reason

    @pytest.mark.parametrize(
        ("words", "reason"),
        [
            (["containerd"], "name a version of containerd"),
            (["containerd", "runc", "1.4.4"], "name a version of containerd"),
            (["2.3.5"], "'2.3.5' is no component: known are containerd, runc, crun"),
            (["nerdctl", "2.3.5"], "'nerdctl' is no component"),
            (["containerd", "2.3.5", "nerdctl"], "'nerdctl' is no component"),
            (["containerd", "v2.3.5"], "'v2.3.5' is not a version such as 2.3.4 (no v in front)"),
            (["containerd", "2.3.5/../../x"], "is not a version"),
            (["containerd", "\u0662.\u0663.\u0665"], "is not a version"),
            (["containerd", ""], "'' is not a version"),
        ],
    )
    def test_words_that_are_no_releases(
        self, add: Run, site: LoopbackSite, lock: Path, words: list[str], reason: str
    ) -> None:
        ran = add(*words)
        assert (ran.code, ran.out) == (2, "")
        assert reason in ran.err
        assert site.requests == []
