"""Further containerds on a machine, beside its own: other versions, other settings, for as long as a test needs them.

Each has a root, a socket, a cgroup and a mount namespace to itself, and runs as a transient unit. The machine's own
containerd, its config and its unit are not touched, and leaving the context takes everything away again but the
programs themselves and the image, in /opt/beside.
"""

from __future__ import annotations

import shlex
import subprocess
import tarfile
import time
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomlkit

from lab import Lab, Machine, cache, cni, debs
from lab.processes import tool
from tests.node.runs import image
from tests.vm.cri import Cri, connect
from userns import versions

# The suites, with the libraries that their programs need beyond those of Debian testing, which the machines have.
SUITES: Mapping[str, tuple[str, ...]] = {"bookworm": ("libyajl2",), "trixie": ("libyajl2",), "testing": ()}
_PROGRAMS = ("bin/containerd", "bin/ctr", "bin/containerd-shim-runc-v2", "bin/crun", "sbin/runc")
_HOME = "/opt/beside"
_LIBRARY_PATH = ":".join(f"{_HOME}/{suite}" for suite in SUITES)
# A machine may be ten times slower than the slowest that is known.
PATIENCE = 600
IMAGE = "lab.invalid/upstream:1"
USERNS = "--remap-labels --uidmap 0:65536:65536 --gidmap 0:65536:65536"


def packed() -> Path:
    """A directory with a tar of the runtimes of each suite."""
    packages = {suite: sorted(debs.fetched(suite).glob("*.deb")) for suite in SUITES}

    def build(into: Path) -> None:
        for suite, libraries in SUITES.items():
            tree, more = into / "tree", into / "more"
            more.mkdir()
            if libraries:
                debs.download(suite, libraries, more)
            for deb in (*packages[suite], *more.glob("*.deb")):
                subprocess.run([tool("dpkg-deb"), "--extract", str(deb), str(tree)], check=True)
            with tarfile.open(into / f"{suite}.tar", "w") as tar:
                for program in _PROGRAMS:
                    tar.add(tree / "usr" / program, Path(program).name)
                for name in libraries:
                    for file in sorted(tree.glob(f"usr/lib/*/{name.rstrip('0123456789')}.so.*")):
                        tar.add(file, file.name)
            cache.remove_tree(tree)
            cache.remove_tree(more)

    names = [deb.name for suite in SUITES for deb in packages[suite]]
    return cache.once("beside", cache.digest(*names, *_PROGRAMS, repr(SUITES)), build)


@dataclass(frozen=True)
class Runtimes:
    """The runtimes of a Debian suite, in a directory of a machine."""

    machine: Machine
    suite: str

    def program(self, name: str) -> str:
        """The path of a program."""
        return f"{_HOME}/{self.suite}/{name}"

    def version(self, package: str) -> str:
        """The upstream version that the suite's package has."""
        (deb,) = debs.fetched(self.suite).glob(f"{package}_*.deb")
        version = versions.upstream(deb.name.split("_")[1])
        assert version, f"{deb.name} has a version that does not start with an upstream version"
        return version


@dataclass(frozen=True)
class Settings:
    """How a containerd is set up. What is not named is left as containerd has it by itself.

    `handlers` are CRI's runtime handlers with their binaries (runc and crun of the same suite by default), and
    `snapshotter` is CRI's. `before_5_19` makes the kernel look like one of 5.12 to 5.18: uname tells an old version, so
    that containerd tests whether overlay can be idmapped, and it tests in a directory that no kernel can idmap.
    `planned` is a config.toml that a deploy would write, of which only what has to be another one beside the machine's
    own containerd is not used. `misplaced` puts slow_chown where it does not belong; `root_on` is a file system.
    """

    slow_chown: bool | None = None
    snapshotter: str = "overlayfs"
    handlers: Mapping[str, str] | None = None
    before_5_19: bool = False
    planned: str = ""
    misplaced: bool = False
    root_on: str = ""


@dataclass(frozen=True)
class Ended:
    """How a container ended, and what it (or its runtime) said."""

    code: int
    stdout: str
    stderr: str


