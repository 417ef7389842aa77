"""What README, CONTRIBUTING and the pages name exists: files, links, modules, classes and functions."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path

import pytest
from pages import ROOT

TEXTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", ROOT / "benchmarks" / "README.md"]
TEXTS += sorted((ROOT / "docs").rglob("*.md")) + sorted((ROOT / "examples").glob("*/README.md"))
MADE = re.compile(r"(^|/)(studies/(file|kinds)|api/[\w.]+)\.md$|^[\w.]*\.png$")
"""Pages and pictures that the site makes while it is built."""


def prose(text: Path) -> str:
    """A text without its blocks of code, which are run."""
    return re.sub(r"^```.*?^```$", "", text.read_text(encoding="utf-8"), flags=re.M | re.S)


def resolve(name: str) -> object:
    """The object of a dotted name; AttributeError or ImportError where there is none."""
    found: object = importlib.import_module(name.partition(".")[0])
    path = name.split(".")
    for depth, part in enumerate(path[1:], 2):
        if not hasattr(found, part):
            importlib.import_module(".".join(path[:depth]))
        found = getattr(found, part)
    return found


@pytest.mark.parametrize("text", TEXTS, ids=lambda text: str(text.relative_to(ROOT)))
def test_dotted_names_exist(text: Path) -> None:
    missing = []
    for name in re.findall(r"`((?:bilevel|physics)\.[A-Za-z_][\w.]*\w)(?:\([^`]*)?`", prose(text)):
        try:
            resolve(name)
        except (ImportError, AttributeError):
            missing.append(name)
    assert not [name for name in missing if not re.fullmatch(r"bilevel\.(laws|models|families|linear_solvers)", name)]


@pytest.mark.parametrize("text", TEXTS, ids=lambda text: str(text.relative_to(ROOT)))
def test_links_and_paths_exist(text: Path) -> None:
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", prose(text)) if "://" not in link]
    missing = [link for link in links if link and not (text.parent / link).exists() and not MADE.search(link)]
    paths = re.findall(r"`((?:bilevel|physics|examples|benchmarks|tests|docs)/[\w/.-]+)`", prose(text))
    missing += [path for path in paths if not (ROOT / path).exists()]
    assert not missing


def rows() -> list[tuple[str, str, str]]:
    """Question, file and name of CONTRIBUTING's map."""
    section = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").partition("## Where would I find")[2]
    return re.findall(r"^\| (.+?) \| `(.+?)` \| (?:`(.+?)` )?\|$", section, re.M)


@pytest.mark.parametrize(("question", "file", "name"), rows())
def test_the_map_leads_there(question: str, file: str, name: str) -> None:
    assert (ROOT / file).is_file(), f"{question}: {file} does not exist"
    if name:
        defined = {
            target for node in ast.parse((ROOT / file).read_text(encoding="utf-8")).body for target in _defined(node)
        }
        assert name in defined, f"{question}: {file} does not define {name}"


def test_the_map_has_at_least_twenty_answers_and_each_is_read() -> None:
    section = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").partition("## Where would I find")[2]
    assert len(rows()) == len(re.findall(r"^\| .*`", section, re.M)) >= 20


def _defined(node: ast.stmt) -> list[str]:
    if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return [target.id for target in targets if isinstance(target, ast.Name)]
