"""Sensible starting values from closed forms: slopes of e-ln p, the ratio q/p at the end of shearing, angles from it."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from bilevel.report import InputError


def compression_slope(pressure: Tensor, void_ratio: Tensor) -> float:
    """The slope -de/d ln p by linear regression: lambda on first loading, kappa on unloading.

    pressure (rows,) Pa > 0, void_ratio (rows,). Raises InputError for fewer than two rows or pressures that are not positive.
    """
    if len(pressure) < 2 or bool((pressure <= 0).any()):
        raise InputError("a compression slope needs at least two rows with positive pressure")
    x = torch.log(pressure)
    x, y = x - x.mean(), void_ratio - void_ratio.mean()
    return -float((x * y).sum() / (x * x).sum())


def compression_and_swelling(pressure: Tensor, void_ratio: Tensor) -> tuple[float, float]:
    """lambda from the steepest three rows in succession at new maximum pressure, kappa from the first unloading."""
    virgin = pressure >= torch.cummax(pressure, 0).values
    x, e = pressure[virgin], void_ratio[virgin]
    if len(x) < 3:
        raise InputError("the compression slope needs at least three rows of first loading")
    steepest = max(compression_slope(x[k : k + 3], e[k : k + 3]) for k in range(len(x) - 2))
    falling = torch.nonzero(torch.diff(pressure) < 0).flatten()
    if len(falling) < 1:
        raise InputError("the swelling slope needs an unloading branch")
    first = int(falling[0])
    count = int((torch.diff(pressure)[first:] >= 0).to(torch.int).argmax()) or len(pressure) - 1 - first
    branch = slice(first, first + count + 1)
    return steepest, compression_slope(pressure[branch], void_ratio[branch])


def critical_ratio(deviator: Tensor, pressure: Tensor, last: int = 3) -> float:
    """M as the mean of q/p over the last rows of shearing."""
    return float((deviator[-last:] / pressure[-last:]).mean())


def friction_angle(ratio: float) -> float:
    """The friction angle, rad, of a ratio q/p in triaxial compression: sin = 3 M/(6 + M)."""
    return math.asin(3.0 * ratio / (6.0 + ratio))


def dilatancy_angle(axial_strain: Tensor, volumetric_strain: Tensor) -> float:
    """The dilatancy angle, rad, at the steepest dilation of a triaxial test: sin = r/(2 + r), r = -d eps_v/d |eps_a|.

    Compression is negative in both (tension positive); 0 where the specimen only contracts.
    """
    rate = torch.diff(volumetric_strain) / torch.diff(axial_strain).abs()
    steepest = max(float(rate.max()), 0.0)
    return math.asin(steepest / (2.0 + steepest))
