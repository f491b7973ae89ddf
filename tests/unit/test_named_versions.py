"""The versions that documents, helps and examples name: no text recommends what the project's own tables warn of."""

from __future__ import annotations

import re
import runpy
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

import pytest

import artifacts.options
from docs_reference.commands import subcommands
from userns import advisories
from userns.releases import COMPONENTS
from userns.tables import ADVISORIES, NEWEST_KUBERNETES
from userns.versions import parse

ROOT = Path(__file__).resolve().parent.parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def tables_day() -> date:
    """The last day of the month of which the README says that the tables are."""
    [month, year] = re.findall(r"as of (\w+) (\d{4})", " ".join((ROOT / "README.md").read_text("utf-8").split()))[0]
    first = date.fromisoformat(f"{year}-{'JanFebMarAprMayJunJulAugSepOctNovDec'.index(month[:3]) // 3 + 1:02}-01")
    return (first + timedelta(days=31)).replace(day=1) - timedelta(days=1)


def texts() -> Iterator[tuple[str, str]]:
    """Each text that shows how a version is added."""
    for path in (*PAGES, ROOT / "artifacts/lock.toml"):
        yield path.name, path.read_text("utf-8")
    yield "add --help", dict(subcommands(artifacts.options.parser()))["add"].format_help()


def added(text: str) -> set[tuple[str, str]]:
    """The versions that `text` tells to add, by component."""
    found = set()
    for words in re.findall(r"(?:artifacts add|such as:) ((?:containerd|runc|crun)\b[^\n#]*)", text):
        component = ""
        for word in words.split():
            component = word if word in COMPONENTS else component
            found |= {(component, word)} if re.fullmatch(r"\d+(\.\d+)+", word) else set()
    return found


@pytest.mark.parametrize(("name", "text"), [pytest.param(*each, id=each[0]) for each in texts() if added(each[1])])
def test_a_version_that_is_to_be_added_has_no_hole_that_the_text_does_not_name(name: str, text: str) -> None:
    severe = {row.finding: row.id for row in ADVISORIES if row.severity in ("high", "critical")}
    for component, version in added(text):
        known = {finding.id for finding in advisories.check(component, version)}
        assert [severe[id] for id in known & severe.keys() if severe[id] not in text] == [], f"{component} {version}"
        assert advisories.end_of_life(component, version, tables_day()) == []


def test_the_readme_and_the_help_tell_how_a_version_is_added() -> None:
    assert {name for name, text in texts() if added(text)} >= {"README.md", "add --help", "lock.toml", "air-gap.md"}


def test_no_example_pins_a_version_whose_branch_gets_no_fixes() -> None:
    pinned = {
        pin
        for path in (*PAGES, ROOT / "inventories/group_data/all.py")
        for pin in re.findall(r'\b(containerd|runc|crun)_version"?\s*[=:]\s*"?(\d+(?:\.\d+)+)', path.read_text("utf-8"))
    }
    inventory = runpy.run_path(str(ROOT / "inventories/example.py"))
    for hosts, group in (inventory["cluster_a"], inventory["cluster_b"]):
        for data in (group, *(host[1] for host in hosts if isinstance(host, tuple))):
            pinned |= {(name, data[f"{name}_version"]) for name in COMPONENTS if f"{name}_version" in data}
    assert {component for component, _ in pinned} >= {"containerd", "runc"}
    found = [advisories.end_of_life(component, version, tables_day()) for component, version in sorted(pinned)]
    assert [finding.message for each in found for finding in each] == []


def test_the_readme_says_which_kubernetes_is_the_newest_known_one() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    assert f"(here {NEWEST_KUBERNETES})" in readme
    unknown = re.findall(r"^- Kubernetes (\S+) is out .* not yet judged", readme, re.MULTILINE)
    assert [version for version in unknown if parse(version) <= parse(NEWEST_KUBERNETES)] == []
