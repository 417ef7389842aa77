"""The commented studies that `bilevel init --kind` writes: they are right, and find what their data were made from."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from bilevel.calibrate.fit.run import calibrate
from bilevel.calibrate.study.kinds import kinds
from bilevel.calibrate.study.loading import load_study
from bilevel.calibrate.study.template import write_template
from bilevel.cli import app

TRUTH = {
    "darcy": {"transmissivity": 260.0, "storativity": 0.006, "recharge": 1.6},
    "heat": {"thermal_conductivity": 0.7, "heat_capacity": 1.9, "film": 14.0},
    "solid": {"youngs_modulus": 208.0, "poissons_ratio": 0.29},
    "pumping_test": {"hydraulic_conductivity": 18.0, "specific_storage": 6e-5, "aquitard_resistance": 250.0},
    "network": {"roughness_old": 78.0, "roughness_new": 132.0},
    "rubber_tests": {"c1": 0.21, "c2": -0.004, "c3": 0.0006},
    "tension_test": {
        "youngs_modulus": 206.0,
        "yield_stress": 310.0,
        "saturation_stress": 260.0,
        "saturation_rate": 14.0,
    },
    "soil_element_tests": {"youngs_modulus": 35.0, "friction_angle": 33.0, "dilatancy_angle": 6.0},
}
MAPPED = {"darcy", "heat", "solid"}


@pytest.mark.parametrize("kind", TRUTH)
def test_a_template_finds_the_truth_of_its_data(tmp_path: Path, kind: str) -> None:
    written = CliRunner().invoke(app, ["init", "--kind", kind, str(tmp_path / "mine")])
    assert written.exit_code == 0, written.output
    drawn = tmp_path / "map.png"
    mapped = ["--map", str(drawn)] if kind in MAPPED else []
    checked = CliRunner().invoke(app, ["check", str(tmp_path / "mine" / "study.yml"), *mapped])
    assert "verdict: right" in checked.output
    assert not mapped or drawn.read_bytes().startswith(b"\x89PNG")
    loaded = load_study(tmp_path / "mine" / "study.yml")
    result = calibrate(loaded.problem, settings=loaded.settings)
    for estimate in (e for e in result.estimates if e.label in TRUTH[kind]):
        assert abs(estimate.value - TRUTH[kind][estimate.label]) < 3 * estimate.std


def test_every_kind_has_a_template(tmp_path: Path) -> None:
    for kind in kinds():
        assert write_template(tmp_path / kind, kind).is_file()


def test_the_template_of_atoms_balances_three_properties_with_two_constants(tmp_path: Path) -> None:
    loaded = load_study(write_template(tmp_path / "mine", "atoms"))
    result = calibrate(loaded.problem, settings=loaded.settings)
    assert {estimate.label: estimate.value for estimate in result.estimates} == pytest.approx(
        {"epsilon": 0.01065, "sigma": 3.441}, rel=1e-3
    )
    missed = {group.label: group.rmse for group in result.groups}
    assert 0.001 < missed["lattice constant"] / 5.28 < 0.01


def test_a_kind_without_a_template_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Bare:
        """A model of a package that ships no template."""

    monkeypatch.setattr("bilevel.calibrate.study.template.find_model", lambda kind: Bare)
    outcome = CliRunner().invoke(app, ["init", "--kind", "bare", str(tmp_path / "mine")])
    assert outcome.exit_code == 2
    assert "kind 'bare' has no template" in outcome.output
    assert CliRunner().invoke(app, ["init", "--kind", "darcy"]).exit_code == 2


def test_a_study_without_a_map_says_so(tmp_path: Path) -> None:
    assert CliRunner().invoke(app, ["init", str(tmp_path / "cup")]).exit_code == 0
    outcome = CliRunner().invoke(
        app, ["check", str(tmp_path / "cup" / "study.yml"), "--map", str(tmp_path / "map.png")]
    )
    assert outcome.exit_code == 2
    assert "has no map" in outcome.output
