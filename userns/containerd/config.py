"""containerd's config.toml, as a mapping and as text: ours, with the operator's `containerd_config` in between."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import toml

from userns import programs
from userns.containerd.extraconfig import IMAGES, REGISTRY
from userns.containerd.merge import ConfigError, Table, at, difference, merged, plain, spelled
from userns.containerd.toml_text import KeyPath, assignments, inline, key, tables
from userns.paths import DROP_INS, DROP_INS_GLOB
from userns.policy import Policy
from userns.readiness import Readiness
from userns.render import comment_lines, fill_anew
from userns.versions import reaches

__all__ = [
    "STATE",
    "ConfigError",
    "Rendered",
    "Settings",
    "intended",
    "of_policy",
    "render",
    "second_opinion",
]

STATE = "/run/containerd"
RUNC_V2 = "io.containerd.runc.v2"
# One directory: containerd's own default from 2.2 on is a list of two, which its transfer service reads as one path, so
# that every hosts.toml is ignored without a word (containerd/containerd#12808). Until 2.1 the default is none.
REGISTRY_HOSTS = "/etc/containerd/certs.d"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What decides config.toml. `version` is the config's: 2 for containerd 1.7, 3 for 2.x.

    `handlers` maps a runtime handler to the path of its binary. `slow_chown` None leaves the key out, and so does
    version 2: containerd 1.7 does not know the key and would ignore it without a word. `local_pull`: CRI pulls images
    itself, and not by the transfer service. `registry_hosts`: the directory of hosts.toml is written, but in version 2
    not. `extra` is the setting `containerd_config`.
    """

    version: int
    root: str
    cgroup_driver: str
    handlers: Mapping[str, str]
    default_runtime: str
    snapshotter: str
    sandbox_image: str | None = None
    slow_chown: bool | None = None
    slow_chown_reason: str = ""
    local_pull: bool = False
    registry_hosts: bool = False
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Rendered:
    """The text of config.toml, what it says, and what a reader of TOML 0.5 has against it (None: nothing)."""

    text: str
    mapping: Table
    doubt: str | None


def of_policy(policy: Policy, ready: Readiness) -> Settings:
    """What decides config.toml on a node that is so far ready."""
    return Settings(
        version=policy.config_version,
        root=policy.containerd_root,
        cgroup_driver=policy.cgroup_driver,
        handlers=programs.handlers(policy),
        default_runtime=policy.default_runtime,
        snapshotter=policy.snapshotter,
        sandbox_image=policy.sandbox_image,
        slow_chown=ready.slow_chown,
        slow_chown_reason=ready.slow_chown_reason,
        local_pull=_pulls_locally(policy),
        registry_hosts=_leaves_registries(policy),
        extra=policy.containerd_config,
    )


def _pulls_locally(policy: Policy) -> bool:
    """Whether the transfer service, by which CRI pulls from containerd 2.1 on, could not unpack for this snapshotter.

    Its default unpack_config names overlayfs alone, and every pull fails with "no unpack platforms defined"
    (containerd core/transfer/local/pull.go, containerd/containerd#11606). Where the operator has set either, they know.
    """
    if policy.snapshotter == "overlayfs" or not reaches(policy.containerd_version, "2.1"):
        return False
    own = at(policy.containerd_config, ("plugins",))
    return "use_local_image_pull" not in at(own, (IMAGES,)) and not own.get("io.containerd.transfer.v1.local")


def _leaves_registries(policy: Policy) -> bool:
    """Whether the operator says nothing of where registries are configured: CRI does not load with both ways."""
    return not {"config_path", "mirrors"} & set(at(policy.containerd_config, REGISTRY))


@dataclass(frozen=True, slots=True)
class _Places:
    """Where a config version keeps what we write (docs/cri/config.md of containerd 1.7 and 2.3)."""

    containerd: KeyPath
    snapshotter: KeyPath
    sandbox: KeyPath
    slow_chown: KeyPath | None
    registry: KeyPath | None


_PLACES: Mapping[int, _Places] = {
    2: _Places(
        containerd=("plugins", "io.containerd.grpc.v1.cri", "containerd"),
        snapshotter=("plugins", "io.containerd.grpc.v1.cri", "containerd", "snapshotter"),
        sandbox=("plugins", "io.containerd.grpc.v1.cri", "sandbox_image"),
        slow_chown=None,
        registry=None,
    ),
    3: _Places(
        containerd=("plugins", "io.containerd.cri.v1.runtime", "containerd"),
        snapshotter=("plugins", IMAGES, "snapshotter"),
        sandbox=("plugins", IMAGES, "pinned_images", "sandbox"),
        slow_chown=("plugins", "io.containerd.snapshotter.v1.overlayfs", "slow_chown"),
        registry=REGISTRY,
    ),
}


def intended(settings: Settings) -> Table:
    """The whole of config.toml as a mapping: the one that reading the rendered text gives back.

    Raises ConfigError where `extra` would change a key that we write, or holds what TOML cannot express.
    """
    ours = _ours(settings)
    try:
        return merged(ours, plain(settings.extra))
    except ConfigError as error:
        raise ConfigError(f"containerd_config: {error}") from None


def render(templates: Mapping[str, str], settings: Settings) -> Rendered:
    """config.toml, proved by reading it back. `templates` holds each template's text by file name.

    The nodes of a fleet share a few of them: each is made once. Raises ConfigError where `extra` would change a key
    that we write, or holds what TOML cannot express.
    """
    _places(settings)  # or the version is not known
    return _rendered(templates[f"config-v{settings.version}.toml.j2"], _Said(repr(settings), settings))


