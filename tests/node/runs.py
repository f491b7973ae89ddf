"""pyinfra as an operator runs it, against nodes of the lab, and what an independent look at a node says afterwards."""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from itertools import count
from pathlib import Path
from typing import Any, Protocol

from lab import Lab, Machine
from lab.paths import PYINFRA, REPO

Settings = Mapping[str, object]
# What a deploy is for, and what must not change where it only looks. Logs and /run live by themselves.
TREE = ("etc", "usr", "var/lib", "opt", "root")


@dataclass(frozen=True)
class Run:
    """One run of pyinfra with `--json`: its exit code and both of its outputs."""

    code: int
    stdout: str
    stderr: str

    @property
    def text(self) -> str:
        """All that it printed."""
        return self.stdout + self.stderr

    @cached_property
    def json(self) -> dict[str, Any]:
        """Its whole stdout, which has to be JSON."""
        parsed: dict[str, Any] = json.loads(self.stdout)
        return parsed

    def said(self, node: Machine) -> list[str]:
        """What it told about a node, line by line, without the node's name before it."""
        mark = f"[{node.name}] "
        said = [line.partition(mark)[2] for line in self.stderr.splitlines() if line.lstrip().startswith(mark)]
        # Where another node has a longer name, pyinfra fills up to that; its own first line shows by how much.
        filled = len(said[0]) - len(said[0].lstrip()) if said else 0
        return [line[filled:] for line in said]

    def will(self, node: Machine) -> list[str]:
        """The changes of a node, in words."""
        return [line.removeprefix("will ") for line in self.said(node) if line.startswith("will ")]

    def findings(self, node: Machine) -> dict[str, str]:
        """The severity of each finding that it told of a node: in full, or by name as told of another node before."""
        found = {}
        for line in self.said(node):
            told = line.partition(": as told of ")[0].split(", ") if ": as told of " in line else [line]
            for each in told:
                severity, _, rest = each.partition(" ")
                if severity in ("blocker", "warning", "note"):
                    found[rest.split()[0].removesuffix(":")] = severity
        return found

    def planned(self, node: Machine) -> list[str]:
        """The names of the operations that a dry run lists for a node."""
        return [each["name"] for each in self.json["plan"] if node.name in each["hosts_with_change"]]

    def done(self, node: Machine) -> list[str]:
        """The names of the operations that ran on a node with success."""
        return [each["name"] for each in self.json["results"]["operations"] if node.name in each["success"]]

    @property
    def failed(self) -> list[str]:
        """The hosts that failed."""
        found: list[str] = self.json["results"]["failed_hosts"]
        return found


class Operator:
    """Somebody at the controller: an inventory in a directory of its own, and pyinfra run with it."""

    def __init__(self, lab: Lab, directory: Path, **settings: object) -> None:
        """`settings` are those of every host, as group_data/all.py would have them."""
        self._lab = lab
        self._directory = directory
        self._settings = settings
        self._numbers = count(1)
        self.timeout = 180.0

    def inventory(
        self,
        groups: Mapping[str, Mapping[Machine, Settings]],
        group_data: Mapping[str, Settings] | None = None,
        in_inventory: Mapping[str, Settings] | None = None,
    ) -> Path:
        """Write an inventory: the nodes of each group with their host data, and the groups' data in files or in it."""
        home = self._directory / f"inventory{next(self._numbers)}"
        (home / "group_data").mkdir(parents=True)
        lines = []
        for group, nodes in groups.items():
            hosts = [(node.name, {**self._lab.ssh_data(node), **settings}) for node, settings in nodes.items()]
            lines.append(f"{group} = ({hosts!r}, {dict((in_inventory or {}).get(group, {}))!r})\n")
        (home / "inventory.py").write_text("".join(lines))
        for group, settings in {"all": self._settings, **(group_data or {})}.items():
            text = "".join(f"{name} = {value!r}\n" for name, value in settings.items())
            (home / "group_data" / f"{group}.py").write_text(text)
        return home / "inventory.py"

    def pyinfra(self, inventory: Path, *arguments: str, timeout: float | None = None) -> Run:
        """Run pyinfra from the repository, as the README has it."""
        done = self._lab.run([PYINFRA, inventory, *arguments], check=False, cwd=REPO, timeout=timeout or self.timeout)
        return Run(done.returncode, done.stdout, done.stderr)

    def deploy(self, *nodes: Machine, flags: Iterable[str] = (), **settings: object) -> Run:
        """Deploy to these nodes with these settings beside the common ones."""
        return self.pyinfra(self._one_group(nodes, settings), "deploy.py", "--json", "-y", *flags)

    def dry(self, *nodes: Machine, flags: Iterable[str] = (), **settings: object) -> Run:
        """The same as a dry run with diffs."""
        return self.pyinfra(self._one_group(nodes, settings), "deploy.py", "--json", "--dry", "--diff", *flags)

    def prove(self, *nodes: Machine, **settings: object) -> Run:
        """The proof alone on these nodes: it changes nothing."""
        return self.pyinfra(self._one_group(nodes, settings), "tasks.verify.user_namespace", "--json", "-y")

    def rollback(
        self, *nodes: Machine, to: str = "previous_set", flags: Iterable[str] = ("-y",), **settings: object
    ) -> Run:
        """Bring a kept set back on these nodes; with --dry in `flags`, only ask what would come back."""
        return self.pyinfra(self._one_group(nodes, settings), f"tasks.rollback.{to}", "--json", *flags)

    def _one_group(self, nodes: Iterable[Machine], settings: Settings) -> Path:
        return self.inventory({"nodes": dict.fromkeys(nodes, settings)})


