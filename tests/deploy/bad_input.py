"""The table of bad input: what somebody gave to a deploy, and what has to be said of it (test_bad_input.py)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tests.deploy.bad_files import CRI_2, CRI_3, IMAGES, OLD, ON_NODES, OVERLAY, OnNode

NOBODY = "ssh_hostname='127.0.0.1', ssh_port=1, ssh_allow_agent=False"


@dataclass(frozen=True)
class Setting:
    """A host with settings of which something is wrong; what is said has to hold all of `says`."""

    id: str
    settings: Mapping[str, Any]
    says: tuple[str, ...]


@dataclass(frozen=True)
class Answer:
    """A node whose shell does something to what the script answers: `{}` in `text` stands for that."""

    id: str
    text: str
    says: tuple[str, ...]
    refused: bool = True


@dataclass(frozen=True)
class Inventory:
    """An inventory, or how pyinfra was called, that leaves nothing to work on. `{ok}` is a host that would do."""

    id: str
    text: str | None
    says: tuple[str, ...]
    options: tuple[str, ...] = ()
    group_data: str = ""
    code: int = 1


def _config(*path: str, **values: object) -> dict[str, Any]:
    """`containerd_config` with these keys in the table at `path`."""
    table: dict[str, Any] = dict(values)
    for key in reversed(path):
        table = {key: table}
    return {"containerd_config": table}


SETTINGS = [
    Setting(
        "slip-of-a-name", {"containerd_verzion": "2.3.4"}, ("containerd_verzion = '2.3.4'", "Write containerd_version")
    ),
    Setting("name-run-together", {"slowchown": True}, ("slowchown = True", "Write slow_chown")),
    Setting(
        "number-in-quotes", {"max_pods": "110"}, ("max_pods = '110'", "write it without quotes", "Allowed: a whole")
    ),
    Setting("bool-for-a-number", {"max_pods": True}, ("max_pods = True", "a bool and not an int")),
    Setting("number-too-small", {"max_pods": -1}, ("max_pods = -1", "1 to 65535")),
    Setting("number-of-5000-digits", {"max_pods": 10**4000}, ("max_pods = ", "1 to 65535")),
    Setting("yaml-bool", {"slow_chown": "yes"}, ("slow_chown = 'yes'", 'Allowed: "auto", True or False')),
    Setting("version-as-a-float", {"kubernetes_version": 1.3}, ("kubernetes_version = 1.3", "loses its last zero")),
    Setting(
        "version-that-ended",
        {"kubernetes_version": "1.19"},
        ("kubernetes_version = '1.19'", "begin with Kubernetes 1.25"),
    ),
    Setting(
        "version-of-another-program",
        {"kubernetes_version": "2.3.4"},
        ("kubernetes_version = '2.3.4'", "there is no Kubernetes 2.3.4"),
    ),
    Setting(
        "version-without-a-digest", {"runc_version": "9.9.9"}, ("runc_version = '9.9.9'", "artifacts add runc 9.9.9")
    ),
    Setting("version-of-a-package", {"containerd_version": "2.1.9~ds1-1"}, ("'2.1.9~ds1-1'", "built from is 2.1.9")),
    Setting("runtime-not-installed", {"default_runtime": "crun"}, ("default_runtime = 'crun'", "set crun_version too")),
    Setting(
        "unknown-choice",
        {"cgroup_driver": "cgroupv2"},
        ("cgroup_driver = 'cgroupv2'", 'Allowed: "systemd" or "cgroupfs"'),
    ),
    Setting(
        "range-of-one-number", {"kubelet_id_range": 65536}, ("kubelet_id_range = 65536", "a pair of start and count")
    ),
    Setting("range-not-aligned", {"kubelet_id_range": [100000, 7208960]}, ("kubelet_id_range = ", "try 131072")),
    Setting(
        "finding-that-is-none",
        {"allow": ["no-such-finding"]},
        ("allow = 'no-such-finding'", "no finding with this id"),
    ),
    Setting(
        "roots-that-are-one", {"kubelet_root": "/var/lib/containerd"}, ("kubelet_root = ", "is the same directory")
    ),
    Setting("root-that-is-all", {"containerd_root": "/"}, ("containerd_root = '/'", "name a directory below")),
    Setting("root-up-and-away", {"kubelet_root": "/var/lib/../../etc"}, ("kubelet_root = ", "write /etc")),
    Setting(
        "lock-that-is-not-there", {"artifact_lock": "no/such.toml"}, ("artifact_lock = 'no/such.toml'", "No such file")
    ),
    Setting("lock-that-is-a-directory", {"artifact_lock": "/"}, ("artifact_lock = '/'", "Is a directory")),
    Setting("lock-of-no-end", {"artifact_lock": "/dev/null/x"}, ("artifact_lock = '/dev/null/x'", "cannot be read")),
    Setting("table-with-none", _config("debug", level=None), ("debug.level is None", "leave the key out")),
    Setting("table-with-a-nan", _config("debug", level=float("nan")), ("debug.level is not a finite number",)),
    Setting("table-as-text", {"containerd_config": "[debug]"}, ("it is a string and not a mapping",)),
    Setting("table-twice-set", _config("plugins", OVERLAY, slow_chown=True), ("set slow_chown",)),
    Setting("table-moves-root", _config(root="/elsewhere"), ('root = "/elsewhere"', "set containerd_root")),
    Setting(
        "table-of-1.7",
        _config("plugins", CRI_2, "registry", config_path="/etc/x"),
        ("containerd 2.x reads it under", IMAGES),
    ),
    Setting(
        "table-of-2.x",
        {**OLD, **_config("plugins", CRI_3, x=1)},
        ("containerd 1.x reads its CRI settings under", CRI_2),
    ),
    Setting(
        "table-without-imports",
        _config(imports=["/etc/mine.toml"]),
        ('keep "/etc/containerd/conf.d/*.toml" in the list',),
    ),
    Setting("array-where-a-table-is", _config("plugins", **{OVERLAY: ["x"]}), ("this must be a table",)),
    Setting(
        "plugin-that-is-needed",
        _config(disabled_plugins=["io.containerd.grpc.v1.cri"]),
        ("disabled_plugins: take out",),
    ),
    Setting(
        "drivers-that-differ",
        _config("plugins", CRI_3, "containerd", "runtimes", "kata", runtime_type="io.containerd.runc.v2"),
        ("SystemdCgroup", "must be true", "cgroup_driver"),
    ),
    # --- hostile strings, in what reaches a shell, a TOML file or a path
    Setting(
        "command-in-a-version",
        {"containerd_version": "2.3.4;touch canary"},
        ("not the version of an upstream release",),
    ),
    Setting(
        "command-in-a-snapshotter",
        {"snapshotter": "$(touch canary)"},
        ("snapshotter = '$(touch canary)'", "not the id of a snapshotter"),
    ),
    Setting(
        "option-for-a-snapshotter", {"snapshotter": "--help"}, ("snapshotter = '--help'", "not the id of a snapshotter")
    ),
    Setting(
        "line-in-a-path", {"containerd_root": "/var/lib/a\nroot = '/'"}, ("containerd_root = ", "a control character")
    ),
    Setting(
        "mount-options-in-a-path",
        {"containerd_root": "/a,upperdir=/etc"},
        ("containerd_root = ", "a colon, a comma or a backslash"),
    ),
    Setting("quote-in-an-image", {"sandbox_image": 'x"\nroot = "/'}, ("sandbox_image = ", "control character")),
    Setting(
        "command-in-an-image",
        {"sandbox_image": "`touch canary`"},
        ("sandbox_image = '`touch canary`'", "not an image reference"),
    ),
    Setting(
        "escape-in-a-path",
        {"kubelet_root": "/var/lib/\x1b[2J"},
        ("kubelet_root = '/var/lib/\\x1b[2J'", "a control character"),
    ),
    Setting("space-in-a-url", {"release_url": "https://m/ --output=/etc/passwd"}, ("release_url = ", "no space")),
    Setting(
        "file-for-a-url",
        {"release_url": "file:///etc/shadow"},
        ("release_url = 'file:///etc/shadow'", "not an http or https URL"),
    ),
    Setting(
        "line-in-a-url", {"release_url": 'https://m/\noutput = "/etc/passwd"'}, ("release_url = ", "control character")
    ),
    Setting("line-in-a-key", _config(**{'x"]\nroot = "/': 1}), ("keys must be printable",)),
    Setting("nul-in-a-table", _config("x", y="a\0b"), ("x.y holds a NUL",)),
    Setting("half-a-character", _config("x", y="\ud800"), ("x.y holds a NUL or half of a surrogate pair",)),
    Setting("markup-in-an-id", {"allow": ["not-root\x1b[31m"]}, ("is not the id of a finding",)),
]

ANSWERS = [
    Answer("banner-before", "Welcome to this node!\n\x1b[2Juserns-node\n{}", ("will write",), refused=False),
    Answer("banner-behind", "{}\nlogout\nsaved your history\n", ("will write",), refused=False),
    Answer("banner-alone", "Account expired. Ask the help desk.\n", ("lacks its first line", "Account expired")),
    Answer("nothing-at-all", "", ("the node answered nothing", "Does sh run there?")),
    Answer(
        "a-shell-that-is-none", "This account is currently not available.\n", ("lacks its first line", "not available")
    ),
    Answer("another-format", "userns-node-begin\t99\nuserns-node-end\n", ("speaks format", "expected")),
    Answer(
        "cut-in-the-middle",
        "userns-node-begin\t1\nkernel\t6.12.5\tx86_64\n",
        ("was cut off after 2 lines", "run it again"),
    ),
    Answer(
        "kernel-of-nonsense",
        "userns-node-begin\t1\nkernel\t$(touch canary)\tx86_64\nuserns-node-end\n",
        ("is no kernel release",),
    ),
]

INVENTORIES = [
    Inventory("inventory-missing", None, ("no such inventory",)),
    Inventory("inventory-empty", "", ("is neither an inventory with hosts in it nor a host",)),
    Inventory("inventory-without-hosts", "nodes = []\n", ("no host to work on",)),
    Inventory("inventory-broken", "nodes = [\n", ("SyntaxError",)),
    Inventory("inventory-raises", "raise RuntimeError('no such vault')\n", ("no such vault",)),
    Inventory("inventory-of-one-letter-hosts", "nodes = 'node-a'\n", ("no host to work on",)),
    Inventory(
        "limit-of-nobody", "nodes = [{ok}]\n", ("--limit typo: no group or host of this name",), ("--limit", "typo")
    ),
    Inventory("all-excluded", "nodes = [{ok}]\n", ("--limit and --exclude leave none",), ("--exclude", "nodes")),
    Inventory("host-twice-in-a-group", "a = [{ok}, {ok}]\n", ("@fake/one is in the group a twice",)),
    Inventory("host-in-two-groups", "a = [{ok}]\nb = [{ok}]\n", ("will write /etc/containerd/config.toml",), code=0),
    Inventory("group-data-broken", "nodes = [{ok}]\n", ("SyntaxError",), group_data="max_pods = (\n"),
    Inventory(
        "group-data-with-a-slip",
        "nodes = [{ok}]\n",
        ("max_podss = 110", "Write max_pods"),
        group_data="max_podss = 110\n",
    ),
    Inventory(
        "data-with-a-slip",
        "nodes = [{ok}]\n",
        ("max_pods = 'many'", "it is a string and not an int"),
        ("--data", "max_pods=many"),
    ),
    Inventory(
        "unreachable",
        f"nodes = [('gone', dict({NOBODY}, ssh_look_for_keys=False))]\n",
        ("[gone] Could not connect",),
    ),
    Inventory(
        "key-that-is-not-there",
        f"nodes = [('gone', dict({NOBODY}, ssh_key='/no/such/key'))]\n",
        ("/no/such/key",),
    ),
]

EVERY: list[Setting | OnNode | Answer | Inventory] = [*SETTINGS, *ON_NODES, *ANSWERS, *INVENTORIES]
