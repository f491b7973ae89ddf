"""`python -m artifacts add` of what upstream signs."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from artifacts.upstream import FINGERPRINT, UPSTREAM, Signer
from tests.artifacts.common import clear_signed_runc, entry, refused, trusting
from tests.artifacts.conftest import LOCK, Run
from tests.artifacts.keys import Keys
from tests.artifacts.loopback import Answer, LoopbackSite, checksum_lines, digests, release


class TestRunc:
    def test_a_clear_signed_list(self, add: Run, site: LoopbackSite, keys: Keys, lock: Path) -> None:
        clear_signed_runc(site, keys, "1.4.4")
        ran = add("runc", "1.4.4", *trusting(keys))
        assert (ran.code, ran.err) == (0, "")
        found = entry(lock, "runc", "1.4.4")
        assert {arch: found[arch] for arch in digests("runc", "1.4.4")} == digests("runc", "1.4.4")
        assert found["verified"].startswith(f"signature by {keys.good} of 20")
        # The assets themselves need not be read.
        assert not [path for path in site.paths() if path.endswith("amd64")]

    def test_a_pinned_signer_needs_no_option(
        self, add: Run, site: LoopbackSite, keys: Keys, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        clear_signed_runc(site, keys, "1.4.4")
        signers = (Signer(name="A test", fingerprint=keys.good, source="this test"),)
        monkeypatch.setitem(UPSTREAM, "runc", UPSTREAM["runc"].model_copy(update={"signers": signers}))
        assert add("runc", "1.4.4", "--keyring", keys.ring("good@example.org")).code == 0

    @pytest.mark.parametrize("armoured", [True, False])
    def test_keyrings_of_several_keys(self, add: Run, site: LoopbackSite, keys: Keys, armoured: bool) -> None:
        clear_signed_runc(site, keys, "1.4.4")
        ring = keys.ring("stranger@example.org", "good@example.org", armoured=armoured)
        assert add("runc", "1.4.4", "--keyring", ring, "--signer", keys.good).code == 0

    def test_a_key_that_nobody_pinned(self, add: Run, site: LoopbackSite, keys: Keys, lock: Path) -> None:
        clear_signed_runc(site, keys, "1.4.4")
        reason = refused(add, lock, "runc", "1.4.4", "--keyring", keys.ring("good@example.org"))
        assert f"signed by {keys.good}, who is no signer known here" in reason

    def test_a_key_that_is_not_in_the_keyring(self, add: Run, site: LoopbackSite, keys: Keys, lock: Path) -> None:
        clear_signed_runc(site, keys, "1.4.4")
        ring = keys.ring("stranger@example.org")
        reason = refused(add, lock, "runc", "1.4.4", "--keyring", ring, "--signer", keys.good)
        assert f"signed by {keys.good}, a key that is not in {ring}" in reason

    def test_an_expired_key(self, add: Run, site: LoopbackSite, keys: Keys, lock: Path) -> None:
        published = site.publish("runc", "1.4.4")
        signed = keys.clear_sign(checksum_lines("runc", "1.4.4"), "expired@example.org")
        site.put(published.list_of(published.assets()["amd64"]), signed)
        options = ("--keyring", keys.ring("expired@example.org"), "--signer", keys.expired)
        assert "which has expired" in refused(add, lock, "runc", "1.4.4", *options)
        assert add("runc", "1.4.4", *options, "--accept-expired-keys").code == 0
        assert entry(lock, "runc", "1.4.4")["verified"] == f"signature by {keys.expired} of 2020-02-01"

    def test_a_revoked_key(self, add: Run, site: LoopbackSite, keys: Keys, lock: Path) -> None:
        published = site.publish("runc", "1.4.4")
        signed = keys.clear_sign(checksum_lines("runc", "1.4.4"), "revoked@example.org")
        site.put(published.list_of(published.assets()["amd64"]), signed)
        keys.revoke()
        options = ("--keyring", keys.ring("revoked@example.org"), "--signer", keys.revoked)
        assert "revoked" in refused(add, lock, "runc", "1.4.4", *options)
        assert "revoked" in refused(add, lock, "runc", "1.4.4", *options, "--accept-expired-keys")

    @pytest.mark.parametrize(
        ("spoil", "reason"),
        [
            (lambda signed: checksum_lines("runc", "1.4.4"), "is not clear-signed"),
            (lambda signed: b"", "is not clear-signed"),
            (lambda signed: signed[: len(signed) // 2], "is not clear-signed"),
            (lambda signed: signed.replace(b"runc.amd64", b"runc.arm65"), "the signature is BAD"),
            (lambda signed: b"a" * 64 + b"  runc.amd64\n" + signed, "is not clear-signed"),
            (lambda signed: signed + b"a" * 64 + b"  runc.amd64\n", "is not clear-signed"),
            (lambda signed: signed + signed, "is not clear-signed"),
            (lambda signed: signed.replace(b"\n\n", b"\n" + b"b" * 64 + b"  runc.amd64\n\n", 1), "runc.sha256sum"),
            (lambda signed: signed.replace(b"-----BEGIN PGP SIGNATURE", b"-----BEGIN PGP MESSAGE"), "clear-signed"),
        ],
    )
    def test_lists_that_are_not_as_they_were_signed(
        self, add: Run, site: LoopbackSite, keys: Keys, lock: Path, spoil: object, reason: str
    ) -> None:
        path = clear_signed_runc(site, keys, "1.4.4")
        signed = site.answers[path]
        assert isinstance(signed, Answer)
        assert callable(spoil)
        site.put(path, spoil(signed.body))
        assert reason in refused(add, lock, "runc", "1.4.4", *trusting(keys))

    def test_a_stranger_may_not_sign_along(self, add: Run, site: LoopbackSite, keys: Keys, lock: Path) -> None:
        published = site.publish("runc", "1.4.4")
        signed = keys.clear_sign(checksum_lines("runc", "1.4.4"), "good@example.org", "stranger@example.org")
        site.put(published.list_of(published.assets()["amd64"]), signed)
        ring = keys.ring("good@example.org", "stranger@example.org")
        reason = refused(add, lock, "runc", "1.4.4", "--keyring", ring, "--signer", keys.good)
        assert "does not have one good signature" in reason

    def test_an_old_list_well_signed_is_not_taken_for_a_new_release(
        self, add: Run, site: LoopbackSite, keys: Keys, lock: Path
    ) -> None:
        clear_signed_runc(site, keys, "1.3.7")
        assert add("runc", "1.3.7", *trusting(keys)).code == 0
        before = lock.read_text()
        site.put(
            release("runc", "1.4.4").list_of(release("runc", "1.4.4").assets()["amd64"]),
            keys.clear_sign(checksum_lines("runc", "1.3.7")),
        )
        ran = add("runc", "1.4.4", *trusting(keys))
        assert ran.code == 1
        assert "the digest of runc 1.3.7 for amd64" in ran.err
        assert lock.read_text() == before

    def test_a_list_that_names_another_releases_source_archive(
        self, add: Run, site: LoopbackSite, keys: Keys, lock: Path
    ) -> None:
        text = checksum_lines("runc", "1.5.2") + b"c" * 64 + b"  runc-1.5.2.tar.xz\n"
        clear_signed_runc(site, keys, "1.5.3", text)
        assert "is the list of runc 1.5.2, not of 1.5.3" in refused(add, lock, "runc", "1.5.3", *trusting(keys))

    def test_without_a_keyring_nothing_is_taken(self, add: Run, site: LoopbackSite, keys: Keys, lock: Path) -> None:
        clear_signed_runc(site, keys, "1.4.4")
        ran = add("runc", "1.4.4")
        assert ran.code == 2
        assert "--keyring FILE" in ran.err
        assert "runc.keyring" in ran.err
        assert lock.read_text() == LOCK

    def test_without_gpgv_nothing_is_taken(
        self, add: Run, site: LoopbackSite, keys: Keys, lock: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        clear_signed_runc(site, keys, "1.4.4")
        options = trusting(keys)
        monkeypatch.setenv("PATH", str(lock.parent))
        ran = add("runc", "1.4.4", *options)
        assert ran.code == 2
        assert "gpgv, which checks signatures, is not installed" in ran.err
        assert lock.read_text() == LOCK

    @pytest.mark.parametrize(
        ("content", "reason"),
        [
            (None, "cannot be read: No such file"),
            (b"", "holds no OpenPGP public key"),
            (b"not a key", "holds no OpenPGP public key"),
            (b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\n!!!!\n-----END PGP PUBLIC KEY BLOCK-----\n", "is damaged"),
            (b"-----BEGIN PGP PRIVATE KEY BLOCK-----\n\nAAAA\n-----END PGP PRIVATE KEY BLOCK-----\n", "something else"),
        ],
    )
    def test_files_that_are_no_keyring(
        self, add: Run, site: LoopbackSite, lock: Path, content: bytes | None, reason: str
    ) -> None:
        file = lock.parent / "ring"
        if content is not None:
            file.write_bytes(content)
        ran = add("runc", "1.4.4", "--keyring", file)
        assert ran.code == 2
        assert reason in ran.err
        assert site.requests == []


class TestCrun:
    def list_path(self, version: str = "1.31") -> str:
        return release("crun", version).list_of(release("crun", version).assets()["amd64"])

    def test_a_signed_list(self, add: Run, site: LoopbackSite, keys: Keys, lock: Path) -> None:
        site.put(self.list_path(), checksum_lines("crun", "1.31"))
        site.put(f"{self.list_path()}.asc", keys.detach_sign(checksum_lines("crun", "1.31")))
        ran = add("crun", "1.31", *trusting(keys))
        assert ran.code == 0
        assert "no signature" not in ran.out
        assert entry(lock, "crun", "1.31")["verified"].startswith(f"signature by {keys.good} of ")
        # The lock had no crun: it begins like the project's own, behind runc.
        assert list(tomllib.loads(lock.read_text())) == ["containerd", "runc", "crun"]
        assert lock.read_text().startswith(LOCK)

    def test_a_signature_is_not_passed_over_for_want_of_a_keyring(
        self, add: Run, site: LoopbackSite, keys: Keys, lock: Path
    ) -> None:
        site.put(self.list_path(), checksum_lines("crun", "1.31"))
        site.put(f"{self.list_path()}.asc", keys.detach_sign(checksum_lines("crun", "1.31")))
        ran = add("crun", "1.31")
        assert ran.code == 2
        assert "--keyring" in ran.err
        assert lock.read_text() == LOCK

    def test_a_list_that_is_not_as_it_was_signed(self, add: Run, site: LoopbackSite, keys: Keys, lock: Path) -> None:
        site.put(self.list_path(), checksum_lines("crun", "1.31").replace(b"1.31", b"1.31", 1)[::-1])
        site.put(f"{self.list_path()}.asc", keys.detach_sign(checksum_lines("crun", "1.31")))
        assert "the signature is BAD" in refused(add, lock, "crun", "1.31", *trusting(keys))

    def test_an_unsigned_list_is_downloaded_twice(self, add: Run, site: LoopbackSite, lock: Path) -> None:
        site.put(self.list_path(), checksum_lines("crun", "1.31"))
        ran = add("crun", "1.31")
        assert ran.code == 0
        assert ran.out.endswith("; no signature was there, which upstream may have: --keyring asks for one\n")
        assert entry(lock, "crun", "1.31")["verified"] == "checksum file, downloaded twice, without TLS"
        assert site.paths().count(self.list_path()) == 3  # to see whether it is signed, then twice

    def test_assets_that_are_signed_one_by_one(self, add: Run, site: LoopbackSite, keys: Keys, lock: Path) -> None:
        published = site.publish("crun", "1.29.1")
        for path in published.assets().values():
            answer = site.answers[path]
            assert isinstance(answer, Answer)
            site.put(f"{path}.asc", keys.detach_sign(answer.body))
        assert add("crun", "1.29.1", *trusting(keys)).code == 0
        found = entry(lock, "crun", "1.29.1")
        assert {arch: found[arch] for arch in digests("crun", "1.29.1")} == digests("crun", "1.29.1")
        assert found["verified"].startswith(f"signature by {keys.good} of ")

    def test_a_signed_asset_that_is_swapped(self, add: Run, site: LoopbackSite, keys: Keys, lock: Path) -> None:
        published = site.publish("crun", "1.29.1")
        for path in published.assets().values():
            answer = site.answers[path]
            assert isinstance(answer, Answer)
            site.put(f"{path}.asc", keys.detach_sign(answer.body))
        first, second = published.assets()["amd64"], published.assets()["arm64"]
        site.answers[first], site.answers[second] = site.answers[second], site.answers[first]
        assert "the signature is BAD" in refused(add, lock, "crun", "1.29.1", *trusting(keys))

    def test_an_unsigned_list_beside_signed_assets_must_agree(
        self, add: Run, site: LoopbackSite, keys: Keys, lock: Path
    ) -> None:
        published = site.publish("crun", "1.31")
        path = published.assets()["arm64"]
        answer = site.answers[path]
        assert isinstance(answer, Answer)
        site.put(f"{path}.asc", keys.detach_sign(answer.body))
        site.put(
            self.list_path(),
            checksum_lines("crun", "1.31").replace(digests("crun", "1.31")["arm64"].encode(), b"d" * 64),
        )
        assert "and the asset there is" in refused(add, lock, "crun", "1.31", *trusting(keys))
        site.put(self.list_path(), checksum_lines("crun", "1.31"))
        assert add("crun", "1.31", *trusting(keys)).code == 0
        assert set(entry(lock, "crun", "1.31")) == {"arm64", "verified", "source"}

    def test_a_site_that_withholds_the_signature(self, add: Run, site: LoopbackSite, lock: Path) -> None:
        site.put(self.list_path(), checksum_lines("crun", "1.31"))
        assert "--signed-only asks for one" in refused(add, lock, "crun", "1.31", "--signed-only")

    def test_a_named_keyring_asks_for_a_signature(self, add: Run, site: LoopbackSite, keys: Keys, lock: Path) -> None:
        site.put(self.list_path(), checksum_lines("crun", "1.31"))
        reason = refused(add, lock, "crun", "1.31", *trusting(keys))
        assert "has no signature at" in reason
        assert "add it in a run of its own, without --keyring" in reason
        # containerd is signed by nobody, and may come along with what is.
        site.containerd("2.3.5")
        assert add("containerd", "2.3.5", *trusting(keys)).code == 0

    def test_a_recorded_signature_gives_way_to_nothing_weaker(
        self, add: Run, site: LoopbackSite, keys: Keys, lock: Path
    ) -> None:
        whole = checksum_lines("crun", "1.31")
        one = b"".join(line for line in whole.splitlines(keepends=True) if b"amd64" in line)
        site.put(self.list_path(), one)
        site.put(f"{self.list_path()}.asc", keys.detach_sign(one))
        assert add("crun", "1.31", *trusting(keys)).code == 0
        before, signed = lock.read_text(), entry(lock, "crun", "1.31")["verified"]
        # A mirror withholds the signature, and invents a digest for one more architecture.
        del site.answers[f"{self.list_path()}.asc"]
        site.put(self.list_path(), whole.replace(digests("crun", "1.31")["arm64"].encode(), b"d" * 64))
        for options in ((), trusting(keys)):
            ran = add("crun", "1.31", *options)
            assert (ran.code, ran.out) == (1, "")
            assert lock.read_text() == before
        ran = add("crun", "1.31")
        assert f"is pinned already ({signed}), and what" in ran.err
        assert "was verified less: checksum file, downloaded twice, without TLS" in ran.err
        ran = add("crun", "1.31", "--replace")
        assert ran.out.startswith("crun 1.31: replaced: ")
        assert entry(lock, "crun", "1.31")["verified"] == "checksum file, downloaded twice, without TLS"

    def test_neither_list_nor_signature(self, add: Run, site: LoopbackSite, lock: Path) -> None:
        site.publish("crun", "1.31")
        assert "has no digests of crun 1.31" in refused(add, lock, "crun", "1.31")


def test_upstream_is_known_for_every_component() -> None:
    assert set(UPSTREAM) == {"containerd", "runc", "crun"}
    assert all(row.signers and row.keyring for row in UPSTREAM.values() if row.signed != "no")
    assert all(FINGERPRINT.match(signer.fingerprint) for row in UPSTREAM.values() for signer in row.signers)
