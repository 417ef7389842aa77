"""Hyperelastic bodies under traction from 1e-7 to 1 of their modulus, by the default solver from rest.

Energies and forces at small strain are what is left of terms a million times larger; a solver that takes the noise of
what is left for the noise of the terms ends short of its tolerance.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

import bilevel
import physics.discretisation as meshes
from benchmarks.record import Record, at_most
from physics.constitutive import Kinematics
from physics.constitutive.elastic.extended_tube import ExtendedTube
from physics.constitutive.elastic.law import ElasticLaw
from physics.constitutive.elastic.mooney_rivlin import MooneyRivlin
from physics.constitutive.elastic.neo_hookean import NeoHookean
from physics.constitutive.elastic.ogden import Ogden
from physics.constitutive.elastic.yeoh import Yeoh
from physics.solids import Solid, Traction
from physics.solids.solid import ElasticSolid

LINE = "800 hyperelastic bodies, traction 1e-7 to 1 of the modulus, default solver: failures and iterations"
DURATION = "10 minutes"

SIZES = (1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 9e-3, 1e-1, 1.0)
UNITS = (1.0, 1e6)
SMALL = 1e-2
"""Up to this traction / modulus six iterations are promised."""


@dataclass(frozen=True)
class Material:
    """A law with constants of shear modulus one; moduli are multiplied by the unit, pure numbers are not."""

    law: ElasticLaw
    moduli: dict[str, float]
    numbers: dict[str, float]

    def params(self, unit: float, factor: float) -> dict[str, Tensor]:
        scaled = {name: torch.tensor(value * unit, dtype=torch.float64) for name, value in self.moduli.items()}
        first = next(iter(scaled))
        return (
            scaled
            | {first: scaled[first] * factor}
            | {n: torch.tensor(v, dtype=torch.float64) for n, v in self.numbers.items()}
        )


MATERIALS = {
    "neo-Hooke": Material(NeoHookean(), {"mu": 1.0, "lame_lambda": 2.0}, {}),
    "Mooney-Rivlin": Material(MooneyRivlin(), {"c10": 0.4, "c01": 0.1, "bulk_modulus": 5.0}, {}),
    "Yeoh": Material(Yeoh(), {"c1": 0.5, "c2": 0.01, "c3": 0.001, "bulk_modulus": 5.0}, {}),
    "Ogden": Material(Ogden(1), {"mu_1": 0.8, "bulk_modulus": 5.0}, {"alpha_1": 2.5}),
    "extended tube": Material(ExtendedTube(), {"gc": 0.6, "ge": 0.4, "bulk_modulus": 5.0}, {"beta": 0.3, "delta": 0.1}),
}
SHAPES = {
    "cube 2": lambda: meshes.box(2, 2, 2),
    "cube 3": lambda: meshes.box(3, 3, 3),
    "cube 6": lambda: meshes.box(6, 6, 6),
    "bar": lambda: meshes.box(8, 2, 2, lengths=(4.0, 1.0, 1.0)),
    "plane strain": lambda: meshes.rectangle(6, 6),
}


def bodies(material: Material) -> Iterator[tuple[str, ElasticSolid]]:
    for shape, make in SHAPES.items():
        mesh = make()
        kinematics = Kinematics.PLANE_STRAIN if mesh.dim == 2 else None
        yield shape, Solid(mesh, material.law, kinematics, [mesh.fixed("left")], [Traction("pull", "right")])


def run(quick: bool) -> list[Record]:
    factors = (1.0, 1.1)
    failures: dict[str, int] = defaultdict(int)
    most: dict[str, int] = defaultdict(int)
    count = 0
    for name, material in MATERIALS.items():
        for shape, solid in bodies(material):
            if quick and shape != "cube 2":
                continue
            for size, unit, factor in ((s, u, f) for s in SIZES for u in UNITS for f in factors):
                # A body of length 4 bends: the same traction strains it sixteen times as much.
                across = 0.2 if shape != "bar" else 0.01
                pull = size * unit * torch.tensor([1.0, across, 0.0][: solid.mesh.dim], dtype=torch.float64)
                params = {"material": material.params(unit, factor), "pull": pull}
                report = bilevel.argmin(solid, solid.start(), params, on_fail="ignore").report
                count += 1
                failures[name] += not report.converged
                if not report.converged:
                    print(
                        f"  failed: {name}, {shape}, size {size:g}, unit {unit:g}, factor {factor}: {report.sentence}"
                    )
                if size <= SMALL:
                    most[name] = max(most[name], report.iterations)
    rows = [at_most(f"failures of {count} bodies", sum(failures.values()), 0)]
    for name in MATERIALS:
        rows.append(at_most(f"{name}: most iterations up to {SMALL:g}", most[name], 6))
    return rows
