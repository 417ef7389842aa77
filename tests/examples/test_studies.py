"""Every study of `examples/` gives the numbers that its README prints.

Each is evaluated at its published parameters, which costs one simulation; whether the calibration goes there is slow to
tell but for the small ones.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
from prepared_examples import copied, script

from bilevel.calibrate import Study, calibrate, load_study

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@dataclass(frozen=True)
class Published:
    """Parameters (own units), rmse by group, and whether the whole calibration takes less than some ten seconds."""

    study: str
    values: dict[str, float]
    rmse: dict[str, float]
    quick: bool = False
    prepare: Callable[[Path, Path], None] | None = field(default=None, repr=False)

    def loaded(self, folder: Path, data: Callable[[], Path]) -> Study:
        """The study; one whose data are not shipped, from a copy of its folder with the prepared data."""
        source = EXAMPLES / self.study
        if self.prepare is None:
            return load_study(source)
        copy = folder / "copy"
        shutil.copytree(source.parent, copy)
        self.prepare(data(), copy)
        return load_study(copy / source.name)


PUBLISHED = [
    Published(
        "oude_korendijk/study.yml",
        {"hydraulic_conductivity": 66.09, "specific_storage": 2.542e-5},
        {"P30": 0.0515, "P90": 0.0486},
    ),
    Published(
        "oude_korendijk/P30.yml",
        {"hydraulic_conductivity": 68.64, "specific_storage": 1.608e-5},
        {"P30": 0.0317, "P90": 0.0869},
    ),
    Published(
        "oude_korendijk/P30_storage.yml",
        {"hydraulic_conductivity": 81.04, "specific_storage": 5.40e-6, "casing_radius": 0.305},
        {"P30": 0.0153, "P90": 0.1332},
    ),
    Published(
        "oude_korendijk/P90.yml",
        {"hydraulic_conductivity": 71.58, "specific_storage": 2.912e-5},
        {"P30": 0.0991, "P90": 0.0227},
    ),
    Published(
        "oude_korendijk_mesh/study.yml",
        {"hydraulic_conductivity": 66.09, "specific_storage": 2.543e-5},
        {"P30": 0.0515, "P90": 0.0486},
    ),
    Published("aluminium_rod/study.yml", {"heating": 18.41, "film": 0.001914}, {"rod": 0.2232}),
    Published(
        "dalem/study.yml",
        {"hydraulic_conductivity": 45.33, "specific_storage": 4.763e-5, "aquitard_resistance": 331.1},
        {"P30": 0.00465, "P60": 0.00932, "P90": 0.00131, "P120": 0.00525},
    ),
    Published(
        "dalem/without_P30.yml",
        {"hydraulic_conductivity": 57.56, "specific_storage": 3.283e-5, "aquitard_resistance": 1e6},
        {"P30": 0.0201, "P60": 0.00362, "P90": 0.00256, "P120": 0.00339},
    ),
    Published(
        "net3/study.yml",
        {
            "roughness_north_west": 96.856,
            "roughness_north": 125.15,
            "roughness_centre": 152.82,
            "roughness_east": 107.21,
            "roughness_south_west": 129.44,
            "roughness_south": 101.11,
            "roughness_mains": 124.09,
            "roughness_river": 137.75,
        },
        {"pressures": 0.0947},
    ),
    Published(
        "sioux/study.yml",
        {"hydraulic_conductivity": 282.8, "specific_storage": 4.209e-3},
        {},
        prepare=copied("aquifer_tests.csv"),
    ),
    Published(
        "treloar/study.yml",
        {
            "mu": 0.52702,
            "c10": 0.26725,
            "c01": -0.0018559,
            "c1": 0.18317,
            "c2": -0.0014338,
            "c3": 3.9989e-5,
            "mu_1": 0.357378,
            "alpha_1": 1.90949,
            "mu_2": 9.92905e-7,
            "alpha_2": 8.475655,
            "mu_3": -0.00591847,
            "alpha_3": -2.19437,
            "gc": 0.194053,
            "delta": 0.0957973,
            "ge": 0.192186,
            "beta": 0.198234,
        },
        {
            "neo_hookean/neo-Hooke": 0.6165,
            "mooney_rivlin/Mooney-Rivlin": 0.6124,
            "yeoh/Yeoh": 0.1327,
            "ogden/Ogden-3": 0.0600,
            "extended_tube/extended tube": 0.0532,
        },
    ),
    Published(
        "treloar/study_extended_tube.yml",
        {"gc": 0.194053, "delta": 0.0957973, "ge": 0.192186, "beta": 0.198234},
        {"uniaxial": 0.0733, "equibiaxial": 0.0340, "pure shear": 0.0179},
        quick=True,
    ),
    Published(
        "treloar/study_ogden.yml",
        {
            "mu_1": 0.357378,
            "alpha_1": 1.90949,
            "mu_2": 9.92905e-7,
            "alpha_2": 8.475655,
            "mu_3": -0.00591847,
            "alpha_3": -2.19437,
        },
        {"uniaxial": 0.0801, "equibiaxial": 0.0428, "pure shear": 0.0269},
        quick=True,
    ),
    Published("nist/misra1a/study.yml", {"b1": 238.94212918, "b2": 5.5015643181e-4}, {"volume": 0.09432}, quick=True),
    Published(
        "nist/hahn1/study.yml",
        {
            "b1": 1.0776351733,
            "b2": -1.2269296921e-1,
            "b3": 4.0863750610e-3,
            "b4": -1.4262662514e-6,
            "b5": -5.7609940901e-3,
            "b6": 2.4053735503e-4,
            "b7": -1.2314450199e-7,
        },
        {"expansion": 0.08058},
        quick=True,
    ),
    Published(
        "nist/kirby2/study.yml",
        {
            "b1": 1.6745063063,
            "b2": -1.3927397867e-1,
            "b3": 2.5961181191e-3,
            "b4": -1.7241811870e-3,
            "b5": 2.1664802578e-5,
        },
        {"y": 0.16081},
        quick=True,
    ),
    Published(
        "hochstetten_sand/study.yml",
        {
            "friction_angle": 33.12557,
            "granular_hardness": 1751.548,
            "hardness_exponent": 0.1931226,
            "void_ratio_min": 0.4362094,
            "void_ratio_critical": 1.14,
            "void_ratio_max": 1.15,
            "pyknotropy": 0.2913766,
            "barotropy": 1.924219,
        },
        {"deviator": 22.4, "volumetric_strain": 0.132, "void_ratio": 0.0028},
    ),
    Published(
        "steel_304l/study.yml",
        {"yield_stress": 257.4, "saturation_stress": 1115.0, "saturation_rate": 1.895},
        {},
        prepare=script("", "--out", "{copy}"),
    ),
    Published(
        "plate_with_hole/study.yml",
        {"youngs_modulus": 201.3, "poissons_ratio": 0.2723},
        {},
        prepare=script("dic_s235_hole_raw.csv"),
    ),
    Published(
        "argon/study.yml",
        {"epsilon": 0.0094319, "sigma": 3.2674},
        {"lattice constant": 0.2221, "cohesive energy": 0.001065, "bulk modulus": 0.04511},
    ),
    Published(
        "silicon_sw/study.yml",
        {"epsilon": 2.16339, "sigma": 2.131153, "lambda": 27.41161, "B": 0.536844},
        {},
    ),
    Published("karlsruhe_sand/study.yml", {}, {}, prepare=script("", "--out", "{copy}")),
]
ELSEWHERE = {"copper_eam/study.yml"}
"""Studies that are run by tests of their own."""
NAMED = [pytest.param(published, id=published.study) for published in PUBLISHED]


def test_no_study_is_forgotten() -> None:
    assert {str(path.relative_to(EXAMPLES)) for path in EXAMPLES.rglob("*.yml")} == {
        p.study for p in PUBLISHED
    } | ELSEWHERE


@pytest.mark.parametrize("published", [p for p in NAMED if p.values[0].rmse])
def test_published_parameters_give_the_published_misfit(
    published: Published, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    study = published.loaded(tmp_path, lambda: request.getfixturevalue("shared_data"))
    start = study.problem.parameters.with_start({label: np.array(v) for label, v in published.values.items()})
    study.problem.parameters = start
    result = calibrate(study.problem, settings=replace(study.settings, noptmax=0))
    assert {group.label: group.rmse for group in result.groups} == pytest.approx(published.rmse, rel=0.01)


@pytest.mark.parametrize(
    "published",
    [
        pytest.param(*p.values, id=p.id, marks=[] if p.values[0].quick else pytest.mark.slow)
        for p in NAMED
        if p.values[0].values
    ],
)
def test_calibration_goes_there(published: Published, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    study = published.loaded(tmp_path, lambda: request.getfixturevalue("shared_data"))
    result = calibrate(study.problem, settings=replace(study.settings, verify=False))
    found = {estimate.label: estimate.value for estimate in result.estimates if estimate.label in published.values}
    assert found == pytest.approx(published.values, rel=1e-3)


def test_sand_is_read_from_its_publication(tmp_path: Path, shared_data: Path) -> None:
    study = next(p for p in PUBLISHED if "karlsruhe" in p.study).loaded(tmp_path, lambda: shared_data)
    assert len(study.problem.experiments) == 1
    assert len(set(study.problem.experiments[0].observations.group)) >= 3
