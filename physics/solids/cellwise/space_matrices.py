"""Closed-form algebra of many 3 x 3 matrices (..., 3, 3): rotations, and functions of symmetric matrices.

A function of a symmetric matrix is the quadratic polynomial that has its values at the three eigenvalues. Those of the
trigonometric formula may err by the root of the rounding error where two are close; the polynomial then errs by the
square of that.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from physics.discretisation.matrices import determinant
from physics.solids.cellwise.matrices import Matrices, product

TINY = 1e-24

CLOSE = 1e-10
"""Eigenvalues closer than this fraction of their size are moved apart, so that nothing is divided by zero."""


class SpaceMatrices(Matrices):
    """Rotations by a vector (Rodrigues); symmetric matrices by their three eigenvalues."""

    dim = 3
    turns = ("turn x", "turn y", "turn z")

    def rotation(self, turn: Tensor) -> Tensor:
        angle = (turn.square().sum(-1) + TINY).sqrt()
        x, y, z = turn.unbind(-1)
        zero = torch.zeros_like(x)
        spin = torch.stack((zero, -z, y, z, zero, -x, -y, x, zero), -1).unflatten(-1, (3, 3))
        first, second = angle.sin() / angle, 0.5 * torch.sinc(angle / (2.0 * math.pi)) ** 2
        unit = torch.eye(3, dtype=turn.dtype)
        return unit + first[..., None, None] * spin + second[..., None, None] * product(spin, spin)

    def turn_of(self, rotation: Tensor) -> Tensor:
        r = rotation
        axial = (r[..., 2, 1] - r[..., 1, 2], r[..., 0, 2] - r[..., 2, 0], r[..., 1, 0] - r[..., 0, 1])
        twice = torch.stack(axial, -1)
        sine = 0.5 * (twice.square().sum(-1) + TINY).sqrt()
        angle = torch.atan2(sine, 0.5 * (r[..., 0, 0] + r[..., 1, 1] + r[..., 2, 2] - 1.0))
        return 0.5 * (angle / sine)[..., None] * twice

    def nearest_rotation(self, a: Tensor) -> Tensor:
        return self._scaled(a, torch.ones_like)

    def symmetric_function(self, s: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
        eigenvalues = _eigenvalues(s)
        return _interpolated(s, eigenvalues, function(eigenvalues))

    def bounded(self, a: Tensor, low: float, high: float) -> Tensor:
        square, det = a.square().sum((-2, -1)), determinant(a)
        doubtful = (square > high**2) | (2.0 * det < low * square)  # the two larger stretches make at most square / 2
        result = a.clone()
        result[doubtful] = self._scaled(a[doubtful], lambda x: x.clamp(low, high))
        return result

    def _scaled(self, a: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
        """R f(U) of a = R U: a g(C) with C = a^T a and g(x^2) = f(x) / x, x < 0 for the least of inverted matrices."""
        squared = product(a.mT, a)
        eigenvalues = _eigenvalues(squared)
        stretches = eigenvalues.clamp(min=TINY).sqrt()
        stretches[2] = torch.where(determinant(a) < 0.0, -stretches[2], stretches[2])
        return product(a, _interpolated(squared, eigenvalues, function(stretches) / stretches))


def _eigenvalues(s: Tensor) -> Tensor:
    """The eigenvalues (3, ...) of symmetric matrices, the largest first. Source: Smith 1961."""
    xx, yy, zz, xy, xz, yz = (s[..., i, k] for i, k in ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2)))
    mean = (xx + yy + zz) / 3.0
    xx, yy, zz = xx - mean, yy - mean, zz - mean
    square = (xx**2 + yy**2 + zz**2 + 2.0 * (xy**2 + xz**2 + yz**2)) / 6.0
    radius = (square + TINY).sqrt()
    determinant = xx * (yy * zz - yz**2) - xy * (xy * zz - yz * xz) + xz * (xy * yz - yy * xz)
    angle = torch.acos((0.5 * determinant / radius**3).clamp(-1.0, 1.0)) / 3.0
    high, low = 2.0 * radius * angle.cos(), 2.0 * radius * (angle + 2.0 * math.pi / 3.0).cos()
    return mean + torch.stack((high, -high - low, low))


def _interpolated(s: Tensor, at: Tensor, values: Tensor) -> Tensor:
    """The quadratic polynomial of s with `values` (3, ...) at the eigenvalues `at` (3, ...), in Newton's form.

    The outer eigenvalues come first: what is divided by a small difference is then multiplied by one as small.
    """
    (high, middle, low), (first, second, third) = at, values
    least = CLOSE * (high.abs() + low.abs()) + TINY
    across, upper, lower = torch.maximum(high - low, least), high - middle, middle - low
    slope = (first - third) / across
    inner = (second - third) / torch.maximum(lower, least)
    bend = (slope - inner) / torch.maximum(upper, least)
    unit = torch.eye(3, dtype=s.dtype)
    from_high, from_low = (s - x[..., None, None] * unit for x in (high, low))
    quadratic = bend[..., None, None] * product(from_high, from_low)
    return third[..., None, None] * unit + slope[..., None, None] * from_low + quadratic
