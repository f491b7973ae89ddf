"""`add`: what upstream says a release's digests are, verified as far as upstream lets anybody, into the lock file.

A signature is worth more than a checksum file, which is as trustworthy as the site that has it: that one is taken
only when a second download says the same, and the lock file says that this is all there was. A site can withhold a
signature, so that one is not taken where a keyring was named, nor does it take the place of a better verification.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from artifacts import checksums, locktext
from artifacts.errors import Refused, Unusable
from artifacts.signatures import Signature, Verifier
from artifacts.site import Absent, Site
from artifacts.upstream import Release
from userns.releases import Lock

__all__ = ["Found", "Verdict", "added", "verify"]


_SIGNED = 5


@dataclass(frozen=True, slots=True)
class Found:
    """The digests of a release by architecture, how they were verified, and where they come from."""

    digests: dict[str, str]
    verified: str
    source: str
    missing: list[str] = field(default_factory=list)

    @property
    def signed(self) -> bool:
        """Whether a pinned key has signed them."""
        return _worth(self.verified) == _SIGNED

    @property
    def entry(self) -> dict[str, str]:
        """The table in the lock file."""
        return self.digests | {"verified": self.verified, "source": self.source}


@dataclass(frozen=True, slots=True)
class Verdict:
    """The lock's new text, and what was done to it in a word."""

    text: str
    done: str


def verify(
    release: Release,
    site: Site,
    second: Site,
    verifier: Verifier,
    signers: Collection[str],
    *,
    signed_only: bool = False,
) -> Found:
    """Ask upstream for the release's digests. `signers` may sign in addition to those that are pinned."""
    trusted = {signer.fingerprint for signer in release.upstream.signers} | set(signers)
    reader = {"inside": _signed_list, "beside": _list_with_signature, "no": _unsigned}[release.upstream.signed]
    try:
        digests, verified = reader(release, site, second, verifier, trusted)
    except Absent as error:
        raise Refused(f"{release} was not found: {error}") from error
    if not digests:
        raise Refused(f"{site.url(release.directory)}/ has no digests of {release}: is there such a release?")
    signed = _worth(verified) == _SIGNED
    if signed_only and not signed:
        raise Refused(f"{release} has no signature at {site.url(release.directory)}/, and --signed-only asks for one")
    if release.upstream.signed == "beside" and verifier.has_keys and not signed:
        raise Refused(
            f"{release} has no signature at {site.url(release.directory)}/, and a keyring was named. If upstream's own "
            "page of this release has none either, add it in a run of its own, without --keyring"
        )
    if len(set(digests.values())) != len(digests):
        raise Refused(f"{release} would have one digest for two architectures: its checksum files are mixed up")
    missing = [arch for arch in release.assets() if arch not in digests]
    return Found(digests, verified, site.url(release.directory) + "/", missing)


def _signed_list(
    release: Release, site: Site, _: Site, verifier: Verifier, trusted: Collection[str]
) -> tuple[dict[str, str], str]:
    """One list for all assets, with the signature inside."""
    _need_keys(release, verifier)
    path = release.list_of(next(iter(release.assets().values())))
    text, signature = verifier.clear_signed(site.text(path), trusted, site.url(path))
    return _named(release, text, site.url(path)), str(signature)


def _list_with_signature(
    release: Release, site: Site, second: Site, verifier: Verifier, trusted: Collection[str]
) -> tuple[dict[str, str], str]:
    """One list for all assets, which may be signed; a release without a list has a signature for each asset."""
    path = release.list_of(next(iter(release.assets().values())))
    try:
        content = site.text(path)
    except Absent:
        return _signed_assets(release, site, verifier, trusted)
    listed = _named(release, _decoded(content, site.url(path)), site.url(path))
    try:
        signed = site.text(f"{path}.asc")
    except Absent:
        digests, verified = _signed_assets(release, site, verifier, trusted)
        if not digests:
            return _unsigned(release, site, second, verifier, trusted)
        for arch, digest in digests.items():
            if listed.get(arch, digest) != digest:
                raise Refused(
                    f"{site.url(path)} has {listed[arch]} for {arch}, and the asset there is {digest}"
                ) from None
        return digests, verified
    _need_keys(release, verifier)
    copy = verifier.scratch("list")
    copy.write_bytes(content)
    signature = verifier.detached(signed, copy, trusted, site.url(path))
    return listed, str(signature)


def _signed_assets(
    release: Release, site: Site, verifier: Verifier, trusted: Collection[str]
) -> tuple[dict[str, str], str]:
    """The digests of assets that are themselves signed: they have to be downloaded."""
    digests: dict[str, str] = {}
    signatures: list[Signature] = []
    for arch, path in release.assets().items():
        try:
            signed = site.text(f"{path}.asc")
        except Absent:
            continue
        _need_keys(release, verifier)
        copy = verifier.scratch("asset")
        with copy.open("w+b") as file:
            digest = site.digest(path, into=file)
        signatures.append(verifier.detached(signed, copy, trusted, site.url(path)))
        digests[arch] = digest.sha256
        copy.unlink()
    return digests, str(max(signatures)) if signatures else ""


