"""The rigid strip footing on weightless soil: bearing capacity by displacement control until the load stays level."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bilevel.report import ConvergenceError
from physics.constitutive.inelastic.law import InelasticLaw, Values
from physics.constitutive.kinematics import Kinematics
from physics.discretisation import Mesh
from physics.discretisation.constraints import Dirichlet
from physics.solids.solid import InelasticSolid

HALF_WIDTH = 0.5


@dataclass(frozen=True)
class LoadCurve:
    """Settlement (m) and mean pressure under the footing (Pa) after each increment; the last pressure is the limit load."""

    settlement: Tensor
    pressure: Tensor
    level: bool
    """Whether the load stayed level: it changed by less than the tolerance over a full increment's settlement."""


def footing_mesh(cells: int = 12, extent: float = 5.0) -> Mesh:
    """Half of the soil under a footing of unit width: eight-node quadrilaterals, graded towards the footing's edge."""
    import skfem

    under = HALF_WIDTH * (1.0 - _graded(cells // 3))[::-1]
    beside = HALF_WIDTH + (extent - HALF_WIDTH) * _graded(cells)
    depth = -extent * _graded(cells)[::-1]
    mesh = skfem.MeshQuad.init_tensor(np.concatenate([under, beside[1:]]), depth).with_defaults()
    return Mesh.from_skfem(mesh, element=skfem.ElementQuadS2())


def _graded(cells: int, ratio: float = 12.0) -> np.ndarray:
    """Points from 0 to 1, the last interval `ratio` times the first."""
    widths = ratio ** (np.arange(cells) / max(cells - 1, 1))
    return np.concatenate([[0.0], np.cumsum(widths)]) / widths.sum()


def bearing_capacity(
    law: InelasticLaw,
    params: Values,
    mesh: Mesh | None = None,
    settlement: float = 0.08,
    increments: int = 30,
    level: float = 2e-3,
) -> LoadCurve:
    """Press a smooth rigid footing of unit width into weightless soil, in plane strain, by `settlement` at most.

    Increments shrink by half where Newton fails and grow again after that. level: the relative change of the load over a
    full increment's settlement that counts as none. Raises ConvergenceError if they become a thousandth of the settlement.
    """
    mesh = footing_mesh() if mesh is None else mesh
    under = mesh.nodes_where(lambda x: (x[:, 1] > -1e-9) & (x[:, 0] < HALF_WIDTH + 1e-9))
    # The footing's own constraint comes first: where constraints overlap, the first one holds.
    constraints = [
        Dirichlet("footing", under, [1]),
        mesh.fixed("bottom"),
        mesh.fixed("left", [0]),
        mesh.fixed("right", [0]),
    ]
    solid = InelasticSolid(mesh, law, Kinematics.PLANE_STRAIN, constraints, quadrature=3)
    begin, u, move = solid.begin(), solid.start(), solid.start()
    full = settlement / increments
    depth, step = 0.0, full
    curve: list[tuple[float, float]] = []
    while depth < settlement * (1 - 1e-9):
        target = min(depth + step, settlement)
        given = {"material": params, "begin": begin, "boundary": {"footing": -target}}
        try:
            found = solid.solve(given, u + move * (target - depth)).u
        except ConvergenceError as error:
            step /= 2
            if step < 1e-3 * settlement:
                raise ConvergenceError(f"footing at a settlement of {depth:.4g} m: {error}") from error
            continue
        move = (found - u) / (target - depth)
        reaction = solid.reactions(found, given)[under, 1].sum()
        begin, u, depth = solid.end(found, given), found, target
        curve.append((depth, -float(reaction) / HALF_WIDTH))
        before = curve[-2] if len(curve) > 1 else (0.0, 0.0)
        slope = (curve[-1][1] - before[1]) / (curve[-1][0] - before[0])
        step = min(full, 1.5 * step)
        if abs(slope) * full < level * curve[-1][1]:
            return _curve(curve, level=True)
    return _curve(curve, level=False)


def _curve(points: list[tuple[float, float]], level: bool) -> LoadCurve:
    settlement, pressure = torch.tensor(points, dtype=torch.float64).T
    return LoadCurve(settlement, pressure, level)
