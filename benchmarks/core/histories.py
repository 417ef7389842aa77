"""What a calibration of histories gains from remembering them: Newton's steps an increment and processor time, on against off."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.record import Record, at_most, stated
from bilevel.calibrate import Parameter, Settings, calibrate, load_study, problem_from_function
from bilevel.calibrate.problem import CalibrationProblem
from bilevel.calibrate.result import CalibrationResult
from bilevel.report import Counts
from physics.constitutive.inelastic.cam_clay import CamClayConstantPoissonsRatio
from physics.constitutive.mandel import axisymmetric
from physics.soil.control import Control, Quantity
from physics.soil.element_test import ElementTest, IncrementSchedule, LoadStage, March
from physics.soil.sensitivity import sensitive_march
from physics.studies.soil_element_tests import SoilElementTests

LINE = "calibrations of sand and clay with the memory on and off: Newton's steps an increment, seconds, the same parameters"
DURATION = "1 minute"

SAND = Path(__file__).resolve().parents[2] / "examples" / "hochstetten_sand" / "study.yml"
CLAY = {"compression_index": 0.12, "swelling_index": 0.02, "critical_ratio": 1.1, "poissons_ratio": 0.25}
BEGIN = np.array([1.4, 0.7, 0.85, 1.2])
"""Where the calibration of the clay begins, as multiples of what made its data."""


@dataclass
class Case:
    """A calibration, and the work in each of its marches so far."""

    name: str
    problem: CalibrationProblem
    settings: Settings
    marches: list[Counts]
    increments: int

    def run(self, memory: bool) -> Run:
        self.marches.clear()
        began = time.process_time()
        settings = replace(self.settings, memory=memory, statistics=False, verify=False)
        result = calibrate(self.problem, settings=settings, on_fail="ignore")
        seconds, warm = time.process_time() - began, self.marches[1:]  # the first is cold in any case
        solves = self.increments * len(warm)
        steps = sum(counts.back_substitutions for counts in warm) / solves
        return Run(result, steps, sum(counts.factorisations for counts in warm) / solves, seconds)


@dataclass(frozen=True)
class Run:
    """A calibration, with what an increment took, those of the first march apart, and processor seconds."""

    result: CalibrationResult
    steps: float
    factorisations: float
    seconds: float


def sand(tolerance: float | None) -> Case:
    """Hypoplasticity, eight parameters by five tests."""
    study, marches = load_study(SAND), list[Counts]()
    model = study.problem.experiments[0].model
    assert isinstance(model, SoilElementTests)
    run = model.run

    def counted(parameters: Mapping[str, Tensor]) -> March:
        march = run(parameters)
        marches.append(march.counts or Counts())
        return march

    model.run = counted  # type: ignore[method-assign]
    settings = study.settings if tolerance is None else replace(study.settings, tolerance=tolerance)
    name = f"Hochstetten sand, to {settings.tolerance:g}"
    return Case(name, study.problem, settings, marches, len(model.schedule))


def clay(rows: int) -> Case:
    """Cam-Clay, four parameters by a drained, an undrained and an oedometer test with one percent of noise."""
    law, marches = CamClayConstantPoissonsRatio(), list[Counts]()
    share = torch.linspace(0, 1, rows + 1, dtype=torch.float64)[1:]
    tests = [
        ElementTest("drained", (stage(Quantity.STRAIN_AXIAL, -0.15 * share, Quantity.STRESS_RADIAL, -1e5),)),
        ElementTest("undrained", (stage(Quantity.STRAIN_AXIAL, -0.15 * share, Quantity.STRAIN_VOLUMETRIC, 0.0),)),
        ElementTest(
            "oedometer",
            tuple(
                stage(Quantity.STRESS_AXIAL, -1e5 * values, Quantity.STRAIN_RADIAL, 0.0)
                for values in (8.0**share, torch.tensor([4.0, 2.0]), torch.tensor([4.0, 8.0, 16.0]))
            ),
        ),
    ]
    schedule = IncrementSchedule.of(tests)
    pressure = torch.tensor([1e5, 2e5, 1e5], dtype=torch.float64)
    void_ratio, ratio = torch.tensor([[0.9, 0.85, 0.9], [1.0, 1.5, 1.2]], dtype=torch.float64)
    stress = axisymmetric(-pressure, -pressure)
    start = law.initial_state(stress, void_ratio=void_ratio, preconsolidation=ratio * pressure)

    def predict(values: Mapping[str, Tensor]) -> Tensor:
        march = sensitive_march(law, dict(zip(CLAY, values["clay"].unbind())), lambda _: start, schedule)
        marches.append(march.counts or Counts())
        stresses = [march.quantity(test, q) / 1e5 for test in (0, 1) for q in (Quantity.DEVIATOR, Quantity.PRESSURE)]
        strains = [march.quantity(0, Quantity.STRAIN_VOLUMETRIC), march.quantity(2, Quantity.STRAIN_AXIAL)]
        return torch.cat([*(x[1:] for x in stresses), *(20.0 * x[1:] for x in strains)])

    truth = torch.tensor(list(CLAY.values()), dtype=torch.float64)
    with torch.no_grad():
        exact = predict({"clay": truth})
    data = exact + 0.01 * torch.from_numpy(np.random.default_rng(1).standard_normal(len(exact)))
    parameter = Parameter("clay", truth.numpy() * BEGIN, transform="log")
    problem = problem_from_function([parameter], predict, data)
    return Case("Cam-Clay, to 1e-08", problem, Settings(tolerance=1e-8), marches, len(schedule))


def stage(driven: Quantity, values: Tensor, held: Quantity, value: float) -> LoadStage:
    rows = values.to(torch.float64)
    return LoadStage(Control((driven, held)), torch.stack([rows, torch.full_like(rows, value)], 1))


def compared(case: Case, share: float) -> list[Record]:
    case.run(memory=True)  # what a process loads and compiles once is nobody's time
    on, off = case.run(memory=True), case.run(memory=False)
    differences = [
        np.abs(np.asarray(value) / np.asarray(off.result.values[label]) - 1.0).max()
        for label, value in on.result.values.items()
    ]
    name = case.name
    return [
        stated(f"{name}: increments, on", case.increments * len(case.marches)),
        stated(f"{name}: Newton's steps an increment, off", off.steps),
        at_most(f"{name}: Newton's steps an increment, on, but in the first march", on.steps, share * off.steps),
        stated(f"{name}: factorisations an increment, derivatives included, off", off.factorisations),
        stated(f"{name}: factorisations an increment, derivatives included, on", on.factorisations),
        stated(f"{name}: calibration, off", off.seconds, "s"),
        at_most(f"{name}: calibration, on", on.seconds, off.seconds, "s"),
        at_most(f"{name}: largest relative difference of a parameter", float(max(differences)), 1e-8),
    ]


def run(quick: bool) -> list[Record]:
    cases = [(clay(8 if quick else 20), 0.5), (sand(1e-8), 0.5), (sand(None), 1.0)]
    return [record for case, share in cases for record in compared(case, share)]
