"""Secrets on a real node: whoever watches it while it is changed, and whoever reads what the run printed, sees none."""

from __future__ import annotations

import base64
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest

from lab import Lab, LabNode
from lab.mirror import Mirror
from lab.serving import Served
from tests.node.runs import Operator, Run, must

CONFIG = "/etc/containerd/config.toml"
STATE = "/var/lib/userns-node"
# A registry's password, found by its name; one that only its wrapper tells of; a mirror's; and what follows the first.
PASSWORD, WRAPPED, MIRROR, NEXT = "c4nary-by-name", "c4nary-wrapped-\"it's\\", "c4nary-of-mirror", "c4nary-next"
PROXY = "c4nary-of-proxy"
CANARY = "c4nary"


@dataclass(frozen=True)
class Source:
    """A value that stands in an inventory as this Python."""

    text: str

    def __repr__(self) -> str:
        return self.text


def secret(value: str) -> Source:
    return Source(f"__import__('userns.secret').secret.Secret({value!r})")


def config(password: str) -> dict[str, Any]:
    auth = {"username": "robot", "password": password}
    return {
        "plugins": {
            "io.containerd.cri.v1.images": {"registry": {"configs": {"registry.lab.invalid": {"auth": auth}}}},
            "io.lab.v1.unknown": {"plain": secret(WRAPPED)},
        }
    }


def spellings(value: str) -> list[str]:
    """A secret as it is, and within a longer text in base64, wherever it begins there."""
    found = [value]
    for shift in range(3):
        encoded = base64.b64encode(b"x" * shift + value.encode()).decode()
        found.append(encoded[4 if shift else 0 : -4])
    return found


SPELLINGS = [
    each for value in (PASSWORD, WRAPPED, MIRROR, PROXY, NEXT, CANARY) for each in spellings(value) if len(each) > 5
]

# Run as nobody: the arguments of each process, once, and what can be read of the places where files come and go.
WATCH = r"""
my %seen; $| = 1;
sub text { open(my $in, "<", $_[0]) or return ""; local $/; my $text = <$in>; defined $text ? $text : "" }
sub look {
    my ($path) = @_;
    if (-d $path && !-l $path) {
        opendir(my $in, $path) or return;
        look("$path/$_") for grep { !/^\.\.?$/ } readdir $in;
    } elsif (-f $path && -s _ < 1e6 && !$seen{$path} && text($path) =~ /c4nary/) {
        print "file: $path\n"; $seen{$path} = 1;
    }
}
until (-e "/run/watched-enough") {
    for my $file (glob "/proc/[0-9]*/cmdline") {
        my $text = text($file); $text =~ s/[\0\n]/ /g;
        print "process: $text\n" unless $seen{$text}++;
    }
    look($_) for "/etc/containerd", "/var/lib/userns-node", "/tmp", "/var/tmp", glob "/run/userns*";
}
print "end\n";
"""


@dataclass
class Watched:
    """What nobody on the node saw, and the arguments of this whole machine's processes, the controller's among them."""

    node: str = ""
    machine: set[bytes] = field(default_factory=set)


