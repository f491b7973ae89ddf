"""`make demo`: the main job, for real: a bare node, a dry run, a deploy, a second deploy, and the proof."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence

from lab import Lab, LabError, LabNode, host, idmap, mirror
from lab.errors import in_one_line
from lab.paths import BUILD, PYINFRA, REPO

NODE = "demo"
PORT = 8000
INVENTORY = BUILD / "demo" / "inventory.json"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo; 0 where every step did what it says, 130 on Ctrl-C."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--keep", action="store_true", help="leave the node running, and say how to log in")
    parser.add_argument("--down", action="store_true", help="end the nodes that --keep left running")
    arguments = parser.parse_args(argv)
    with in_one_line("demo", "the node and its network are gone"):
        if arguments.down:
            return down()
        return run(keep=arguments.keep)


def run(keep: bool) -> int:
    """Show it all, and check that the machine itself was not touched, also where a step failed or was stopped."""
    if reason := idmap.lacking():
        raise LabError(reason)
    before = host.fingerprint()
    try:
        show(keep)
    except (LabError, KeyboardInterrupt):
        as_it_was(before)
        raise
    return 0 if as_it_was(before, kept=keep) else 1


def show(keep: bool) -> None:
    """Build the node, deploy to it twice, and prove it."""
    say("Build a node: Debian testing with its own systemd and sshd (downloaded once, then cached under build/)")
    release = mirror.build()
    started = time.monotonic()
    with Lab() as lab:
        node = lab.node(NODE)
        url = lab.serve(release, PORT).url
        write_inventory(lab, node, release, url)
        say("What would change on the bare node:  pyinfra inventories/demo.py deploy.py --dry --diff")
        pyinfra(lab, "deploy.py", "--dry", "--diff")
        say("For real:  pyinfra inventories/demo.py deploy.py -y")
        pyinfra(lab, "deploy.py", "-y")
        say("A second time, to see that nothing changes:  pyinfra inventories/demo.py deploy.py -y")
        pyinfra(lab, "deploy.py", "-y")
        say("The proof alone, at any time:  pyinfra inventories/demo.py tasks.verify.user_namespace -y")
        pyinfra(lab, "tasks.verify.user_namespace", "-y")
        say(f"Done in {time.monotonic() - started:.0f} s after the downloads.")
        if keep:
            lab.detach()
            print(f"The node runs on. Log in:  {lab.login(node)}\nEnd it:  make demo-down")


def as_it_was(before: host.Fingerprint, *, kept: bool = False) -> bool:
    """Say whether this machine is as before. Of a node that was `kept` there is more: what was there is compared."""
    now = host.fingerprint()
    if kept:
        now = {name: value for name, value in now.items() if name in before}
    if others := host.meanwhile(before, now):
        print("Also changed meanwhile, and not by the demo:", *others, sep="\n  ")
    if differences := host.differences(before, now):
        print("demo: this machine is not as it was before (a bug):", *differences, sep="\n  ", file=sys.stderr)
        return False
    but = " But for the node that runs on." if kept else ""
    print(f"This machine is as it was: overlay's parameters, sysctls, modules, mounts, namespaces and processes.{but}")
    return True


def down() -> int:
    """End what `--keep` left."""
    ended = Lab.end_detached()
    print(f"ended: {', '.join(ended)}" if ended else "no node was left running")
    return 0


def write_inventory(lab: Lab, node: LabNode, release: mirror.Mirror, url: str) -> None:
    """What inventories/demo.py reads: how to reach the node, and the settings that stand in for upstream."""
    settings = {
        "release_url": url,
        "artifact_lock": str(release.lock),
        "crun_version": release.versions("crun")[0],
    }
    INVENTORY.parent.mkdir(parents=True, exist_ok=True)
    INVENTORY.write_text(json.dumps({"hosts": {node.name: lab.ssh_data(node)}, "settings": settings}, indent=1))


def pyinfra(lab: Lab, *arguments: str) -> None:
    """One pyinfra run from the controller's side of the lab's network, shown as it is."""
    done = lab.run([PYINFRA, "inventories/demo.py", *arguments], check=False, capture=False, cwd=REPO)
    if done.returncode:
        raise LabError(f"pyinfra {' '.join(arguments)} exited with {done.returncode}")


def say(text: str) -> None:
    """A headline between the outputs of the tools."""
    print(f"\n==> {text}\n", flush=True)


if __name__ == "__main__":
    sys.exit(main())
