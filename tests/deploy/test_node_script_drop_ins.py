"""What the node script reads of drop-ins of containerd, in any spelling that TOML has, against Python's own reader."""

from __future__ import annotations

import shutil
import tomllib
from collections.abc import Callable, Iterator, Mapping
from random import Random
from typing import Any

import pytest

from tests.deploy.node_trees import Tree
from userns import paths
from userns.containerd.dropins import lint, path_of
from userns.containerd.runtime_handlers import of_tables
from userns.node import DropIn

CRI = "io.containerd.grpc.v1.cri"
IMAGES = "io.containerd.cri.v1.images"
RUNTIME = "io.containerd.cri.v1.runtime"
# Those that this machine has.
AWKS = {each: found for each in ("awk", "busybox", "mawk", "gawk", "original-awk") if (found := shutil.which(each))}


@pytest.fixture(params=sorted(AWKS))
def any_awk(request: pytest.FixtureRequest, tree: Tree) -> Tree:
    """A tree with this awk on its PATH."""
    applet = "awk" if request.param == "busybox" else ""
    tree.program("awk", f'exec {AWKS[request.param]} {applet} "$@"')
    return tree


# --- what went unseen ----------------------------------------------------------------------------------------------

OURS: Mapping[int, dict[str, Any]] = {
    2: {"version": 2, "plugins": {CRI: {"containerd": {"default_runtime_name": "runc"}}}},
    3: {"version": 3, "plugins": {IMAGES: {"registry": {"config_path": "/etc/containerd/certs.d"}}}},
}


@pytest.mark.parametrize(
    ("version", "text", "id"),
    [
        (3, "version = 3\nroot\t= '/elsewhere'\n", "drop-in-moves-root"),
        (3, "version = 3\n\"st\\u0061te\" = '/elsewhere'\n", "drop-in-moves-root"),
        (2, f'version = 2\n[plugins."{CRI}".registry.mirrors."*"]\n', "drop-in-replaces-section"),
        (2, f'version = 2\n[plugins."{CRI}".registry.mirrors."[::1]:5000"]\n', "drop-in-replaces-section"),
        (2, f'version = 2\nplugins."{CRI}".max_container_log_line_size\t= 5\n', "drop-in-replaces-section"),
        (2, f'version = 2\nplugins = {{ "{CRI}" = {{ a = 5 }} }}\n', "drop-in-replaces-section"),
        (2, f'version = 2\n[plugins]\n"{CRI}" = {{}}\n', "drop-in-replaces-section"),
        (3, f"version = 3\n[plugins.'{IMAGES}'.registry.mirrors.'*']\n", "drop-in-mirrors"),
        (3, f"version = 3\n[plugins.'{IMAGES}']\nregistry.mirrors.'*'.endpoint = ['x']\n", "drop-in-mirrors"),
        (
            3,
            f"version = 3\n[plugins.'{IMAGES}'.registry]\nmirrors = {{ '*' = {{ endpoint = [] }} }}\n",
            "drop-in-mirrors",
        ),
        (3, f"version = 3\n[plugins.'{IMAGES}'.registry]\nmirrors = {{}}\n", "drop-in-mirrors"),
        (3, f"version = 3\n[plugins.'{CRI}']\nsandbox_image = 'x'\n", "drop-in-key-unread"),
        (3, f"version = 3\n[plugins.'{CRI}']\nenable_selinux = true\n", "drop-in-key-unread"),
    ],
)
def test_what_breaks_containerd_is_seen_in_any_spelling(any_awk: Tree, version: int, text: str, id: str) -> None:
    any_awk.write("etc/containerd/conf.d/1.toml", text)
    assert id in {each.id for each in lint(any_awk.read().drop_ins, version, OURS[version])}


@pytest.mark.parametrize(
    "text",
    ["version = 3\r\n\r\n[debug]\r\n", "version\t=\t3\n", "\t version=3# x\n", "'version' = +3\n", "version = 0x3\n"],
)
def test_a_right_version_is_right_in_any_spelling(any_awk: Tree, text: str) -> None:
    any_awk.write("etc/containerd/conf.d/1.toml", text)
    assert lint(any_awk.read().drop_ins, 3, OURS[3]) == []


