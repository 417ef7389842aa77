"""The study models of rubber and of the plate, through the calibration itself."""

from __future__ import annotations

import runpy
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from bilevel.calibrate.fit.run import calibrate
from bilevel.calibrate.observations import ObservationTable
from bilevel.calibrate.study.loading import load_study
from bilevel.calibrate.study.registry import register_model
from bilevel.report import InputError
from physics.solids.plate_with_hole import PlateWithHole
from physics.studies.rubber_tests import RubberTests

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"


@pytest.fixture(autouse=True)
def _models() -> None:
    register_model("rubber_tests", RubberTests)


def estimates(study: Path) -> tuple[dict[str, float], dict[str, float]]:
    """Parameter values in their own units, and the rmse by group in the file's units."""
    loaded = load_study(study)
    result = calibrate(loaded.problem, settings=replace(loaded.settings, verify=False))
    values = {estimate.label: estimate.value for estimate in result.estimates}
    return values, {group.label: group.rmse for group in result.groups}


@pytest.mark.slow
def test_plate_with_hole_from_raw_points(shared_data: Path, tmp_path: Path) -> None:
    example = EXAMPLES / "plate_with_hole"
    shutil.copy(example / "study.yml", tmp_path)
    prepared = runpy.run_path(str(example / "prepare.py"))
    prepared["write_gmsh"](tmp_path / "plate.msh", prepared["PLATE"].mesh(6))
    assert prepared["prepare"](shared_data / "dic_s235_hole_raw.csv", tmp_path / "points.csv") == (5475, 5224)
    values, rmse = estimates(tmp_path / "study.yml")
    assert values["youngs_modulus"] == pytest.approx(201.28159, rel=1e-6)
    assert values["poissons_ratio"] == pytest.approx(0.2723066, rel=1e-6)
    assert rmse["ux"] == pytest.approx(1.602633, rel=1e-6)
    assert rmse["uy"] == pytest.approx(0.663581, rel=1e-6)


def test_extended_tube_study() -> None:
    values, rmse = estimates(EXAMPLES / "treloar" / "study_extended_tube.yml")
    assert values["gc"] == pytest.approx(0.19405, rel=1e-3)
    assert values["delta"] == pytest.approx(0.0958, rel=1e-3)
    joint = np.sqrt((25 * rmse["uniaxial"] ** 2 + 17 * rmse["equibiaxial"] ** 2 + 14 * rmse["pure shear"] ** 2) / 56)
    assert joint <= 0.0535


def table(mode: str) -> ObservationTable:
    ones = torch.ones(3)
    columns = {"stretch": torch.tensor([1.1, 1.5, 2.0])}
    return ObservationTable(ones, ones, ("a",) * 3, columns, {"mode": (mode,) * 3})


def test_a_nearly_incompressible_rubber_tends_to_the_incompressible_one() -> None:
    parameters = {"c1": torch.tensor(2e5), "c2": torch.tensor(-1e3), "c3": torch.tensor(50.0)}
    for mode in ("uniaxial", "equibiaxial", "pure shear"):
        rigid = RubberTests(RubberTests.Config(law="yeoh"), table(mode), Path())
        soft = RubberTests(RubberTests.Config(law="yeoh", incompressible=False), table(mode), Path())
        stress = soft.simulate({**parameters, "bulk_modulus": torch.tensor(1e10)})
        assert stress.numpy() == pytest.approx(rigid.simulate(parameters).numpy(), rel=1e-3)


def test_an_unknown_mode_names_its_row() -> None:
    with pytest.raises(
        InputError, match="observation 1: mode 'shear' is none of uniaxial, equibiaxial, pure shear, biaxial"
    ):
        RubberTests(RubberTests.Config(law="yeoh"), table("shear"), Path())


def test_plate_mesh_has_the_area_of_the_dog_bone() -> None:
    plate = PlateWithHole(0.004, 0.02005, -0.06, -0.045, 0.04, 0.025)
    fillet = plate.shoulder - plate.left
    arc = plate.fillet**2 * np.arcsin(fillet / plate.fillet) + fillet * np.sqrt(plate.fillet**2 - fillet**2)
    area = plate.width * (plate.right - plate.left) + 2 * (plate.fillet * fillet - 0.5 * arc) - np.pi * plate.radius**2
    found = [float(plate.mesh(n).operator().weights().sum()) for n in (3, 6)]
    assert abs(found[1] - area) < 2e-5 * area
    assert abs(found[1] - area) < abs(found[0] - area)
