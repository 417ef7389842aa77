"""Family b: neo-Hookean bars in plane strain under a large displacement of their right end in one step."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from bilevel.acceleration.family import Variation
from physics.discretisation import Mesh, Shape, rectangle
from physics.families.bars import Bars, EndMotion, shifted
from physics.solids.cellwise.plane_matrices import PlaneMatrices


@dataclass(frozen=True)
class PlaneMotion(EndMotion):
    """The right end of a bar turns by `angle` (radians) on an arc, while it is pulled by `stretch` and moved by `shear` heights."""

    length: float
    stretch: float = 1.0
    angle: float = 0.0
    shear: float = 0.0

    def __str__(self) -> str:
        return f"stretch {self.stretch:.2f}, angle {self.angle:.2f}, shear {self.shear:.2f}"

    def displacement(self, points: Tensor, fraction: float) -> Tensor:
        """Displacements (K, 2) of the end's nodes at points (K, 2), at a fraction of the load."""
        angle = fraction * self.angle
        along = (1.0 + fraction * (self.stretch - 1.0)) * self.length
        across = points[:, 1:] - 0.5
        x = along * np.sinc(angle / np.pi) - math.sin(angle) * across
        y = along * angle / 2.0 * np.sinc(angle / (2.0 * np.pi)) ** 2 + math.cos(angle) * across
        return torch.cat((x, y + 0.5 + fraction * self.shear), 1) - points

    def turn(self, fractions: Tensor) -> Tensor:
        return PlaneMatrices().rotation(self.angle * fractions[..., None])


@dataclass(frozen=True)
class LargeStrain(Bars):
    """Bars of height 1 clamped at both ends, stretched to 1.5-3, or stretched and bent, or stretched and sheared; log-normal stiffness.

    TRAINING: rectangles in quadrilaterals, lengths 2 to 4, Poisson's ratios 0.3 to 0.49. CONTRAST: standard deviation
    of the log-stiffness 0.8 to 1.2 in place of 0.2 to 0.7. MESH: triangles, with shifted nodes. LOADS: stretched, bent
    and sheared at once.
    """

    name: ClassVar[str] = "large_strain"
    version: ClassVar[int] = 1
    training_size: ClassVar[int] = 150

    def motion(self, length: float, variation: Variation, rng: np.random.Generator) -> PlaneMotion:
        sign = rng.choice([-1.0, 1.0])
        if variation is Variation.LOADS:
            return PlaneMotion(
                length,
                rng.uniform(1.3, 1.8),
                sign * length * rng.uniform(0.2, 0.6),
                rng.choice([-1, 1]) * rng.uniform(0.2, 1),
            )
        kind = rng.integers(3)
        if kind == 0:
            return PlaneMotion(length, stretch=rng.uniform(1.5, 3.0))
        if kind == 1:
            return PlaneMotion(length, stretch=rng.uniform(1.2, 2.0), angle=sign * length * rng.uniform(0.3, 0.7))
        return PlaneMotion(length, stretch=rng.uniform(1.2, 2.0), shear=sign * rng.uniform(0.5, 2.0))

    def mesh(self, size: int, length: float, variation: Variation, rng: np.random.Generator) -> Mesh:
        across = max(4, round(math.sqrt(size / length)))
        along = round(across * length)
        if variation is not Variation.MESH:
            return rectangle(along, across, (length, 1.0))
        return shifted(rectangle(along, across, (length, 1.0), Shape.TRIANGLE), 0.2 / across, rng)
