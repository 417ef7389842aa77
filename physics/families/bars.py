"""What families of rubber bars share: clamped ends, of which the right one is moved in one step; log-normal stiffness."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from bilevel.acceleration.family import Family, Instance, Variation
from bilevel.linalg import factorise
from bilevel.problem import Params
from bilevel.report import Counts
from physics.constitutive.flow.linear import Linear
from physics.discretisation import Mesh
from physics.families.family import generator
from physics.families.hidden import STIFFER, Hidden, changed, disc
from physics.families.random_field import log_normal
from physics.local.density import Measure
from physics.local.energy import LocalEnergy
from physics.local.term import Term
from physics.solids import NeoHookean
from physics.solids.cellwise.cells import SolidCells
from physics.solids.cellwise.nearly_incompressible import NearlyIncompressibleSolid


class EndMotion(ABC):
    """How the right end of a bar moves, and its cross-sections with it on the way from the left end."""

    @abstractmethod
    def displacement(self, points: Tensor, fraction: float) -> Tensor:
        """Displacements (K, d) of the end's nodes at points (K, d), at a fraction of the load."""

    @abstractmethod
    def turn(self, fractions: Tensor) -> Tensor:
        """The rotations (..., d, d) of cross-sections at fractions (...) of the way from the left end, 0, to the right, 1."""

    def first(self, cells: SolidCells) -> tuple[Tensor, Tensor, Counts]:
        """Linear elasticity in cells that have turned, with the way to the right end measured by the harmonic interpolation that the stiffness weighs."""
        mesh = cells.cells.mesh
        held = [mesh.fixed(name, value=value) for name, value in (("left", 0.0), ("right", 1.0))]
        term = Term("harmonic", mesh.operator(), Linear("mu", "Pa"), Measure((mesh.dim,)))
        energy, params = LocalEnergy([term], len(mesh.coordinates), 1, held), {"harmonic": {"mu": cells.mu}}
        zero = energy.start()
        factor = factorise(energy.tangent(zero, params), cells.linear_solver)
        field = energy.expand(-factor.solve(energy.residual(zero, params)), params)
        return self.turn(field[:, 0][mesh.cells].mean(1)), cells.law.at_rest[0], factor.counts


@dataclass(frozen=True)
class Bars(Family):
    """Bars along x between clamped ends; lengths 2 to 4 widths, Poisson's ratios 0.3 to 0.49.

    CONTRAST: standard deviation of the log-stiffness 0.8 to 1.2 in place of 0.2 to 0.7. GEOMETRY: holes, notches, waists, stiff
    inclusions. stiffness_unit: the same problems
    in other units.
    """

    stiffness_unit: float = 1.0

    upright: ClassVar[bool] = False

    @abstractmethod
    def motion(self, length: float, variation: Variation, rng: np.random.Generator) -> EndMotion:
        """A load of a variation."""

    @abstractmethod
    def mesh(self, size: int, length: float, variation: Variation, rng: np.random.Generator) -> Mesh:
        """A bar of about `size` nodes."""

    def instance(self, size: int, seed: int, variation: Variation = Variation.TRAINING) -> Instance:
        rng = generator(self.name, size, seed, variation)
        length = rng.uniform(2.0, 4.0)
        poisson = 0.5 - 0.5 * 10.0 ** rng.uniform(-1.7, -0.4)
        motion = self.motion(length, variation, rng)
        mesh, shape = self.mesh(size, length, variation, rng), None
        if variation is Variation.GEOMETRY:
            shape = Hidden.draw(rng, mesh.dim)
            mesh = changed(mesh, shape, rng)
        deviation = rng.uniform(0.8, 1.2) if variation is Variation.CONTRAST else rng.uniform(0.2, 0.7)
        middles = mesh.coordinates[mesh.cells].mean(1).numpy()
        correlation = np.exp(rng.uniform(np.log(0.1), np.log(1.0)))
        mu = torch.from_numpy(log_normal(middles, correlation, deviation, rng)) * self.stiffness_unit
        if shape is Hidden.INCLUSION:
            mu = torch.where(disc(mesh, rng), STIFFER * mu, mu)
        solid = NearlyIncompressibleSolid(
            mesh, NeoHookean(), [mesh.fixed("left"), mesh.fixed("right")], upright=self.upright
        )
        material = {"mu": mu, "lame_lambda": mu * (2.0 * poisson / (1.0 - 2.0 * poisson))}
        end = mesh.coordinates[mesh.nodes_on("right")]

        def path(params: Params, fraction: float) -> Params:
            return {**params, "boundary": {"right": motion.displacement(end, fraction)}}

        params = path({"material": material}, 1.0)
        cellwise = SolidCells(solid.by_cells, params, motion)
        start = _classical_start(solid, cellwise, params)
        named = variation.value if shape is None else f"{variation.value} {shape.value}"
        described = (
            f"{named}: {len(mesh.coordinates)} nodes, {mesh.shape.value}, length {length:.2f}, {motion}, "
            f"nu {poisson:.3f}, deviation {deviation:.2f}"
        )
        return Instance(
            solid, params, start, described, cellwise=cellwise, path=path, own_start=lambda: solid.first_guess(params)
        )


def shifted(mesh: Mesh, most: float, rng: np.random.Generator) -> Mesh:
    """With the nodes inside moved by up to `most` along each axis."""
    x = mesh.coordinates
    inside = ((x > x.amin(0) + 1e-9) & (x < x.amax(0) - 1e-9)).all(1, keepdim=True)
    return mesh.moved(torch.where(inside, x + most * torch.from_numpy(rng.uniform(-1.0, 1.0, size=x.shape)), x))


def _classical_start(solid: NearlyIncompressibleSolid, cellwise: SolidCells, params: Params) -> Tensor:
    """The rotated linear-elastic field where no element is inverted in it, else zero displacement of the free nodes."""
    linear = cellwise.begin(solid.start()).u
    return linear if bool(torch.isfinite(solid.value(linear, params))) else solid.start()