def test_what_the_streaming_server_is_told_is_read_under_the_old_id(any_awk: Tree) -> None:
    any_awk.write("etc/containerd/conf.d/1.toml", f"version = 3\n[plugins.'{CRI}']\nstream_server_port = '0'\n")
    assert lint(any_awk.read().drop_ins, 3, OURS[3]) == []


def test_names_of_hosts_do_not_leave_the_node(tree: Tree, shell: list[str]) -> None:
    tree.write(
        "etc/containerd/conf.d/1.toml",
        f"""version = 3
plugins.'{IMAGES}'.registry.configs.'user:secret-1@a'.auth.password = 'secret-2'
[plugins.'{RUNTIME}'.registry.mirrors."https://user:secret-3@b"]
[secret-4]
""",
    )
    assert "secret" not in "\n".join(tree.run(shell))


def test_a_node_without_awk_does_not_call_them_right(tree: Tree, shell: list[str]) -> None:
    (tree.programs / "awk").unlink()
    (tree.programs / "busybox").unlink(missing_ok=True)
    tree.write("etc/containerd/conf.d/1.toml", "version = 3\n")
    if shell[0] != "busybox":  # which has one within
        assert tree.read(shell).drop_ins == (DropIn(path="/etc/containerd/conf.d/1.toml", unreadable=True),)


# --- any TOML ------------------------------------------------------------------------------------------------------

NAMES = ["a", "b-c", "x.y", "*", "[::1]:5", "k = 1", "#", "'", '"', "\\", "{", "}", ",", "root", "version", "plugins"]
DECOYS = ["root = '/x'", "[plugins.no]", "version = 9", "plugins = {", "]", '"', "#", "}", "\\\\"]


def documents(random: Random) -> Iterator[tuple[dict[str, Any], str]]:
    """Documents, and a text of each in which tabs, comments, quotes and the kinds of tables are drawn by lot."""
    while True:
        text = Text(random).document()
        try:
            yield tomllib.loads(text), text
        except tomllib.TOMLDecodeError:
            continue  # a name twice, or a table opened again


