"""Closed-form algebra of many 2 x 2 matrices (..., 2, 2): rotations, and functions of symmetric matrices."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from physics.solids.cellwise.matrices import Matrices

TINY = 1e-24


class PlaneMatrices(Matrices):
    """Rotations by an angle; symmetric matrices by their two eigenvalues."""

    dim = 2
    turns = ("angle",)

    def rotation(self, turn: Tensor) -> Tensor:
        c, s = turn[..., 0].cos(), turn[..., 0].sin()
        return torch.stack((c, -s, s, c), -1).unflatten(-1, (2, 2))

    def turn_of(self, rotation: Tensor) -> Tensor:
        sine = rotation[..., 1, 0] - rotation[..., 0, 1]
        return torch.atan2(sine, rotation[..., 0, 0] + rotation[..., 1, 1])[..., None]

    def nearest_rotation(self, a: Tensor) -> Tensor:
        return self.rotation(self.turn_of(a))

    def symmetric_function(self, s: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
        mean = 0.5 * (s[..., 0, 0] + s[..., 1, 1])
        half = 0.5 * (s[..., 0, 0] - s[..., 1, 1])
        radius = torch.sqrt(half**2 + s[..., 0, 1] * s[..., 1, 0] + TINY)
        high, low = function(mean + radius), function(mean - radius)
        middle, slope = 0.5 * (high + low), 0.5 * (high - low) / radius
        unit = torch.eye(2, dtype=s.dtype)
        return middle[..., None, None] * unit + slope[..., None, None] * (s - mean[..., None, None] * unit)

    def bounded(self, a: Tensor, low: float, high: float) -> Tensor:
        turn = self.nearest_rotation(a)
        stretch = turn.mT @ a
        return turn @ self.symmetric_function(0.5 * (stretch + stretch.mT), lambda x: x.clamp(low, high))
