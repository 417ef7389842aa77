"""The site and the README do what they say: every page with code is followed literally in an empty folder."""

from __future__ import annotations

from pathlib import Path

import pytest
from _pytest.mark import ParameterSet
from blocks import blocks
from pages import ROOT, follow, matches

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


SLOW = {"docs/programs.md", "docs/wells.md", "docs/networks.md"}


def named(page: Path) -> ParameterSet:
    name = str(page.relative_to(ROOT))
    return pytest.param(page, id=name, marks=[pytest.mark.slow] if name in SLOW else [])


@pytest.mark.parametrize("page", [named(page) for page in PAGES if blocks(page)])
def test_page_can_be_followed(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    follow(page, tmp_path, monkeypatch)


def test_a_wrong_output_is_noticed() -> None:
    assert matches("stiffness 1.000\n", "converged\nstiffness 1.000\n")
    assert matches("error 1.2e-...\n", "error 1.2e-16\n")
    assert not matches("stiffness 1.000\n", "stiffness 2.000\n")
    assert not matches("first\nsecond\n", "second\nfirst\n")
