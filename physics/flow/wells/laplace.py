"""Inversion of Laplace transforms at real arguments (Stehfest 1970, Comm. ACM 13, 47 and 624)."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

TERMS = 10
"""Right to 2e-3 of the largest value for well functions. Each two terms more gain a digit and lose one to rounding, after which the
misfit of a calibration is no longer smooth enough to be minimised to its tolerance."""


@lru_cache(maxsize=1)
def _weights() -> Tensor:
    half = TERMS // 2
    weights = []
    for k in range(1, TERMS + 1):
        total = sum(
            j**half
            * math.factorial(2 * j)
            / (
                math.factorial(half - j)
                * math.factorial(j)
                * math.factorial(j - 1)
                * math.factorial(k - j)
                * math.factorial(2 * j - k)
            )
            for j in range((k + 1) // 2, min(k, half) + 1)
        )
        weights.append((-1) ** (half + k) * total)
    return torch.tensor(weights, dtype=torch.float64)


def arguments(time: Tensor) -> Tensor:
    """Where the transform is needed (..., TERMS) for its original at times (...) > 0."""
    return math.log(2.0) / time[..., None] * torch.arange(1.0, TERMS + 1, dtype=torch.float64)


def original(transform: Tensor, time: Tensor) -> Tensor:
    """The original (...) at times (...), from the transform at their `arguments`; smooth, not oscillating."""
    return math.log(2.0) / time * (transform * _weights()).sum(-1)
