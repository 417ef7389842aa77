"""Cam-Clay calibrated in stages from a study: lambda and kappa from the oedometer, then the strength from triaxials."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from bilevel.calibrate import load_study, staged

STUDY = """\
title: Made-up clay
model:
  kind: soil_element_tests
  material: cam_clay_constant_poissons_ratio
  tables:
    - {file: oedometer.csv, kind: oedometer, sign: compression_positive, stress_units: kPa, strain_units: "%",
       driven: axial, void_ratio: void_ratio}
    - {file: triaxial.csv, kind: drained_triaxial, sign: compression_positive, stress_units: kPa, strain_units: "%",
       driven: axial, pressure: cell, void_ratio: initial}
parameters:
  - {name: compression_index, value: 0.12, lower: 0.02, upper: 0.5}
  - {name: swelling_index, value: 0.01, lower: 0.001, upper: 0.02}
  - {name: critical_ratio, value: 0.9, lower: 0.5, upper: 2}
  - {name: poissons_ratio, value: 0.3, fixed: true}
observations:
  - {file: oedometer.csv, value: {column: void_ratio}, group: void_ratio, std: 0.001}
  - {file: triaxial.csv, value: {column: deviator, units: kPa}, group: deviator, std: 1}
stages:
  - {name: compression, parameters: [compression_index, swelling_index], groups: [void_ratio]}
  - {name: strength, parameters: [critical_ratio], groups: [deviator]}
  - {name: all}
"""
TRUTH = {"compression_index": 0.08, "swelling_index": 0.015, "critical_ratio": 1.1, "poissons_ratio": 0.3}
LOADS = (100, 200, 400, 200, 100)
STRAINS = (0, 1, 3, 6, 10)


@pytest.fixture
def study(tmp_path: Path):
    """The study with readings that the model itself made from TRUTH."""
    (tmp_path / "study.yml").write_text(STUDY)
    readings = [0.9] * (len(LOADS) + 2 * len(STRAINS))
    for _ in range(2):
        rows = iter(readings)
        oedometer = [f"o,{load},{next(rows)!r}" for load in LOADS]
        triaxial = [f"t{cell},{cell},0.8,{strain},{next(rows)!r}" for cell in (200,) for strain in STRAINS]
        (tmp_path / "oedometer.csv").write_text("\n".join(["test,axial,void_ratio", *oedometer, ""]))
        (tmp_path / "triaxial.csv").write_text("\n".join(["test,cell,initial,axial,deviator", *triaxial, ""]))
        loaded = load_study(tmp_path / "study.yml")
        experiment = loaded.problem.experiments[0]
        made = experiment.model.simulate({name: torch.tensor(value) for name, value in TRUTH.items()}).detach()
        readings = [
            x / (1.0 if g == "void_ratio" else 1e3) for x, g in zip(made.tolist(), experiment.observations.group)
        ]
    return loaded


@pytest.mark.slow
def test_stages_find_the_parameters_that_made_the_tests(study) -> None:
    """The lateral stress of an oedometer depends on the strength, so only a last stage of everything ends at the truth."""
    result = staged(study.problem, study.stages, settings=study.settings)
    assert result.values == pytest.approx(TRUTH, rel=1e-6)
    assert result.phi <= 1e-6
    assert {g.label for g in result.groups} == {"void_ratio", "deviator"}
    assert sum(e.std > 0 for e in result.estimates) == 3
