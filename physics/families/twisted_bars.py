"""Family b in space: rubber bars whose right end is pulled, bent and twisted in one step."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from bilevel.acceleration.family import Variation
from physics.discretisation import Mesh, box
from physics.families.bars import Bars, EndMotion, shifted
from physics.solids.cellwise.space_matrices import SpaceMatrices


@dataclass(frozen=True)
class SpaceMotion(EndMotion):
    """The right end is pulled by `stretch`, turns by `bend` on an arc, and by `twist` about the bar; angles in radians.

    towards: the direction in the cross-section, an angle from y, in which the bar is bent.
    """

    length: float
    stretch: float = 1.0
    twist: float = 0.0
    bend: float = 0.0
    towards: float = 0.0

    def __str__(self) -> str:
        return f"stretch {self.stretch:.2f}, bend {self.bend:.2f}, twist {self.twist:.2f}"

    def displacement(self, points: Tensor, fraction: float) -> Tensor:
        """Displacements (K, 3) of the end's nodes at points (K, 3), at a fraction of the load."""
        middle = 0.5 * (points.amin(0) + points.amax(0))
        bend, along = fraction * self.bend, (1.0 + fraction * (self.stretch - 1.0)) * self.length
        aside = along * bend / 2.0 * np.sinc(bend / (2.0 * np.pi)) ** 2
        arc = torch.tensor([along * np.sinc(bend / np.pi) - self.length, *(aside * c for c in self._direction)])
        turn = self.turn(torch.tensor(fraction, dtype=torch.float64))
        return (points - middle) @ turn.mT + middle + arc - points

    def turn(self, fractions: Tensor) -> Tensor:
        y, z = self._direction
        bending = torch.tensor([0.0, -z, y], dtype=torch.float64) * self.bend
        twisting = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64) * self.twist
        rotation = SpaceMatrices().rotation
        return rotation(fractions[..., None] * bending) @ rotation(fractions[..., None] * twisting)

    @property
    def _direction(self) -> tuple[float, float]:
        return math.cos(self.towards), math.sin(self.towards)


@dataclass(frozen=True)
class TwistedBars(Bars):
    """Bars of width 1 clamped at both ends, stretched to 1.5-2.2, or stretched and bent, or stretched and twisted; log-normal stiffness.

    TRAINING: square sections in hexahedra, lengths 2 to 4, Poisson's ratios 0.3 to 0.49; twists of 0.4 to 0.9 radians
    for each width of length, bends in any direction. CONTRAST: standard deviation of the log-stiffness 0.8 to 1.2 in
    place of 0.2 to 0.7. MESH: sections of height 0.6 to 1.6, with shifted nodes. LOADS: stretched, bent and twisted at
    once.
    """

    name: ClassVar[str] = "twisted_bars"
    version: ClassVar[int] = 1
    training_size: ClassVar[int] = 400
    upright: ClassVar[bool] = True

    def motion(self, length: float, variation: Variation, rng: np.random.Generator) -> SpaceMotion:
        sign, towards = rng.choice([-1.0, 1.0]), rng.uniform(0.0, 2.0 * math.pi)
        if variation is Variation.LOADS:
            twist, bend = sign * length * rng.uniform(0.3, 0.7), length * rng.uniform(0.2, 0.5)
            return SpaceMotion(length, rng.uniform(1.3, 1.8), twist, bend, towards)
        kind = rng.integers(3)
        if kind == 0:
            return SpaceMotion(length, stretch=rng.uniform(1.5, 2.2))
        stretch = rng.uniform(1.2, 2.0)
        if kind == 1:
            return SpaceMotion(length, stretch, bend=length * rng.uniform(0.3, 0.7), towards=towards)
        return SpaceMotion(length, stretch, twist=sign * length * rng.uniform(0.4, 0.9))

    def mesh(self, size: int, length: float, variation: Variation, rng: np.random.Generator) -> Mesh:
        across = max(3, round((size / length) ** (1.0 / 3.0) - 1.0))
        along = round(across * length)
        if variation is not Variation.MESH:
            return box(along, across, across, (length, 1.0, 1.0))
        height = rng.uniform(0.6, 1.6)
        up = max(3, round(across * height))
        return shifted(box(along, across, up, (length, 1.0, height)), 0.2 / across, rng)
