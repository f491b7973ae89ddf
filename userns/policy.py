"""The policy: what is wanted of a node. The settings of one host, validated, with every problem named at once."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, InstanceOf

from userns.bundles import Bundle
from userns.containerd.extraconfig import contradictions
from userns.kubelet.idrange import capacity_problem, range_problems
from userns.names import closest, near_miss
from userns.releases import COMPONENTS, Asset, Lock, LockError
from userns.secret import SHOWN, hide, texts, without
from userns.settings import FLEETS, SETTINGS, Problem, mask
from userns.versions import parse, reaches

__all__ = ["Policy", "PolicyError", "Problem", "artifact_bundle_path", "artifact_lock_path", "load", "meant"]

_OURS = (*SETTINGS, *FLEETS)

# Tells what speaks against a version of a component; an empty answer is none.
Advisories = Callable[[str, str], Collection[object]]


class PolicyError(ValueError):
    """The settings of a host are refused. `problems` has all of them, in the order of the settings."""

    def __init__(self, problems: Collection[Problem]) -> None:
        self.problems = tuple(problems)
        count = "one setting is" if len(self.problems) == 1 else f"{len(self.problems)} settings are"
        super().__init__("\n".join((f"{count} refused:", *(f"  {problem}" for problem in self.problems))))


class Policy(BaseModel):
    """What is wanted of a node: every setting by its public name, valid, with the versions resolved.

    Made by `load`, which knows the defaults and the rules between settings; here are only the types.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    kubernetes_version: str
    containerd_version: str
    runc_version: str
    crun_version: str | None
    default_runtime: Literal["runc", "crun"]
    install_from: Literal["release", "package", "bundle"]
    release_url: str = Field(repr=False)
    release_proxy: str | None = Field(repr=False)
    artifact_lock: str
    artifact_bundle: str | None
    snapshotter: str
    slow_chown: Literal["auto", True, False]
    overlay_metacopy: Literal["auto", True, False]
    cgroup_driver: Literal["systemd", "cgroupfs"]
    sandbox_image: str | None
    containerd_config: dict[str, Any] = Field(repr=False)
    containerd_root: str
    kubelet_root: str
    max_pods: int
    ids_per_pod: int
    kubelet_id_range: tuple[int, int] | None
    target_kernel: str | None
    verify_digests: bool
    allow: tuple[str, ...]
    lock: InstanceOf[Lock] = Field(exclude=True, repr=False)
    # What the bundle holds; None where nothing comes from one, or where none is at hand (`python -m userns explain`).
    bundle: InstanceOf[Bundle] | None = Field(default=None, exclude=True, repr=False)
    # Every secret in the data of this host, for whoever prints something.
    secrets: tuple[str, ...] = Field(default=(), exclude=True, repr=False)

    @property
    def config_version(self) -> Literal[2, 3]:
        """The version of config.toml that this containerd reads: 2 for 1.x, 3 for 2.x (and accepted since)."""
        return _config_version(self.containerd_version)

    @property
    def versions(self) -> dict[str, str]:
        """What a node gets: component → version; crun only where it is wanted."""
        wanted = {component: getattr(self, f"{component}_version") for component in COMPONENTS}
        return {component: version for component, version in wanted.items() if version is not None}

    @property
    def safe_release_url(self) -> str:
        """`release_url` for people and logs: a user and password are masked."""
        return self._safe(self.release_url)

    def _safe(self, url: str) -> str:
        return SHOWN if url in self.secrets else hide(mask(url), self.secrets)

    def url(self, asset: Asset) -> str:
        """Where to fetch an asset. May hold the mirror's password: not for messages."""
        return self.release_url + asset.path

    def to_json(self) -> dict[str, Any]:
        """Every setting as a JSON value, secrets masked."""
        shown = without(self.containerd_config, self.secrets)
        proxy = self.release_proxy and self._safe(self.release_proxy)
        safe = {"release_url": self.safe_release_url, "release_proxy": proxy, "containerd_config": shown}
        return self.model_dump(mode="json") | safe


def artifact_lock_path(data: Mapping[str, object]) -> str:
    """Which lock file the settings name, for the shell to read before `load`."""
    return str(_read(data, "artifact_lock"))


def artifact_bundle_path(data: Mapping[str, object]) -> str | None:
    """Which bundle the settings name, for the shell to read before `load`; None where nothing comes from one."""
    if data.get("install_from") != "bundle":
        return None
    path = _read(data, "artifact_bundle")
    return None if path is None else str(path)


def _read(data: Mapping[str, object], name: str) -> object:
    setting = SETTINGS[name]
    value = data.get(name, setting.default)
    try:
        return setting.read(value)
    except ValueError as error:
        raise PolicyError([Problem(name, value, f"{error}. Allowed: {setting.allowed}")]) from error


def meant(name: str) -> str | None:
    """The name of ours that `name` is a slip of, also one of fleet.py's; None where it is ours, or somebody else's."""
    return near_miss(name, _OURS)


