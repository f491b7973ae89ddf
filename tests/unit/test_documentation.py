"""The documentation: it builds strictly, asks nothing of the network, and its reference has all that the code has."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from html.parser import HTMLParser
from pathlib import Path

import pytest

import artifacts.options
import fleet.cli
import userns.__main__
from docs_reference import commands, findings, paths, settings, source
from tests.unit.pull_place import SCRIPT
from userns import paths as node_paths
from userns.findings import Severity
from userns.settings import SETTINGS
from userns.tables import KNOWN_IDS, LINES
from userns.tables.symptoms import SYMPTOMS

ROOT = Path(__file__).resolve().parent.parent.parent
PARSERS = (userns.__main__._parser(), artifacts.options.parser(), fleet.cli._parser())
# What a browser fetches by itself, and by which attribute.
FETCHED = {"script": "src", "link": "href", "img": "src", "iframe": "src", "source": "src"}


class Fetches(HTMLParser):
    """What a page makes a browser fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [value for name, value in attrs if name == FETCHED.get(tag) and value]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as `make docs` does: a link to nowhere, also to no heading, is an error."""
    into = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(into)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr
    return into


def test_it_builds_strictly_with_every_page(site: Path) -> None:
    for page in (path.relative_to(ROOT / "docs") for path in (ROOT / "docs").rglob("*.md")):
        assert (site / page).with_suffix(".html").is_file(), page


def test_no_page_asks_anything_of_the_network(site: Path) -> None:
    seen = 0
    for page in site.rglob("*.html"):
        fetches = Fetches()
        fetches.feed(page.read_text("utf-8"))
        seen += len(fetches.addresses)
        assert [each for each in fetches.addresses if re.match(r"(https?:)?//", each)] == [], page.name
    assert seen > 50
    for style in site.rglob("*.css"):
        assert re.findall(r"(?:@import|url\()\s*['\"]?(?:https?:)?//[^)]*", style.read_text("utf-8")) == [], style.name


def test_a_link_to_no_heading_fails_the_build(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/index.md").write_text("# Here\n\n[there](index.md#nowhere)\n")
    config = re.sub(r"(?ms)^nav:.*?(?=^\S|\Z)", "", (ROOT / "mkdocs.yml").read_text("utf-8"))
    (tmp_path / "mkdocs.yml").write_text(config)
    command = [sys.executable, "-m", "mkdocs", "build", "--strict"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "nowhere" in done.stderr


def test_every_setting_is_in_the_reference_with_its_reason() -> None:
    page = settings.page()
    for name, setting in SETTINGS.items():
        assert page.count(f"### {name}\n") == 1
        entry = page.split(f"### {name}\n")[1].split("\n### ")[0]
        assert "| default |" in entry
        assert setting.allowed.split("|")[0][:10] in entry.replace("\\", "")
    reasons = {name: reason for _, groups in settings.sections() for names, reason in groups for name in names}
    assert reasons.keys() == SETTINGS.keys()
    assert all(len(reason) > 20 for reason in reasons.values())


@pytest.fixture(scope="module")
def told() -> Mapping[str, source.Told]:
    return source.read()


def test_every_finding_is_in_the_reference_with_its_severity(told: Mapping[str, source.Told]) -> None:
    page = findings.page()
    assert [id for id in (*KNOWN_IDS, *LINES) if page.count(f"### {id}\n") != 1] == []
    assert [id for id, each in told.items() if not each.severities] == []


@pytest.mark.parametrize(
    ("id", "severities"),
    [
        ("kernel-lacks-tmpfs-idmap", {Severity.BLOCKER}),
        ("kernel-shared", {Severity.WARNING, Severity.NOTE}),
        ("overlay-not-loadable", {Severity.BLOCKER, Severity.WARNING}),
        ("image-several-kernels", {Severity.NOTE, Severity.WARNING}),
        ("kubelet-default-range", {Severity.NOTE, Severity.WARNING}),
        ("program-missing", {Severity.BLOCKER}),
        ("config-unknown-key", {Severity.WARNING}),
        ("proof-gid-map", {Severity.BLOCKER}),
        ("advisory-cve-2024-21626", {Severity.BLOCKER}),
        ("advisory-cve-2024-45310", {Severity.WARNING}),
        ("end-of-life-containerd-1-6", {Severity.WARNING}),
    ],
)
def test_a_severity_is_read_where_the_finding_is_made(
    told: Mapping[str, source.Told], id: str, severities: set[Severity]
) -> None:
    assert told[id].severities == severities


def test_a_line_of_a_run_is_no_finding_that_allow_could_name(told: Mapping[str, source.Told]) -> None:
    assert not LINES.keys() & KNOWN_IDS.keys()
    scripts = "".join(path.read_text("utf-8") for path in sorted((ROOT / "tasks/scripts").glob("*.sh")))
    for id in LINES:
        assert f"warning: {id}: " in scripts
        assert told[id].severities == {Severity.WARNING}
        assert "`allow` may name it" not in findings.page().split(f"### {id}\n")[1].split("\n### ")[0]


def test_a_finding_that_shows_in_logs_has_the_fix() -> None:
    page = findings.page()
    for symptom in SYMPTOMS:
        for id in symptom.findings:
            assert "**Fix:**" in page.split(f"### {id}\n")[1].split("\n### ")[0], id


def test_every_path_on_a_node_is_in_the_reference() -> None:
    page = paths.page()
    named = [value for name, value in vars(node_paths).items() if name.isupper() and isinstance(value, str)]
    for path in (*named, *node_paths.MANAGED, *node_paths.IMAGE, *node_paths.INSTALLED.values()):
        assert f"`{path}`" in page
    pull = (ROOT / "examples/pull/user-data.sh").read_text("utf-8")
    pulled = [*re.findall(r"(?m)^file (/\S+)", pull), *re.findall(r"PULL_STATE=(/\S+)", SCRIPT.read_text("utf-8"))]
    assert len(pulled) == 7
    for path in pulled:
        assert f"`{path}`" in page


def test_every_command_and_option_is_in_the_reference_and_no_place_of_the_builder() -> None:
    page = commands.page()
    for parser in PARSERS:
        for name, command in commands.subcommands(parser):
            assert re.search(rf"### .*{re.escape(parser.prog)} {name}\n", page)
            for action in command._actions:
                assert all(option in page for option in action.option_strings)
    assert str(Path.home() / ".local") not in page


@pytest.mark.parametrize("parser", PARSERS, ids=lambda parser: parser.prog)
def test_help_can_be_printed(parser: object) -> None:
    for _, command in commands.subcommands(parser):  # type: ignore[arg-type]
        assert command.format_help().startswith("usage:")


def test_the_pages_are_what_the_code_makes_and_the_same_wherever_they_are_made(tmp_path: Path) -> None:
    """A forge shows them as they are in the repository; `make reference` writes them."""
    printing = "import json; from docs_reference.pages import made; print(json.dumps(dict(made())))"
    kept = {f"reference/{path.name}": path.read_text("utf-8") for path in (ROOT / "docs/reference").iterdir()}
    for seed, more in (("1", {}), ("2", {"COLUMNS": "60", "HOME": str(tmp_path)})):
        environment = os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT), **more}
        command = [sys.executable, "-c", printing]
        made = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
        assert json.loads(made.stdout) == kept, "the code makes others: `make reference`"


# --- what is written by hand -----------------------------------------------------------------------------------------

WRITTEN = sorted(path for path in (ROOT / "docs").rglob("*.md") if path.parent.name != "reference")


@pytest.mark.parametrize("page", WRITTEN, ids=lambda page: page.stem)
def test_a_page_names_no_finding_setting_or_file_that_is_not_there(page: Path) -> None:
    text = page.read_text("utf-8")
    for id in re.findall(r'allow = \["([^"]+)"\]', text):
        assert id in KNOWN_IDS or id == "id", id
    for name in re.findall(r"(?:python|pyinfra) [\w./]* ?((?:tasks)\.\w+\.\w+)", text):
        _, module, thing = name.split(".")
        assert re.search(rf"^(def|class) {thing}\b", (ROOT / f"tasks/{module}.py").read_text("utf-8"), re.M), name
    for path in re.findall(r"`((?:inventories|examples|requirements|templates|artifacts)/[\w./-]+\.\w+)`", text):
        examples = {"inventories/mine.py", "inventories/prod.py"}
        assert path in examples or (ROOT / path).is_file(), path


@pytest.mark.parametrize("page", WRITTEN, ids=lambda page: page.stem)
def test_the_options_that_a_page_shows_are_there(page: Path) -> None:
    options = {option for parser in PARSERS for _, each in commands.subcommands(parser) for option in _of(each)}
    calls = re.findall(r"^(?:.*\| )?python (?:fleet\.py|-m userns|-m artifacts) (.*)$", page.read_text("utf-8"), re.M)
    for call in calls:
        for option in re.findall(r"(?<!\S)--[a-z-]+", call.split("#")[0]):
            assert option in options, f"{option} in: {call}"


def _of(parser: object) -> list[str]:
    return [option for action in parser._actions for option in action.option_strings]  # type: ignore[attr-defined]
