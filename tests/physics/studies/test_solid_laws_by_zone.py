"""`kind: solid` with a law for each zone: an elastic one beside one that yields."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
from mesh_studies import misfit, study, worst_derivative, write_rows
from scipy.optimize import brentq

from bilevel.report import InputError
from physics.discretisation import rectangle
from physics.discretisation.write import write_gmsh

COMPOSITE = """\
title: A stiff layer on one that yields
model:
  kind: solid
  mesh: layers.msh
  kinematics: plane_strain
  laws: {stiff: linear_elastic, soft: j2_plasticity}
  spread: {youngs_modulus: zones}
  supports:
    bottom: {y: 0 m}
    left: {x: 0 m}
    right: {x: 0 m}
    top: {y: {file: stroke.csv, time: t, value: {column: stroke, units: mm}}}
  time: {end: 2, steps: 2}
  sensors: {force: {through: top, quantity: force_y}}
parameters:
  - {name: "youngs_modulus[stiff]", value: 100, units: GPa}
  - {name: "youngs_modulus[soft]", value: 10, units: GPa}
  - {name: poissons_ratio, value: 0.25}
  - {name: yield_stress, value: 60, units: MPa}
  - {name: hardening_modulus, value: 500, units: MPa}
observations:
  - file: u.csv
    value: {column: u, units: mm}
    columns: {sensor: sensor, time: t, x: {column: x, units: m}, y: {column: y, units: m}}
calibration: {verify: false}
"""


def layers(folder: Path) -> tuple[float, float]:
    """Two layers squeezed by 2 % of their height, between rigid walls; where they meet after both steps.

    In each of them the strain is along y alone: the lower one yields at a stress of s0 (1 - nu) / (1 - 2 nu), and its
    slope is from then on K + 4 G h / 3 / (3 G + h) of the hardening modulus h.
    """
    mesh = rectangle(2, 4, (1.0, 2.0), order=2)
    mesh = mesh.with_region("stiff", lambda x: x[:, 1] > 1.0).with_region("soft", lambda x: x[:, 1] < 1.0)
    write_gmsh(folder / "layers.msh", mesh)
    write_rows(folder / "stroke.csv", "t,stroke", [(0, 0), (1, -10), (2, -40)])
    young, nu, strength, hardening = 10e9, 0.25, 60e6, 500e6
    shear, bulk = young / 2 / (1 + nu), young / 3 / (1 - 2 * nu)
    elastic, stiff = bulk + 4 * shear / 3, 10 * (bulk + 4 * shear / 3)
    plastic = bulk + 4 * shear / 3 * hardening / (3 * shear + hardening)
    yields = strength / (2 * shear)  # the strain at which 2 G e reaches the strength
    met = []
    for stroke in (0.01, 0.04):
        soft = stroke * stiff / (elastic + stiff)
        if soft > yields:
            soft = (stiff * stroke - (elastic - plastic) * yields) / (stiff + plastic)
        met.append(-soft * 1e3)
    write_rows(folder / "u.csv", "sensor,t,x,y,u", [("uy", t, 0.3, 1.0, u) for t, u in zip((1, 2), met)])
    assert met[0] / met[1] < 0.25 - 1e-3  # the second step yields
    return met[0], met[1]


def test_an_elastic_zone_beside_one_that_yields(tmp_path: Path) -> None:
    """Against the closed form; and the Jacobian against differences."""
    met = layers(tmp_path)
    loaded = study(tmp_path, COMPOSITE)
    assert misfit(loaded) < 1e-8 * abs(met[1]) * 1e-3
    assert worst_derivative(loaded, (1e-3, 1e-4, 1e-5)) < 1e-6


def test_rubber_beside_a_zone_that_yields(tmp_path: Path) -> None:
    """The nominal stress along a squeeze J alone is mu (J - 1 / J) + lambda ln(J) / J in neo-Hooke's law."""
    layers(tmp_path)
    mu, lame = 2e9, 3e9
    shear, bulk, yields = 4e9, 10e9 / 1.5, 60e6 / 8e9
    elastic, plastic = bulk + 4 * shear / 3, bulk + 4 * shear / 3 * 500e6 / (3 * shear + 500e6)

    def excess(met: float, stroke: float) -> float:
        soft = elastic * met if met <= yields else elastic * yields + plastic * (met - yields)
        j = 1 - (stroke - met)
        return soft + mu * (j - 1 / j) + lame * math.log(j) / j

    met = [brentq(excess, 0.0, stroke, args=(stroke,), xtol=1e-15) for stroke in (0.01, 0.04)]
    write_rows(tmp_path / "u.csv", "sensor,t,x,y,u", [("uy", t, 0.3, 1.0, -1e3 * u) for t, u in zip((1, 2), met)])
    assert met[0] < yields < met[1]
    constants = "- {name: mu, value: 2, units: GPa}\n  - {name: lame_lambda, value: 3, units: GPa}"
    text = COMPOSITE.replace("stiff: linear_elastic", "stiff: neo_hookean").replace(
        "  spread: {youngs_modulus: zones}\n", ""
    )
    text = text.replace('- {name: "youngs_modulus[stiff]", value: 100, units: GPa}', constants)
    loaded = study(tmp_path, text.replace("youngs_modulus[soft]", "youngs_modulus"))
    assert misfit(loaded) < 1e-6
    assert worst_derivative(loaded, (1e-4,)) < 1e-6


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("soft: j2_plasticity", "soft: j2", "line 6: model.laws.soft: there is no Law named 'j2'"),
        (
            "stiff: linear_elastic, soft: j2_plasticity}",
            "stiff: neo_hookean, soft: j2_plasticity}\n  geostatic: {unit_weight: 18 kN/m3, k0: 0.5, surface: 2 m}",
            "line 7: model.geostatic: an elastic law has no initial stress",
        ),
        ("soft: j2_plasticity", "base: j2_plasticity", "line 6: model.laws: the mesh has no zone 'base'"),
        (", soft: j2_plasticity", "", "line 6: model.laws: 4 cells are in no zone of stiff"),
        ("laws:", "law: j2_plasticity\n  laws:", "line 7: model.laws: give one law"),
        (
            "soft: j2_plasticity}",
            "soft: mohr_coulomb}\n  hardening: voce",
            "line 7: model.hardening: none of the laws has one",
        ),
    ],
)
def test_what_is_wrong_with_laws_by_zone_is_named(tmp_path: Path, old: str, new: str, sentence: str) -> None:
    layers(tmp_path)
    assert old in COMPOSITE
    with pytest.raises(InputError, match=re.escape(sentence)):
        study(tmp_path, COMPOSITE.replace(old, new))
