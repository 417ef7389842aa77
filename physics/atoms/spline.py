"""Cubic splines on equally spaced knots, twice continuously differentiable, linear in their values."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Grid:
    """Knots first + k spacing, k < count."""

    first: float
    spacing: float
    count: int

    @property
    def last(self) -> float:
        return self.first + self.spacing * (self.count - 1)

    def knots(self) -> np.ndarray:
        return self.first + self.spacing * np.arange(self.count)

    def evaluate(self, coefficients: Tensor, x: Tensor, row: Tensor) -> Tensor:
        """The splines' values at x (E,), of `row` (E,) among coefficients (K, count - 1, 4); beyond the ends, the last piece."""
        piece = ((x.detach() - self.first) / self.spacing).floor().clamp(0, self.count - 2).nan_to_num(0.0).long()
        t = x - (self.first + self.spacing * piece)
        a, b, c, d = coefficients.reshape(-1, 4)[row * (self.count - 1) + piece].unbind(-1)
        return d + t * (c + t * (b + t * a))

    def coefficients(self, values: np.ndarray) -> Tensor:
        """Coefficients (K, count - 1, 4), highest power first, of the not-a-knot splines through values (K, count)."""
        from scipy.interpolate import CubicSpline

        fitted = CubicSpline(self.knots(), np.asarray(values, dtype=float), axis=-1, bc_type="not-a-knot").c
        return torch.from_numpy(np.ascontiguousarray(np.moveaxis(fitted, 0, -1).swapaxes(0, 1)))

    def differentiable(self, values: Tensor) -> Tensor:
        """The same from values that carry a gradient; for some hundreds of knots."""
        return (torch.from_numpy(_basis(self)).to(values) @ values.mT).movedim(-1, 0)


@lru_cache(maxsize=16)
def _basis(grid: Grid) -> np.ndarray:
    """The coefficients (count - 1, 4, count) as linear functions of the values."""
    # An array, for a tensor made under a transform of torch.func must not outlive it.
    from scipy.interpolate import CubicSpline

    fitted = CubicSpline(grid.knots(), np.eye(grid.count), axis=-1, bc_type="not-a-knot").c  # (4, count - 1, count)
    return np.ascontiguousarray(fitted.swapaxes(0, 1))
