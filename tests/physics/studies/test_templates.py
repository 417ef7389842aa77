"""The commented studies that `bilevel init --kind` writes: they are right, and find what their data were made from."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from bilevel.calibrate.fit.run import calibrate
from bilevel.calibrate.study.loading import load_study
from bilevel.cli import app

TRUTH = {
    "darcy": {"transmissivity": 260.0, "storativity": 0.006, "recharge": 1.6},
    "heat": {"thermal_conductivity": 0.7, "heat_capacity": 1.9, "film": 14.0},
    "solid": {"youngs_modulus": 208.0, "poissons_ratio": 0.29},
}


@pytest.mark.parametrize("kind", TRUTH)
def test_a_template_finds_the_truth_of_its_data(tmp_path: Path, kind: str) -> None:
    written = CliRunner().invoke(app, ["init", "--kind", kind, str(tmp_path / "mine")])
    assert written.exit_code == 0, written.output
    drawn = tmp_path / "map.png"
    checked = CliRunner().invoke(app, ["check", str(tmp_path / "mine" / "study.yml"), "--map", str(drawn)])
    assert "verdict: right" in checked.output
    assert drawn.read_bytes().startswith(b"\x89PNG")
    loaded = load_study(tmp_path / "mine" / "study.yml")
    result = calibrate(loaded.problem, settings=loaded.settings)
    for estimate in result.estimates:
        assert abs(estimate.value - TRUTH[kind][estimate.label]) < 3 * estimate.std


def test_a_kind_without_a_template_says_so(tmp_path: Path) -> None:
    outcome = CliRunner().invoke(app, ["init", "--kind", "rubber_tests", str(tmp_path / "mine")])
    assert outcome.exit_code == 2
    assert "kind 'rubber_tests' has no template" in outcome.output
    assert CliRunner().invoke(app, ["init", "--kind", "darcy"]).exit_code == 2


def test_a_study_without_a_map_says_so(tmp_path: Path) -> None:
    assert CliRunner().invoke(app, ["init", str(tmp_path / "cup")]).exit_code == 0
    outcome = CliRunner().invoke(
        app, ["check", str(tmp_path / "cup" / "study.yml"), "--map", str(tmp_path / "map.png")]
    )
    assert outcome.exit_code == 2
    assert "has no map" in outcome.output