def must(run: Run) -> Run:
    """This run, which has to be a success."""
    assert run.code == 0, run.text
    return run


def tree(node: Machine) -> dict[str, str]:
    """Every file of a node that a deploy might change: what it is, and of a file also when it was last touched.

    A directory's times are left out: a probe makes a directory in it and removes that again.
    """
    about = r"%p\t%M %U:%G"
    link, directory, other = rf"{about} to %l\0", rf"{about}\0", rf"{about} %s %i %T@ %C@\0"
    search = f"-type l -printf '{link}' -o -type d -printf '{directory}' -o -printf '{other}'"
    listed = node.ssh(f"cd / && find {' '.join(TREE)} -mindepth 1 \\( {search} \\)").stdout
    return dict(entry.split("\t", 1) for entry in listed.split("\0")[:-1])


def differences(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    """The paths that are not as they were."""
    return [path for path in sorted(before.keys() | after.keys()) if before.get(path) != after.get(path)]


class Shell(Protocol):
    """What runs a command on a node: a machine of the lab, or somebody with a shorter way in."""

    def ssh(self, command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a shell command on the node as root."""


def leftovers(node: Shell) -> list[str]:
    """What a finished change has to have cleaned up: stages, files beside their targets, logs, the unit for a boot."""
    patterns = "-name '*.userns-node-*' -o -name 'userns-node-*.service' -o -name 'userns-node-check*'"
    # /usr/local may be a file system of its own.
    places = "/etc /usr /usr/local /var/lib /opt /tmp /var/tmp /run"
    search = f"find {places} -xdev \\( {patterns} \\) -not -path '*/cgroup/*'"
    state = "find /var/lib/userns-node -mindepth 1 -maxdepth 2 -not -path '*/previous*' -not -path '*/replaced*'"
    units = "/etc/systemd/system"
    known = {
        *("/var/lib/userns-node/manifest", "/var/lib/userns-node/lock", "/var/lib/userns-node/staged"),
        "/var/lib/userns-node/unproven",  # until a proof has succeeded, whatever became of the change
        *(f"{units}/userns-node-check.service", f"{units}/multi-user.target.wants/userns-node-check.service"),
    }
    found = dict.fromkeys(node.ssh(f"{search}; {state}").stdout.splitlines())
    return [path for path in found if path not in known]


# When a process of the node's own was awake: see `Counter.gap`. On the disk that the container writes to, and not below
# what `tree` looks at.
CONTROL = "/srv/counter-control"


@dataclass(frozen=True)
class Counter:
    """A container in a user namespace that counts in a file of its own: watched as a process, not by containerd."""

    node: Shell
    pid: int

    def stopped_counting(self) -> str:
        """Why it is not seen to run by what it writes, or nothing."""
        # The file is empty between its truncation and its writing.
        watch = f"""
            read -r before </proc/{self.pid}/root/count
            for try in $(seq 300); do
                read -r now </proc/{self.pid}/root/count && [ "$now" -gt "${{before:=$now}}" ] && exit 0
                sleep 0.1
            done
            echo "counts no further than ${{now:-nothing}}" >&2
            exit 1"""
        done = self.node.ssh(watch, check=False)
        return done.stderr if done.returncode else ""

    def unknown(self) -> str:
        """Why containerd has it not as a running task, or can't start another process in its user namespace.

        Or nothing. A slow machine gets several tries: containerd calls a task UNKNOWN whose shim takes over two
        seconds to answer, while one that it has really lost stays lost.
        """
        look = "ctr tasks exec --exec-id look$$ counter /bin/sh -c 'read -r map </proc/self/uid_map; echo $map'"
        said = ""
        for _ in range(5):
            done = self.node.ssh(f"ctr tasks ls && {look}", check=False)
            lines = [line.split() for line in done.stdout.splitlines()]
            if ["counter", str(self.pid), "RUNNING"] in lines and lines[-1] == ["0", "65536", "65536"]:
                return ""
            said += f"{done.stdout}{done.stderr}exit code {done.returncode}\n"
        return said

    def gap(self) -> str:
        """Whether it ever paused for longer than anything on this node did, or nothing.

        A process of the node writes to the same disk as the container does: what both missed was the machine's load.
        A short pause of one alone is the scheduler's, too; a container that was stopped counts on in none.
        """
        longest = "awk 'NR > 1 && $1 - last > gap { gap = $1 - last } { last = $1 } END { print NR, gap }'"
        said = self.node.ssh(f"{longest} /proc/{self.pid}/root/times; {longest} {CONTROL}").stdout.splitlines()
        (ticks, own), (_, nodes) = ((int(line.split()[0]), float(line.split()[1])) for line in said)
        assert ticks > 5
        return "" if own <= max(3.0, 3 * nodes) else f"it paused for {own} s, and the node for {nodes} s at most"

    def trouble(self) -> list[str]:
        """Every way in which it has not gone on as if nothing were."""
        return [why for why in (self.stopped_counting(), self.unknown(), self.gap()) if why]

    def remove(self) -> None:
        """End it."""
        self.node.ssh("ctr tasks rm --force counter && ctr containers rm counter; systemctl stop counter-control")
        self.node.ssh(f"rm -f {CONTROL}*")


def start_counter(node: Machine, runtime: str = "/usr/local/sbin/runc") -> Counter:
    """Start a container that counts, from an image made of the node's own shell."""
    name = "docker.io/lab/counter:1"
    node.put("/root/counter.tar", image(node, name))
    tick = "read -r up rest </proc/uptime; echo $up >>"
    counting, control = (
        f"n=0; while :; do n=$((n+1)); echo $n >{count}; {tick}{times}; sleep 0.1; done"
        for count, times in (("/count", "/times"), (f"{CONTROL}-count", CONTROL))
    )
    userns = "--remap-labels --uidmap 0:65536:65536 --gidmap 0:65536:65536 --cpu-shares 0 --cgroup /counter"
    said = node.ssh(f"""
        set -e
        ctr images import --no-unpack /root/counter.tar >/dev/null
        rm /root/counter.tar
        rm -f {CONTROL}*
        systemd-run --quiet --unit=counter-control sh -c '{control}'
        ctr run -d --runc-binary {runtime} {userns} {name} counter /bin/sh -c '{counting}' >/dev/null 2>&1 </dev/null
        ctr tasks ls""").stdout
    pid = next(int(words[1]) for words in map(str.split, said.splitlines()) if words[0] == "counter")
    counter = Counter(node, pid)
    assert node.ssh(f"cat /proc/{pid}/uid_map").stdout.split() == ["0", "65536", "65536"]
    assert counter.stopped_counting() == ""
    return counter


def image(
    node: Machine,
    name: str,
    *command: str,
    owner: int = 0,
    more: Mapping[str, bytes] | None = None,
    attributes: Mapping[str, str] | None = None,
) -> bytes:
    """An OCI image with a shell and sleep, and the libraries that the node says they need, to run `command`.

    All of its files belong to `owner`, a number. `more` are files beside these, by path, with extended `attributes`.
    """
    programs = "/bin/sh /bin/sleep"
    libraries = f"ldd {programs} | tr ' \\t' '\\n\\n' | grep '^/[^:]*$' | sort -u"
    owned = f"--owner={owner} --group={owner} --numeric-owner"
    layer = node.output(
        f"tar --create --dereference {owned} --directory / $({{ echo {programs}; {libraries}; }} | sed s,/,,)"
    )
    if more:
        layer = _tar(more, layer, attributes or {})
    blobs: dict[str, bytes] = {}

    def blob(kind: str, content: bytes) -> dict[str, object]:
        digest = sha256(content).hexdigest()
        blobs[f"blobs/sha256/{digest}"] = content
        return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": f"sha256:{digest}", "size": len(content)}

    arch = {"x86_64": "amd64", "aarch64": "arm64"}[node.ssh("uname -m").stdout.strip()]
    rootfs = {"type": "layers", "diff_ids": [f"sha256:{sha256(layer).hexdigest()}"]}
    settings = {"Env": ["PATH=/bin"], **({"Cmd": command} if command else {})}
    config = {"architecture": arch, "os": "linux", "config": settings, "rootfs": rootfs}
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": blob("config.v1+json", json.dumps(config).encode()),
        "layers": [blob("layer.v1.tar", layer)],
    }
    top = blob("manifest.v1+json", json.dumps(manifest).encode())
    top["annotations"] = {"io.containerd.image.name": name}
    index = json.dumps({"schemaVersion": 2, "manifests": [top]}).encode()
    return _tar({"oci-layout": b'{"imageLayoutVersion": "1.0.0"}', "index.json": index, **blobs})


def _tar(files: Mapping[str, bytes], onto: bytes = b"", attributes: Mapping[str, str] = {}) -> bytes:
    packed = io.BytesIO(onto)
    with tarfile.open(fileobj=packed, mode="a" if onto else "w") as tar:
        for path, content in files.items():
            entry = tarfile.TarInfo(path)
            entry.size, entry.mode = len(content), 0o755
            entry.pax_headers = {f"SCHILY.xattr.{key}": value for key, value in attributes.items()}
            tar.addfile(entry, io.BytesIO(content))
    return packed.getvalue()