class Text:
    def __init__(self, random: Random) -> None:
        self._random = random
        self._end = random.choice(["\n", "\n", "\r\n"])

    def document(self) -> str:
        lot = self._random
        lines = [f"{self._key('version')}{self._blank()}={self._blank()}{lot.choice(['2', '3', '+3', '0x3', '4'])}"]
        lines += [self._pair([name], self._value()) for name in ("root", "state", "imports", "x") if lot.random() < 0.3]
        lot.shuffle(lines)
        sections = [lot.choice([IMAGES, RUNTIME, CRI, "cri", *NAMES]) for _ in range(lot.randrange(4))]
        ways: list[Callable[[str], list[str]]] = [self._dotted, self._headers, self._inline]
        way = lot.choice(ways)
        if way == self._inline and lot.random() < 0.5:
            lines.append(f"{self._key('plugins')} = {{{', '.join(self._inline(each)[0] for each in sections)}}}")
        elif way == self._inline:
            lines += [f"[{self._blank()}{self._key('plugins')} ]", *(self._inline(each)[0] for each in sections)]
        else:
            lines += [line for each in sections for line in way(each)]
        return "".join(f"{self._blank()}{line}{self._comment()}{self._end}" for line in lines)

    def _below(self) -> list[list[str]]:
        """Paths below a section."""
        lot, some = self._random, NAMES
        kinds = (
            ["registry", "mirrors", lot.choice(some)],
            ["containerd", "runtimes", lot.choice(some)],
            [lot.choice(some)],
        )
        return [lot.choice(kinds) for _ in range(lot.randrange(1, 4))]

    def _dotted(self, section: str) -> list[str]:
        return [self._pair(["plugins", section, *path, "leaf"], self._value()) for path in self._below()]

    def _headers(self, section: str) -> list[str]:
        lines = []
        for path in self._below():
            at = self._random.randrange(len(path) + 1)
            lines.append(f"[{self._blank()}{self._path(['plugins', section, *path[:at]])}{self._blank()}]")
            if at < len(path) or self._random.random() < 0.5:
                lines.append(self._pair([*path[at:], "leaf"], self._value()))
        return lines

    def _inline(self, section: str) -> list[str]:
        pairs = [self._pair([*path, "leaf"], self._value(one_line=True)) for path in self._below()]
        return [f"{self._key(section)} = {{ {', '.join(pairs[: self._random.randrange(2)])} }}"]

    def _pair(self, path: list[str], value: str) -> str:
        return f"{self._path(path)}{self._blank()}={self._blank()}{value}"

    def _path(self, path: list[str]) -> str:
        return f"{self._blank()}.{self._blank()}".join(map(self._key, path))

    def _key(self, name: str) -> str:
        ways = ['"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"']
        ways.append('"' + "".join(f"\\u{ord(letter):04x}" for letter in name) + '"')
        if "'" not in name:
            ways.append(f"'{name}'")
        if name.replace("-", "").isalnum():
            ways += [name] * 4
        return self._random.choice(ways)

    def _value(self, one_line: bool = False) -> str:
        lot, decoy, end = self._random, self._random.choice(DECOYS), self._end
        ways = ["5", "true", f"'{decoy.replace(chr(39), '')}'", '"' + decoy.replace("\\", "").replace('"', '\\"') + '"']
        ways += ["{}", "{ a.b = 1 }", "[[1], ['[x]'], []]"]
        if not one_line:
            ways += [f"'''{end}{decoy}{end}x'''", f'"""{end}{decoy.replace(chr(34), "")}{end} \\""" """']
            ways += [f"[ # ]{end}  '{decoy.replace(chr(39), '')}',{end}\t[ ], {{ r = 1 }},{end}]"]
        return lot.choice(ways)

    def _comment(self) -> str:
        return self._random.choice(["", "", "", f" # {self._random.choice(DECOYS)}", "\t#"])

    def _blank(self) -> str:
        return self._random.choice(["", "", " ", "\t", " \t "])


def told(found: DropIn) -> tuple[object, ...]:
    opened = [path for each in found.tables if (path := path_of(each))]
    sections = {path[1] for path in opened if path[0] == "plugins" and len(path) > 1}
    mirrors = {path[1] for path in opened if path[0] == "plugins" and path[2:4] == ("registry", "mirrors")}
    moved = {path[0] for path in opened} & {"root", "state"}
    return found.version, moved, sections, mirrors, {*of_tables(found.tables)}


def meant(document: Mapping[str, Any]) -> tuple[object, ...]:
    plugins = document.get("plugins", {})

    def below(plugin: object, *path: str) -> Any:
        for each in path:
            plugin = plugin.get(each, {}) if isinstance(plugin, dict) else {}
        return plugin

    mirrors = {name for name, each in plugins.items() if "mirrors" in below(each, "registry")}
    handlers = {handler for each in plugins.values() for handler in below(each, "containerd", "runtimes")}
    return document["version"], {"root", "state"} & document.keys(), {*plugins}, mirrors, handlers


def test_any_drop_in_is_read_as_toml_has_it(any_awk: Tree) -> None:
    drawn = documents(Random(42))
    cases = {f"{number:03}": next(drawn) for number in range(400)}
    for name, (_, text) in cases.items():
        any_awk.write(f"etc/containerd/conf.d/{name}.toml", text)
    found = {each.path: each for each in any_awk.read().drop_ins}
    for name, (document, text) in cases.items():
        assert told(found[f"/etc/containerd/conf.d/{name}.toml"]) == meant(document), text
    assert len({str(meant(document)) for document, _ in cases.values()}) > 200


def test_handlers_of_config_toml_are_read_as_toml_has_them(tree: Tree) -> None:
    drawn = documents(Random(7))
    tried = 0
    while tried < 8:
        document, text = next(drawn)
        if not meant(document)[4]:
            continue
        tried += 1
        tree.write(paths.CONFIG[1:], text)
        assert {*tree.read().handlers} == meant(document)[4], text
