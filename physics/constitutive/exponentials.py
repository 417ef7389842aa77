"""Quotients of exponentials that lose all digits at zero when they are written as they look."""

from __future__ import annotations

import math

import torch
from torch import Tensor

SERIES, TERMS = 0.5, 14
"""Below this size of z the series is summed, with so many terms: to rounding, and with derivatives to rounding too."""


def phi_1(z: Tensor) -> Tensor:
    """(e^z - 1) / z, which is 1 at z = 0."""
    return _phi(z, 1)


def phi_2(z: Tensor) -> Tensor:
    """(e^z - 1 - z) / z^2, which is 1/2 at z = 0."""
    return _phi(z, 2)


def _phi(z: Tensor, order: int) -> Tensor:
    small = z.abs() < SERIES
    # Both branches of a where are differentiated, so each must be finite where the other one is taken.
    inside, outside = torch.where(small, z, 0.0), torch.where(small, 1.0, z)
    series = torch.full_like(z, 1.0 / math.factorial(order + TERMS))
    for k in range(TERMS - 1, -1, -1):
        series = 1.0 / math.factorial(order + k) + inside * series
    direct = torch.expm1(outside) / outside
    for k in range(1, order):
        direct = (direct - 1.0 / math.factorial(k)) / outside
    return torch.where(small, series, direct)