def _unsigned(
    release: Release, site: Site, second: Site, _: Verifier, __: Collection[str]
) -> tuple[dict[str, str], str]:
    """Checksum files that nobody signs, each downloaded twice."""
    assets = release.assets()
    first = _unsigned_digests(release, site)
    again = _unsigned_digests(release, second) if first else {}
    for arch in first:
        if again.get(arch) != first[arch]:
            raise Refused(
                f"{second.url(release.list_of(assets[arch]))}: a second download does not agree on {arch}: "
                f"the first said {first[arch]}, this one says {again.get(arch, 'nothing')}"
            )
    twice = "downloaded twice" if site.base == second.base else "the same on two sites"
    # Two that agree are as good as the better one.
    plain = "" if site.private or second.private else ", without TLS"
    return first, f"checksum file, {twice}{plain}"


def _unsigned_digests(release: Release, site: Site) -> dict[str, str]:
    digests: dict[str, str] = {}
    texts: dict[str, str] = {}
    for arch, asset in release.assets().items():
        path = release.list_of(asset)
        if path not in texts:
            try:
                texts[path] = _decoded(site.text(path, fresh=True), site.url(path))
            except Absent:
                continue
        digest = checksums.digest_of(asset, texts[path], site.url(path))
        if digest:
            digests[arch] = digest
        elif "{asset}" in release.upstream.list:
            raise Refused(f"{site.url(path)} does not name the asset that it is for")
    return digests


def _named(release: Release, text: str, where: str) -> dict[str, str]:
    """The digests in a list of all the release's files."""
    if others := checksums.versions_of(release.component, text) - {release.version}:
        raise Refused(
            f"{where} is the list of {release.component} {', '.join(sorted(others))}, not of {release.version}"
        )
    found = {arch: checksums.digest_of(path, text, where) for arch, path in release.assets().items()}
    return {arch: digest for arch, digest in found.items() if digest}


def _decoded(content: bytes, where: str) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Refused(f"{where} is not a checksum file") from error


def _need_keys(release: Release, verifier: Verifier) -> None:
    if not verifier.has_keys:
        raise Unusable(
            f"upstream signs {release}: name a file with its signers' public keys, --keyring FILE. "
            f"Upstream's is {release.upstream.keyring}"
        )


def added(lock: Lock, text: str, release: Release, found: Found, head: dict[str, str], *, replace: bool) -> Verdict:
    """The lock with this release; what is pinned, and how it was verified, gets no worse unless `replace`."""
    component, version = release.component, release.version
    pinned = {arch: lock.asset(component, version, arch).sha256 for arch in lock.architectures(component, version)}
    _refuse_replay(lock, release, found)
    changed = sorted(arch for arch in pinned if found.digests.get(arch) != pinned[arch])
    if changed and not replace:
        arch = changed[0]
        says = f"upstream says {found.digests[arch]}" if arch in found.digests else "upstream has none"
        raise Refused(
            f"{release} is pinned already, and not as upstream has it now: {arch} is {pinned[arch]} in the lock file, "
            f"{says}. A release's assets do not change: find out why before you say --replace"
        )
    known = lock.verified(component, version) if pinned else ""
    same = not changed and len(pinned) == len(found.digests)
    if same and _worth(known) >= _worth(found.verified):
        return Verdict(text, "unchanged")
    weaker = _worth(known) > _worth(found.verified)
    if weaker and not replace:  # one word of `verified` is for all architectures, also for those that are there already
        raise Refused(
            f"{release} is pinned already ({known}), and what {found.source} has now was verified less: "
            f"{found.verified}. Name upstream or another mirror, and a keyring where upstream signs; "
            "--replace takes it all the same"
        )
    done = "verified" if same else "replaced" if changed or weaker else "added"
    return Verdict(locktext.with_version(text, component, version, found.entry, head), done)


def _refuse_replay(lock: Lock, release: Release, found: Found) -> None:
    """runc's list names no version, so that an old one, signed well, would do for a new release."""
    for version in lock.versions(release.component):
        for arch in lock.architectures(release.component, version):
            pinned = lock.asset(release.component, version, arch).sha256
            for own, digest in found.digests.items():
                if digest == pinned and (version, arch) != (release.version, own):
                    raise Refused(
                        f"{found.source} gives {release} for {own} the digest of {release.component} {version} for "
                        f"{arch}: it is another release's checksum file"
                    )


def _worth(verified: str) -> int:
    """How much a verification is worth, by the words that the lock has for it."""
    if verified.startswith("signature by "):
        return _SIGNED
    if not verified:
        return 0
    if not verified.startswith("checksum file"):  # somebody's own words: only a signature is surely worth more
        return _SIGNED - 1
    return 1 + ("the same on two sites" in verified) + 2 * ("without TLS" not in verified)
