"""Closed-form algebra of many 2 x 2 matrices (..., 2, 2): rotations, and functions of symmetric matrices."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

TINY = 1e-24


def rotation(angle: Tensor) -> Tensor:
    """The rotations (..., 2, 2) by angles (...)."""
    c, s = angle.cos(), angle.sin()
    return torch.stack((c, -s, s, c), -1).reshape(*angle.shape, 2, 2)


def angle_of(a: Tensor) -> Tensor:
    """The angles (...) of the rotations nearest to a, proper also where a is inverted."""
    return torch.atan2(a[..., 1, 0] - a[..., 0, 1], a[..., 0, 0] + a[..., 1, 1])


def symmetric_function(s: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
    """f(S) of symmetric matrices by their two eigenvalues."""
    mean = 0.5 * (s[..., 0, 0] + s[..., 1, 1])
    half = 0.5 * (s[..., 0, 0] - s[..., 1, 1])
    radius = torch.sqrt(half**2 + s[..., 0, 1] * s[..., 1, 0] + TINY)
    high, low = function(mean + radius), function(mean - radius)
    middle, slope = 0.5 * (high + low), 0.5 * (high - low) / radius
    unit = torch.eye(2, dtype=s.dtype)
    return middle[..., None, None] * unit + slope[..., None, None] * (s - mean[..., None, None] * unit)


def bounded(a: Tensor, low: float, high: float) -> Tensor:
    """a = R U with the eigenvalues of U, negative for inverted matrices, cut to [low, high]."""
    turn = rotation(angle_of(a))
    stretch = turn.mT @ a
    return turn @ symmetric_function(0.5 * (stretch + stretch.mT), lambda x: x.clamp(low, high))