@dataclass(frozen=True, slots=True)
class _Said:
    """Settings that can be hashed: by their repr, which tells true from 1, but need not tell a secret from another."""

    said: str
    settings: Settings = field(hash=False)


@lru_cache(maxsize=64)
def _rendered(template: str, said: _Said) -> Rendered:
    want = intended(said.settings)
    text = _text(template, said.settings, want)
    return Rendered(text, want, second_opinion(text, want))


def _text(template: str, settings: Settings, want: Table) -> str:
    ours = _ours(settings)
    opened: set[KeyPath] = set()

    def more(*path: str) -> str:
        """The operator's own keys in a table that the template opens."""
        opened.add(path)
        inner, known = at(want, path), at(ours, path)
        return assignments({name: value for name, value in inner.items() if name not in known})

    handlers = at(ours, (*_places(settings).containerd, "runtimes"))
    slow_chown = _places(settings).slow_chown
    text = fill_anew(
        template,
        ours=ours,
        drop_ins=DROP_INS,
        handlers={name: handlers[name] for name in sorted(handlers, key=_runc_first)},
        snapshotter=settings.snapshotter,
        local_pull=settings.local_pull,
        registry_hosts=REGISTRY_HOSTS if settings.registry_hosts else None,
        default_runtime=settings.default_runtime,
        sandbox_image=settings.sandbox_image,
        slow_chown=settings.slow_chown if slow_chown else None,
        slow_chown_reason=comment_lines(settings.slow_chown_reason),
        toml=inline,
        key=key,
        more=more,
        rest=lambda: tables(want, opened),
    )
    text = text.rstrip("\n") + "\n"
    try:
        wrong = difference(want, _read(text))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"the rendered config.toml is not TOML ({error}): please report this as a bug") from None
    if wrong is not None:
        raise ConfigError(
            f"the rendered config.toml says something else than intended at {spelled(wrong)}: "
            "please report this as a bug"
        )
    return text


def second_opinion(text: str, mapping: Mapping[str, Any]) -> str | None:
    """Where a reader of TOML 0.5 (the PyPI package `toml`) disagrees with the mapping; None where it agrees.

    containerd 1.7 and many tools that edit config.toml are of that age.
    """
    try:
        have = _read_as_0_5(text)
    except Exception as error:  # its reader also fails with IndexError, TypeError and others
        return f"a reader of TOML 0.5 cannot read config.toml: {type(error).__name__}"
    wrong = difference(dict(mapping), have)
    return None if wrong is None else f"a reader of TOML 0.5 reads {spelled(wrong)} of config.toml differently"


def _places(settings: Settings) -> _Places:
    if settings.version not in _PLACES:
        raise ConfigError(f"config version {settings.version!r} is not known: 2 (containerd 1.7) or 3 (2.x)")
    return _PLACES[settings.version]


def _ours(settings: Settings) -> Table:
    """What we write ourselves."""
    places, default = _places(settings), settings.default_runtime
    if default not in settings.handlers:
        known = ", ".join(settings.handlers)
        raise ConfigError(f"default_runtime {default!r} has no handler; those installed: {known}")
    config: Table = {
        "version": settings.version,
        "root": settings.root,
        "state": STATE,
        "imports": _imports(settings.extra.get("imports")),
    }
    _set(config, (*places.containerd, "default_runtime_name"), default)
    for name, binary in settings.handlers.items():
        # Equal for all: containerd reports the default handler's to the kubelet (docs/cri/config.md).
        options = {"BinaryName": binary, "SystemdCgroup": settings.cgroup_driver == "systemd"}
        _set(config, (*places.containerd, "runtimes", name), {"runtime_type": RUNC_V2, "options": options})
    _set(config, places.snapshotter, settings.snapshotter)
    if settings.local_pull:
        _set(config, ("plugins", IMAGES, "use_local_image_pull"), True)
    if settings.registry_hosts and places.registry:
        _set(config, (*places.registry, "config_path"), REGISTRY_HOSTS)
    if settings.sandbox_image is not None:
        _set(config, places.sandbox, settings.sandbox_image)
    if settings.slow_chown is not None and places.slow_chown:
        _set(config, places.slow_chown, settings.slow_chown)
    ours: Table = plain(config)
    return ours


def _imports(wanted: object) -> list[Any]:
    """Our drop-ins, or the operator's list where it has them, too."""
    return list(wanted) if isinstance(wanted, list | tuple) and DROP_INS_GLOB in wanted else [DROP_INS_GLOB]


def _set(config: Table, path: KeyPath, value: Any) -> None:
    *above, last = path
    for each in above:
        config = config.setdefault(each, {})
    config[last] = value


def _runc_first(name: str) -> tuple[int, str]:
    known = ("runc", "crun")
    return (known.index(name) if name in known else len(known), name)


# The nodes of a fleet share a few texts, and reading one again is most of the work for a node. Nobody may change
# the answer.
@lru_cache(maxsize=64)
def _read(text: str) -> Table:
    return tomllib.loads(text)


@lru_cache(maxsize=64)
def _read_as_0_5(text: str) -> Any:
    return _undressed(toml.loads(text))


def _undressed(value: Any) -> Any:
    """`toml`'s own subclasses of dict made plain."""
    if isinstance(value, dict):
        return {name: _undressed(each) for name, each in value.items()}
    return [_undressed(each) for each in value] if isinstance(value, list) else value