@dataclass(frozen=True)
class Daemon:
    """A running containerd, whose only image is IMAGE, known to `ctr` and to CRI."""

    machine: Machine
    name: str
    runtimes: Runtimes

    @property
    def home(self) -> str:
        """Everything that it writes."""
        return f"/var/lib/{self.name}"

    @property
    def socket(self) -> str:
        """Where it listens."""
        return f"{self.home}/state/containerd.sock"

    @property
    def cgroup(self) -> str:
        """The cgroup for its containers and pods, seen from the root of all cgroups."""
        return f"/{self.name}"

    @contextmanager
    def cri(self) -> Iterator[Cri]:
        """Its CRI, once that knows the image: it learns of it by an event."""
        with connect(self.machine, self.socket, self.cgroup) as cri:
            end = time.monotonic() + PATIENCE
            while IMAGE not in cri.images():
                assert time.monotonic() < end, f"CRI of {self.name} never heard of {IMAGE}"
                time.sleep(0.2)
            yield cri

    def sh(self, script: str, *, check: bool = True, input: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run a script on the machine in which `ctr` speaks to this daemon, and $snapshots are those of overlayfs."""
        ctr = f"{self.runtimes.program('ctr')} --address {self.socket} --namespace k8s.io"
        words = f"snapshots={self.home}/root/io.containerd.snapshotter.v1.overlayfs/snapshots"
        return self.machine.ssh(f'{words}; ctr() {{ {ctr} "$@"; }}; {script}', check, timeout=PATIENCE, input=input)

    def run(self, script: str, *, options: str = USERNS, runtime: str = "runc", name: str = "once") -> Ended:
        """Run a container to its end, with a user namespace unless `options` say otherwise. Its layers stay."""
        flags = f"--runc-binary {self.runtimes.program(runtime)} --cgroup {self.cgroup}/{name} {options}"
        words = f"ctr run {flags} {IMAGE} {name} /bin/sh -c {shlex.quote(script)}"
        done = self.sh(words, check=False)
        return Ended(done.returncode, done.stdout, done.stderr)

    def remove(self, name: str = "once") -> None:
        """Remove a container that ended. The layers that were made for it go a little later."""
        self.sh(f"ctr containers rm {name}")

    def capabilities(self, snapshotter: str) -> set[str]:
        """What a snapshotter says it can."""
        for line in self.sh(f"ctr plugins ls --detailed id=={snapshotter}").stdout.splitlines():
            if line.startswith("Capabilities:"):
                return set(line.partition(":")[2].split()[0].split(","))
        return set()

    def layers(self) -> dict[str, Layer]:
        """The layers of overlayfs that have the image's shell in them: the image itself, and its copies."""
        shown = 'echo "$fs $(stat -c %u $fs/bin/sh) $(du -sk $fs)"'
        each = f"for fs in $snapshots/*/fs; do [ ! -e $fs/bin/sh ] || {shown}; done"
        found = (line.split() for line in self.sh(each).stdout.splitlines())
        return {path: Layer(int(owner), int(kib)) for path, owner, kib, _ in found}

    def journal(self) -> str:
        """All that it logged."""
        return self.machine.ssh(f"journalctl --quiet --no-pager --output cat --unit {self.name}").stdout

    def restart(self, settings: Settings) -> None:
        """Start it (again) with these settings; what it has on disk stays."""
        start = f"exec {self.runtimes.program('containerd')} --config {self.home}/config.toml"
        if settings.before_5_19:
            tests_in = f"{self.home}/ramfs"
            simulated = start.replace("exec ", "exec setarch --uname-2.6 ")
            start = f"mkdir -p {tests_in} && mount -t ramfs ramfs {tests_in} && export TMPDIR={tests_in} && {simulated}"
        if settings.root_on:
            root = f"{self.home}/root"
            start = f"mkdir -p {root} && mount -t {settings.root_on} none {root} && {start}"
        path = f"{_HOME}/{self.runtimes.suite}:/usr/sbin:/usr/bin"
        flags = [f"--property={each}" for each in _UNIT]
        flags += [f"--setenv=PATH={path}", f"--setenv=LD_LIBRARY_PATH={_LIBRARY_PATH}"]
        unit = f"systemd-run --quiet --collect --unit={self.name} {' '.join(flags)} sh -euc {shlex.quote(start)}"
        write = f"cat >{self.home}/config.toml && {{ systemctl --quiet stop {self.name} 2>/dev/null || :; }}"
        started = self.sh(f"{write} && {unit}", check=False, input=_config(self, settings))
        assert started.returncode == 0, f"{started.stderr}{self.journal()}"

    def load(self) -> None:
        """Have IMAGE in it."""
        self.sh(f"ctr images import --no-unpack {_HOME}/image.tar")

    def stop(self) -> None:
        """End it with all of its containers, and remove all that it wrote."""
        done = self.sh(_STOP.format(name=self.name, cgroup=f"/sys/fs/cgroup{self.cgroup}", home=self.home), check=False)
        assert done.returncode == 0, f"{self.name} left something behind:\n{done.stdout}{done.stderr}"


@dataclass(frozen=True)
class Layer:
    """A layer of an image on the machine's disk: whose it is, and its size in KiB."""

    owner: int
    kib: int


def _config(here: Daemon, settings: Settings) -> str:
    old = here.runtimes.version("containerd").startswith("1.")
    binaries = settings.handlers or {runtime: here.runtimes.program(runtime) for runtime in ("runc", "crun")}
    runtimes = {
        name: {"runtime_type": "io.containerd.runc.v2", "options": {"BinaryName": binary}}
        for name, binary in binaries.items()
    }
    containerd: dict[str, Any] = {"default_runtime_name": next(iter(binaries)), "runtimes": runtimes}
    plugins: dict[str, Any] = {}
    if old:
        containerd["snapshotter"] = settings.snapshotter
        # Debian's containerd looks for the plugins elsewhere than upstream's.
        network = {"bin_dir": cni.DIRECTORY}
        plugins["io.containerd.grpc.v1.cri"] = {"sandbox_image": IMAGE, "containerd": containerd, "cni": network}
    else:
        images = {"snapshotter": settings.snapshotter, "pinned_images": {"sandbox": IMAGE}}
        runtime: dict[str, Any] = {"containerd": containerd, "cni": {"bin_dirs": [cni.DIRECTORY]}}
        if settings.before_5_19:
            # They ask uname for 4.11, and without them the CRI plugin does not load.
            runtime |= {"enable_unprivileged_ports": False, "enable_unprivileged_icmp": False}
        plugins |= {"io.containerd.cri.v1.images": images, "io.containerd.cri.v1.runtime": runtime}
        # Its socket is the machine's own containerd's.
        plugins["io.containerd.nri.v1.nri"] = {"disable": True}
    if settings.slow_chown is not None:
        plugins["io.containerd.snapshotter.v1.overlayfs"] = {"slow_chown": settings.slow_chown}
    if settings.misplaced:
        plugins["io.containerd.cri.v1.runtime"]["slow_chown"] = True
    own = {"root": f"{here.home}/root", "state": f"{here.home}/state", "grpc": {"address": here.socket}}
    whole = {"version": 2 if old else 3, **own, "plugins": plugins}
    return tomlkit.dumps(_over(tomllib.loads(settings.planned), whole) if settings.planned else whole)


def _over(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Both mappings in one; where they differ, `over` is right."""
    both = {name: _over(under[name], over[name]) for name in under if isinstance(over.get(name), dict)}
    return {**under, **over, **both}


_UNIT = ("Type=notify", "PrivateMounts=yes", "KillMode=mixed", f"TimeoutStartSec={PATIENCE}", "LimitNOFILE=65536")
_STOP = """
for task in $(ctr tasks ls -q); do ctr tasks rm --force $task >/dev/null; done
systemctl --quiet stop {name}
if [ -d {cgroup} ]; then
    for procs in $(find {cgroup} -name cgroup.procs); do
        while read -r pid; do kill -KILL "$pid"; done <$procs
    done
    for try in $(seq 600); do
        find {cgroup} -depth -type d -exec rmdir {{}} + 2>/dev/null && break
        sleep 0.1
    done
fi
rm -rf --one-file-system {home}
left=$(grep -l {home} /proc/[0-9]*/mountinfo 2>/dev/null)
[ -z "$left" ] && [ ! -e {cgroup} ] && [ ! -e {home} ] || {{ echo "$left"; ls -d {cgroup} {home}; exit 1; }}
"""


class Beside:
    """Containerds for the virtual machines of a session, and what they need there."""

    def __init__(self, lab: Lab) -> None:
        self._url = lab.serve(packed()).url
        self._image = b""
        self._ready: set[tuple[str, str]] = set()

    def runtimes(self, machine: Machine, suite: str) -> Runtimes:
        """The runtimes of a suite on a machine, put there when they are first asked for."""
        if (machine.name, suite) not in self._ready:
            into = f"{_HOME}/{suite}"
            fetch = f"mkdir -p {into} && curl -sSf {self._url}/{suite}.tar | tar -x --no-same-owner -C {into}"
            machine.ssh(fetch, timeout=PATIENCE)
            self._ready.add((machine.name, suite))
        return Runtimes(machine, suite)

    @contextmanager
    def daemon(self, machine: Machine, suite: str, settings: Settings | None = None) -> Iterator[Daemon]:
        """Start the containerd of a suite, and end it when the context is left."""
        here = Daemon(machine, f"beside-{suite}", self.runtimes(machine, suite))
        self._prepare(machine)
        try:
            here.sh(f"mkdir -m 711 {here.home}")
            here.restart(settings or Settings())
            here.load()
            yield here
        finally:
            here.stop()

    def _prepare(self, machine: Machine) -> None:
        """What every containerd needs on a machine: a network for its pods, and the image."""
        if (machine.name, "") in self._ready:
            return
        # All machines have the same userland, so that one image does for all.
        self._image = self._image or image(machine, IMAGE, "/bin/sleep", "1000000")
        machine.put(f"{_HOME}/image.tar", self._image)
        cni.install(machine)
        self._ready.add((machine.name, ""))


@contextmanager
def metacopy(machine: Machine, value: str) -> Iterator[None]:
    """Have overlay's metacopy at this value for mounts that are made meanwhile."""
    parameter = "/sys/module/overlay/parameters/metacopy"
    before = machine.ssh(f"modprobe overlay && cat {parameter} && echo {value} >{parameter}").stdout.strip()
    try:
        yield
    finally:
        machine.ssh(f"echo {before} >{parameter}")
