"""Soil models against closed forms: strength, apex, Cam-Clay, footing, consolidation."""

from __future__ import annotations

import math
import time

import torch

from benchmarks.record import Record, at_most, near
from physics.constitutive.inelastic.cam_clay import CamClayConstantPoissonsRatio
from physics.constitutive.inelastic.drucker_prager import DruckerPrager
from physics.constitutive.inelastic.law import ReturnMapping, update
from physics.constitutive.inelastic.mohr_coulomb import MohrCoulomb
from physics.constitutive.mandel import axisymmetric, equivalent_stress, mean_pressure, trace
from physics.soil.control import Control, Quantity
from physics.soil.element_test import ElementTest, IncrementSchedule, LoadStage, march
from physics.soil.footing import bearing_capacity, footing_mesh

LINE = "Drucker-Prager, Mohr-Coulomb, Cam-Clay and the strip footing against closed forms"
DURATION = "2 minutes"

DEGREE = math.pi / 180


def number(value: float) -> torch.Tensor:
    return torch.tensor(value, dtype=torch.float64)


def soil(friction: float, dilatancy: float, cohesion: float, young: float = 20e6) -> dict[str, torch.Tensor]:
    return {
        "youngs_modulus": number(young),
        "poissons_ratio": number(0.3),
        "cohesion": number(cohesion),
        "friction_angle": number(friction * DEGREE),
        "dilatancy_angle": number(dilatancy * DEGREE),
    }


def strength(model: ReturnMapping) -> list[Record]:
    name = type(model).__name__
    params = soil(30, 10, 20e3)
    records = []
    for confinement, target in ((100e3, 369.282032), (0.0, 69.282032)):
        path = LoadStage(
            Control((Quantity.STRAIN_AXIAL, Quantity.STRESS_RADIAL)),
            torch.tensor([[-0.06, -confinement]], dtype=torch.float64),
            12,
        )
        start = axisymmetric(number(-confinement).reshape(1), number(-confinement).reshape(1))
        axial = (
            -march(model, params, start, IncrementSchedule.of([ElementTest("triaxial", (path,))]))
            .states[-1, 0, 0]
            .item()
            / 1e3
        )
        records.append(near(f"{name}: strength at {confinement / 1e3:g} kPa", axial, target, 1e-6, "kPa"))
    tension = torch.tensor([[1.0, 1, 1, 0, 0, 0]], dtype=torch.float64)
    stress = update(model, torch.zeros(1, 6, dtype=torch.float64), tension, params).u
    apex = 60e3 / math.tan(30 * DEGREE)
    records.append(near(f"{name}: I1 at the apex", trace(stress).item(), apex, 1e-6, "Pa"))
    records.append(at_most(f"{name}: q at the apex", equivalent_stress(stress).item(), 1e-8, "Pa"))
    return records


def cam_clay() -> list[Record]:
    params = {
        "compression_index": number(0.077), "swelling_index": number(0.0066), "critical_ratio": number(1.2), "poissons_ratio": number(0.3),
    }  # fmt: skip
    model = CamClayConstantPoissonsRatio(specific_volume=1.788)
    p0 = number(200e3).reshape(1)
    start = model.initial_state(axisymmetric(-p0, -p0), void_ratio=number(0.788).reshape(1), preconsolidation=p0)

    def run(quantities: tuple[Quantity, Quantity], target: list[float], steps: int):  # type: ignore[no-untyped-def]
        path = LoadStage(Control(quantities), torch.tensor([target], dtype=torch.float64), steps)
        return march(model, params, start, IncrementSchedule.of([ElementTest("clay", (path,))]))

    undrained = run((Quantity.STRAIN_AXIAL, Quantity.STRAIN_VOLUMETRIC), [-0.15, 0.0], 60).states[-1]
    drained = run((Quantity.STRESS_AXIAL, Quantity.STRESS_RADIAL), [-587.387e3, -200e3], 200)
    state = drained.states[-1]
    p, q = mean_pressure(state[:, :6]).item(), equivalent_stress(state[:, :6]).item()
    return [
        near("Cam-Clay undrained: p'", mean_pressure(undrained[:, :6]).item() / 1e3, 106.1, 0.2122, "kPa"),
        near("Cam-Clay undrained: q", equivalent_stress(undrained[:, :6]).item() / 1e3, 127.3, 0.2546, "kPa"),
        near("Cam-Clay drained: pc", state[0, 6].item() / 1e3, 645.77, 0.64577, "kPa"),
        near("Cam-Clay drained: axial strain", -drained.strains[-1, 0, 0].item(), 0.1898, 0.000949),
        at_most(
            "Cam-Clay drained: pc against p + q2/(M2 p)", abs(state[0, 6].item() / (p + q**2 / (1.44 * p)) - 1), 1e-6
        ),
    ]


def footing(quick: bool) -> list[Record]:
    records = []
    for friction, exact, settlement, increments in ((0.0, 5.142, 0.06, 60), (10.0, 8.345, 0.08, 20)):
        started = time.perf_counter()
        curve = bearing_capacity(
            MohrCoulomb(), soil(friction, friction, 1.0, 1e3), footing_mesh(9 if quick else 14), settlement, increments
        )
        record = near(f"strip footing Nc, {friction:g} degrees", curve.pressure[-1].item(), exact, 0.03 * exact)
        record.seconds = time.perf_counter() - started
        records.append(record)
    return records


def run(quick: bool) -> list[Record]:
    return [*strength(DruckerPrager()), *strength(MohrCoulomb()), *cam_clay(), *footing(quick)]