def load(
    data: Mapping[str, object],
    lock: Lock | str,
    *,
    bundle: Bundle | None = None,
    blocking_advisories: Advisories = lambda _component, _version: (),
    known_findings: Collection[str] | None = None,
) -> Policy:
    """The policy in one host's data, with the lock (or the text of the lock file), and the bundle that it names.

    Names that are not ours are left alone unless they are a slip of one of ours. A version that is not set becomes
    the newest locked release that `blocking_advisories` has nothing against, whatever a bundle has; where it has
    something against each, the newest, so that the plan can name the advisory and the operator can decide. Raises
    PolicyError with every problem at once, and nothing else.
    """
    problems = list(_strangers(data))
    values: dict[str, Any] = {}
    if data.get("install_from") != "bundle":
        bundle = None
    for name, setting in SETTINGS.items():
        value = data.get(name, setting.default)
        try:
            values[name] = setting.read(value)
        except ValueError as error:
            problems.append(Problem(name, value, f"{error}. Allowed: {setting.allowed}"))
    try:
        lock = Lock.parse(lock) if isinstance(lock, str) else lock
    except LockError as error:
        message = f"the lock file cannot be used: {error}. Repair it, or name another one"
        problems.append(Problem("artifact_lock", values.get("artifact_lock"), message))
    else:
        problems += _resolve_versions(values, lock, blocking_advisories)
    problems += _between_settings(values, known_findings)
    if problems:
        order = list(SETTINGS)
        raise PolicyError(sorted(problems, key=lambda p: order.index(p.setting) if p.setting in order else -1))
    shown_nowhere = tuple(dict.fromkeys(texts(data)))
    return Policy.model_validate(values | {"lock": lock, "bundle": bundle, "secrets": shown_nowhere})


def _strangers(data: Mapping[str, object]) -> Iterator[Problem]:
    for name, value in data.items():
        if ours := meant(name):
            yield Problem(
                name, value, f"there is no such setting. Write {ours}, or rename it if it is not meant for us", ours
            )


def _resolve_versions(values: dict[str, Any], lock: Lock, blocking_advisories: Advisories) -> Iterator[Problem]:
    """Put the newest version where none is named, and refuse the ones that could not be installed.

    What a bundle holds has no say here: whoever brings an old one would choose an old version for every node, and that
    of programs that are genuine. One that lacks the version is refused by the plan (`artifact-not-bundled`).
    """
    for component in COMPONENTS:
        setting = f"{component}_version"
        if setting not in values or (values[setting] is None and component == "crun"):
            continue
        if values[setting] is None and values.get("install_from") == "package":
            message = (
                'install_from = "package" takes an exact version, for the lock file does not know what apt offers the '
                f"node (apt-cache policy {component}): name one"
            )
            yield Problem(setting, values.pop(setting), message)
            continue
        if values[setting] is None:
            newest = _newest(component, lock.versions(component), blocking_advisories)
            if newest is None:
                message = f"the lock file has no {component} to choose from. Name a version, or add one"
                yield Problem(setting, values.pop(setting), message)
                continue
            values[setting] = newest
        version = values[setting]
        if values.get("install_from") in ("release", "bundle") and not lock.architectures(component, version):
            yield Problem(setting, version, lock.missing(component, version))


def _newest(component: str, choice: Collection[str], blocking_advisories: Advisories) -> str | None:
    releases = [version for version in choice if not parse(version).is_prerelease] or list(choice)
    clean = (version for version in releases if not blocking_advisories(component, version))
    return next(clean, releases[0] if releases else None)


def _between_settings(values: dict[str, Any], known_findings: Collection[str] | None) -> Iterator[Problem]:
    """The rules between settings, each where all the settings that it needs are valid themselves."""

    def valid(*names: str) -> bool:
        return all(name in values for name in names)

    if valid("default_runtime", "crun_version") and values["default_runtime"] == "crun" and not values["crun_version"]:
        yield Problem(
            "default_runtime", "crun", 'crun is not installed: set crun_version too, or default_runtime = "runc"'
        )
    if valid("artifact_bundle") and values.get("install_from") == "bundle" and values["artifact_bundle"] is None:
        made = "name the file that `python -m artifacts bundle OUT.tar` made on a connected machine"
        yield Problem("artifact_bundle", None, f'install_from = "bundle" needs it: {made}')
    if valid("max_pods", "ids_per_pod"):
        sizes = {"ids_per_pod": values["ids_per_pod"], "max_pods": values["max_pods"]}
        if message := capacity_problem(**sizes):
            yield Problem("max_pods", values["max_pods"], message)
        elif values.get("kubelet_id_range"):
            start, count = values["kubelet_id_range"]
            for message in range_problems(start, count, **sizes):
                yield Problem("kubelet_id_range", (start, count), f"{message}. The kubelet would not start")
    if valid("containerd_root", "kubelet_root") and values["containerd_root"] == values["kubelet_root"]:
        yield Problem(
            "kubelet_root", values["kubelet_root"], "containerd_root is the same directory: choose another one"
        )
    if valid("allow") and known_findings is not None:
        for id in values["allow"]:
            if id not in known_findings:
                near = closest(id, known_findings)
                hint = f"did you mean {near!r}?" if near else "copy the id from the refusal"
                yield Problem("allow", id, f"there is no finding with this id; {hint}")
    needed = ("cgroup_driver", "snapshotter", "overlay_metacopy")
    if valid("containerd_config", "crun_version", *needed) and values.get("containerd_version"):
        for message in contradictions(
            values["containerd_config"],
            config_version=_config_version(values["containerd_version"]),
            crun=values["crun_version"] is not None,
            transfer_service=reaches(values["containerd_version"], "2.1"),
            **{name: values[name] for name in needed},
        ):
            yield Problem("containerd_config", values["containerd_config"], message)


def _config_version(containerd: str) -> Literal[2, 3]:
    return 2 if parse(containerd).major < 2 else 3