@contextmanager
def watching(lab: Lab, node: LabNode) -> Iterator[Watched]:
    """Watch while inside."""
    watched, enough = Watched(), Event()

    def look() -> None:
        while not enough.wait(0.01):
            for process in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    text = process.read_bytes()
                except OSError:  # it ended
                    continue
                if any(each.encode() in text for each in SPELLINGS):
                    watched.machine.add(text)

    node.ssh("rm -f /run/watched-enough")
    node.put("/root/watch.pl", WATCH.encode())
    nobody = "exec setpriv --reuid=65534 --regid=65534 --clear-groups perl -"
    process = subprocess.Popen(
        lab.inside(node.ssh_command(f"{nobody} </root/watch.pl")),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    thread = Thread(target=look)
    thread.start()
    try:
        yield watched
    finally:
        enough.set()
        thread.join()
        node.ssh("touch /run/watched-enough")
        watched.node, _ = process.communicate(timeout=60)


@dataclass(frozen=True)
class Told:
    """The runs of a node that gets secrets, and what was seen meanwhile."""

    node: LabNode
    runs: dict[str, Run]
    watched: Watched
    kept: dict[str, str]
    fetched: list[str]


@pytest.fixture(scope="module")
def told(lab: Lab, mirror: Mirror, _releases: Served, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
    # A mirror that only the proxy can reach: the lab's server answers for it.
    urls = {
        "release_url": secret(f"http://robot:{MIRROR}@mirror.lab.invalid"),
        "release_proxy": secret(_releases.url.replace("://", f"://ops:{PROXY}@")),
    }
    operator = Operator(lab, tmp_path_factory.mktemp("secrets"), artifact_lock=str(mirror.lock), **urls)
    node = lab.node("secretive")

    def run(password: str, *flags: str, **settings: Any) -> Run:
        wanted = {"containerd_config": config(password), **settings}
        return operator.pyinfra(operator.inventory({"nodes": {node: wanted}}), "deploy.py", *flags)

    # Not by containerd's `config dump`, but as it starts: it quotes what it was given in the journal.
    refused = {"containerd_config": {**config(NEXT), "debug": {"level": secret("c4nary-level")}}}
    runs: dict[str, Run] = {}
    _releases.forget()  # what other modules' tests asked of it
    with watching(lab, node) as watched:
        runs["dry"] = must(run(PASSWORD, "--dry", "--diff", "-vvv"))
        runs["real"] = must(run(PASSWORD, "-y", "--diff", "-vvv"))
        kept = {path: node.ssh(f"stat -c '%a %u:%g' {path}").stdout.strip() for path in (CONFIG, STATE)}
        runs["dry as JSON"] = must(run(NEXT, "--dry", "--diff", "--json", "-vv"))
        runs["real as JSON"] = must(run(NEXT, "-y", "--diff", "--json", "-v"))
        runs["debug"] = must(run(PASSWORD, "--dry", "--diff", "--debug", "--debug-operations"))
        runs["refused by containerd"] = run(NEXT, "-y", "-vvv", **refused)
        runs["refused by us"] = run(NEXT, "-y", "-vvv", containerd_config={**config(NEXT), "version": secret(NEXT)})
    fetched = [request.path for request in _releases.requests() if request.status == 200]
    yield Told(node, runs, watched, kept, fetched)
    node.stop()


RUNS = ("dry", "real", "dry as JSON", "real as JSON", "debug", "refused by containerd", "refused by us")


@pytest.mark.parametrize("name", RUNS)
def test_no_output_has_a_secret_in_any_spelling(told: Told, name: str) -> None:
    text = told.runs[name].text
    assert told.node.name in text
    for spelling in SPELLINGS:
        assert spelling not in text


def test_nobody_on_the_node_sees_one_in_the_arguments_of_any_process(told: Told) -> None:
    seen = told.watched.node
    assert seen.endswith("end\n"), seen[-500:]
    for name in ("fetch.sh", "put.sh", "launch.sh"):  # it did see what there was to see
        assert f" {name} {STATE}/staged/" in seen
    for spelling in SPELLINGS:
        assert spelling not in seen


def test_nor_in_those_of_the_controller(told: Told) -> None:
    assert told.watched.machine == set()


def test_nobody_can_read_a_file_that_holds_one_at_any_time(told: Told) -> None:
    assert "process: " in told.watched.node
    assert [line for line in told.watched.node.splitlines() if line.startswith("file: ")] == []


def test_the_secrets_are_there_for_root_alone(told: Told) -> None:
    assert told.kept == {CONFIG: "600 0:0", STATE: "700 0:0"}
    assert told.node.ssh(f"grep -c {CANARY} {CONFIG}").stdout == "2\n"
    dump = told.node.ssh("containerd config dump").stdout
    assert NEXT in dump


def test_the_record_has_none_and_no_stage_is_left(told: Told) -> None:
    found = told.node.ssh(f"grep -rlF {CANARY} {STATE} /run /tmp /var/tmp 2>/dev/null", check=False).stdout
    assert all(path.startswith(f"{STATE}/previous/") for path in found.splitlines())
    for path in found.splitlines():
        assert told.node.ssh(f"stat -c %a:%u {path}").stdout == "600:0\n"


def test_a_change_of_a_secret_is_told_as_a_change(told: Told) -> None:
    said = told.runs["dry as JSON"].said(told.node)
    assert '-password = "<secret 2>"' in said or '-password = "<secret 1>"' in said
    assert any(line.startswith("+password") for line in said)


def test_the_mirror_served_what_was_asked_for_through_the_proxy(told: Told, mirror: Mirror) -> None:
    assert set(told.fetched) == {mirror.asset("containerd").path, mirror.asset("runc").path}


def test_what_containerd_says_of_a_secret_is_told_without_it(told: Told) -> None:
    run = told.runs["refused by containerd"]
    assert run.code == 1
    assert "<secret>" in run.text
    assert "the previous set is back" in run.text
