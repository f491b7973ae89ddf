"""The reference of paths on a node: each that userns.paths names, and what is there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from docs_reference.markdown import code, plain
from userns import paths

_INTRO = """\
# Paths on a node

*This page is made from the code: `userns/paths.py`.*

These paths are public: monitoring and other tools may rely on them. Everything here belongs to root.
"""
# What is at each of the module's paths. A path without a line here cannot be told, and no page is made.
_MEANINGS = {
    "CONFIG": "containerd's configuration, written whole; what you add goes into `containerd_config` or into drop-ins",
    "DROP_INS": "yours: files here are read (`imports`), judged, and never touched",
    "DROP_INS_GLOB": "what `imports` in config.toml says, and has to say",
    "UNIT": "containerd's unit, from a release or a bundle; a package keeps its own",
    "UNIT_DROP_IN": "runs the pre-start hook before containerd",
    "MODPROBE": "turns overlay's metacopy on wherever overlay is a module",
    "SYSCTL": "`user.max_user_namespaces`, only where the node's own limit is too low",
    "SUBUID": "the line of the user `kubelet`, only with `kubelet_id_range`; other lines stay",
    "SUBGID": "the same for groups",
    "STATE": "what the deploys keep: the record, the staged set, the sets to go back to, the lock",
    "MANIFEST": "the record of what was installed, with digests and no secrets",
    "UNPROVEN": "is there from a change on until its proof has succeeded",
    "REPLACED": "what others had written into our files, kept for good as `NAME.DIGEST`",
    "LIBEXEC": "the scripts that stay on the node",
    "PRE_START": "loads overlay and sets metacopy before containerd starts, where overlay is built in too",
    "CHECK": "says at any time whether the node is ready: see [is a node still ready?](../how-to/diagnosis.md)",
    "CHECK_UNIT": "runs the check after every boot",
    "METRICS": "names the `userns_node.prom` that the check's unit wrote last, where it is told to",
    "READINESS": "what the check found last, as JSON",
    "FIRST_BOOT": "picks, on the kernel that runs, from what an image was baked with",
    "FIRST_BOOT_UNIT": "runs that before containerd",
    "IMAGE_RECORD": "what an image was baked for",
    "IMAGE_SBOM": "an image's bill of materials (CycloneDX, JSON)",
}
# Only on nodes that pull: brought by cloud-init, and what the script keeps.
_PULLED = {
    "/etc/userns-node/pull.conf": "what the node fetches",
    "/etc/userns-node/allowed_signers": "the keys whose signature counts; yours, no pull changes it",
    "/usr/local/sbin/userns-node-pull": "fetches, verifies, runs",
    "/etc/systemd/system/userns-node-pull.service": "one run of it",
    "/etc/systemd/system/userns-node-pull.timer": "starts that once an hour and after each boot",
    "/var/lib/cloud/scripts/per-boot/50-userns-node": "the first run and the join, at each boot until that is done",
    "/var/lib/userns-node-pull": "`status.json` for everybody; for root alone what it fetched, the virtual "
    "environment, and the commits that were accepted and converged last",
}
_IN_AN_IMAGE = ("FIRST_BOOT", "FIRST_BOOT_UNIT", "IMAGE_RECORD", "IMAGE_SBOM")


def page() -> str:
    """The whole page."""
    names = [name for name, value in vars(paths).items() if name.isupper() and isinstance(value, str)]
    node = [name for name in names if name not in _IN_AN_IMAGE]
    per_kernel = [*paths.CONFIG_FOR.values(), *paths.CHECK_FOR.values()]
    parts = [
        _INTRO,
        "## Files and directories\n",
        *_table(("path", "what is there"), ((getattr(paths, name), _MEANINGS[name]) for name in node)),
        "\n## Programs\n",
        *_table(
            ("from a release or a bundle", "from a package"),
            ((path, code(paths.PACKAGED[name])) for name, path in paths.INSTALLED.items()),
        ),
        "\n## On nodes that [pull](../how-to/pull.md)\n",
        *_table(("path", "what is there"), _PULLED.items()),
        "\n## In an image, for its first boot\n",
        *_table(("path", "what is there"), ((getattr(paths, name), _MEANINGS[name]) for name in _IN_AN_IMAGE)),
        *_rows((path, "the same file as rendered for that kind of kernel") for path in per_kernel),
    ]
    return "\n".join(parts) + "\n"


def _table(head: tuple[str, str], rows: Iterable[tuple[str, str]]) -> Iterator[str]:
    yield f"| {head[0]} | {head[1]} |\n| --- | --- |"
    yield from _rows(rows)


def _rows(rows: Iterable[tuple[str, str]]) -> Iterator[str]:
    for path, text in rows:
        yield f"| {code(path)} | {text if '](' in text else plain(text)} |"
