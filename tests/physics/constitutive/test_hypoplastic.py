"""Hypoplastic sand: invariants of the rate, the critical state, published element tests, order of the integration."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import pytest
import torch

from bilevel.report import ConvergenceError, InputError
from physics.constitutive.inelastic.hypoplastic import Hypoplastic
from physics.constitutive.mandel import axisymmetric
from physics.soil.control import Control, Quantity
from physics.soil.element_test import ElementTest, IncrementSchedule, LoadStage, March, march
from physics.soil.laboratory import LaboratoryTest, Layout, Procedure, Sign, Units, read_tests

SAND = Hypoplastic()
PASCAL = Units("Pa", "-")
NAMES = {
    "granular_hardness": "hs_Pa",
    "hardness_exponent": "n",
    "void_ratio_min": "ed0",
    "void_ratio_critical": "ec0",
    "void_ratio_max": "ei0",
    "pyknotropy": "alpha",
    "barotropy": "beta",
}


def rows(file: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(line for line in file.read_text().splitlines() if not line.startswith("#")))


def published(folder: Path, author: str) -> dict[str, torch.Tensor]:
    row = next(r for r in rows(folder / "hochstetten_hypoplastic_reference.csv") if r["author"] == author)
    values = {name: torch.tensor(float(row[column])) for name, column in NAMES.items()}
    return {"friction_angle": torch.tensor(math.radians(float(row["phi_c_deg"]))), **values}


def hochstetten(folder: Path) -> list[LaboratoryTest]:
    oedometer = read_tests(
        folder / "hochstetten_oedometer.csv",
        Procedure.OEDOMETER,
        Layout("test", "sigma_axial_Pa", "void_ratio"),
        sign=Sign.COMPRESSION_POSITIVE,
        units=PASCAL,
        lateral_ratio=1 - math.sin(math.radians(33.29)),
    )
    triaxial = read_tests(
        folder / "hochstetten_triaxial_drained.csv",
        Procedure.DRAINED,
        Layout("test", "eps_axial", "e0", "sigma3_Pa"),
        sign=Sign.COMPRESSION_POSITIVE,
        units=PASCAL,
    )
    return oedometer + triaxial


def run(tests: list[LaboratoryTest], params: dict[str, torch.Tensor], increments: int = 0) -> March:
    start = SAND.initial_state(
        torch.stack([t.stress for t in tests]), void_ratio=torch.tensor([t.void_ratio for t in tests])
    )
    return march(SAND, params, start, IncrementSchedule.of([t.path for t in tests], increments))


def rms(errors: list[torch.Tensor]) -> float:
    return torch.cat(errors).square().mean().sqrt().item()


def test_best_published_set_on_hochstetten_sand(shared_data: Path) -> None:
    tests = hochstetten(shared_data)
    result = run(tests, published(shared_data, "GA-cal manual Fig 3 run"), 30)
    void_ratio = [float(r["void_ratio"]) for r in rows(shared_data / "hochstetten_oedometer.csv")]
    shear = rows(shared_data / "hochstetten_triaxial_drained.csv")
    e = torch.cat([result.at_rows(t)[0][:, 6] for t in (0, 1)]) - torch.tensor(void_ratio)
    q = torch.cat([result.quantity(t, Quantity.DEVIATOR) for t in (2, 3, 4)])
    volume = torch.cat([result.quantity(t, Quantity.STRAIN_VOLUMETRIC) for t in (2, 3, 4)])
    assert rms([q - torch.tensor([float(r["q_Pa"]) for r in shear])]) == pytest.approx(24.3e3, rel=0.05)
    assert rms([volume - torch.tensor([float(r["eps_vol_dilation"]) for r in shear])]) == pytest.approx(
        0.0016, rel=0.05
    )
    assert rms([e]) == pytest.approx(0.0032, rel=0.05)


def test_critical_state_is_stationary(shared_data: Path) -> None:
    """At e = ec(p) on the Matsuoka-Nakai cone an isochoric triaxial strain changes nothing (von Wolffersdorff 1996)."""
    params = published(shared_data, "von Wolffersdorff 1996")
    sine = math.sin(params["friction_angle"].item())
    radial = -100e3
    axial = radial * (1 + sine) / (1 - sine)
    stress = axisymmetric(torch.tensor([axial]), torch.tensor([radial]))
    load = -(axial + 2 * radial) / params["granular_hardness"]
    critical = params["void_ratio_critical"] * torch.exp(-(load ** params["hardness_exponent"]))
    strain = axisymmetric(torch.tensor([-1.0]), torch.tensor([0.5]))
    rate = SAND.rate(stress, critical.reshape(1), strain, params)
    change = rate.linear + rate.nonlinear * math.sqrt(1.5)
    assert change.abs().max().item() <= 1e-9 * rate.linear.abs().max().item()


def test_rate_is_positively_homogeneous_and_objective(shared_data: Path) -> None:
    params = published(shared_data, "von Wolffersdorff 1996")
    stress = -1e5 * torch.tensor([[2.0, 1.0, 1.5, 0.1, -0.2, 0.3]])
    strain = torch.randn(1, 6)
    e = torch.tensor([0.7])
    # A cyclic change of axes permutes normal and shear components alike.
    order = [1, 2, 0, 4, 5, 3]
    rate, turned = SAND.rate(stress, e, strain, params), SAND.rate(stress[:, order], e, strain[:, order], params)
    assert torch.allclose(rate.linear[:, order], turned.linear, rtol=1e-12)
    assert torch.allclose(rate.nonlinear[:, order], turned.nonlinear, rtol=1e-12)
    assert torch.allclose(SAND.rate(stress, e, 3 * strain, params).linear, 3 * rate.linear, rtol=1e-14)


def test_integration_is_second_order(shared_data: Path) -> None:
    params = published(shared_data, "von Wolffersdorff 1996")
    start = SAND.initial_state(axisymmetric(torch.tensor([-1e5]), torch.tensor([-1e5])), void_ratio=torch.tensor([0.7]))
    control = Control((Quantity.STRAIN_AXIAL, Quantity.STRAIN_RADIAL))
    ends = []
    for n in (5, 10, 20):
        path = LoadStage(control, torch.tensor([[-0.02, 0.002]]), n)
        ends.append(march(SAND, params, start, IncrementSchedule.of([ElementTest("path", (path,))])).states[-1, 0, :6])
    ratio = ((ends[0] - ends[1]).norm() / (ends[1] - ends[2]).norm()).item()
    assert 3.3 < ratio < 5.0


def test_stress_beyond_strength_names_test_and_row(shared_data: Path) -> None:
    params = published(shared_data, "von Wolffersdorff 1996")
    start = SAND.initial_state(axisymmetric(torch.tensor([-1e5]), torch.tensor([-1e5])), void_ratio=torch.tensor([0.9]))
    control = Control((Quantity.STRESS_AXIAL, Quantity.STRESS_RADIAL))
    path = LoadStage(control, torch.tensor([[-1.5e5, -1e5], [-9e5, -1e5]]), 4)
    with pytest.raises(ConvergenceError, match=r"test loose, row 2 .*control the strain beyond failure"):
        march(SAND, params, start, IncrementSchedule.of([ElementTest("loose", (path,))]))


def test_bad_tables_and_parameters(tmp_path: Path, shared_data: Path) -> None:
    layout = Layout("test", "strain", "e", "p", "time")

    def read(text: str) -> list[LaboratoryTest]:
        file = tmp_path / "table.csv"
        file.write_text("test,time,strain,e,p\n" + text)
        return read_tests(file, Procedure.DRAINED, layout, sign=Sign.COMPRESSION_POSITIVE, units=Units("kPa", "%"))

    assert read("A,0,0,0.7,100\nA,1,2,0.7,100\n")[0].path.stages[0].rows[0].tolist() == [-0.02, -100e3]
    with pytest.raises(InputError, match=r"line 4, column 'time': time 1 is repeated; remove the row"):
        read("A,0,0,0.7,100\nA,1,1,0.7,100\nA,1,2,0.7,100\n")
    with pytest.raises(InputError, match="compression in all directions"):
        run(read("A,0,0,0.7,-100\nA,1,2,0.7,-100\n"), published(shared_data, "von Wolffersdorff 1996"))
    crossed = {**published(shared_data, "von Wolffersdorff 1996"), "void_ratio_min": torch.tensor(0.99)}
    with pytest.raises(InputError, match=r"void_ratio_critical = 0.95  must lie above void_ratio_min = 0.99"):
        run(hochstetten(shared_data), crossed)
