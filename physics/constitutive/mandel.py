"""Symmetric tensors as Mandel vectors, and the invariants that soil mechanics speaks in.

A symmetric tensor is a vector (..., 6) = (xx, yy, zz, √2 yz, √2 xz, √2 xy), so that dot products are double contractions.
Tension is positive; the mean stress p and the volumetric compression of soil mechanics are minus a third of the trace
and minus the trace.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

ROOT2 = math.sqrt(2.0)
TINY = 1e-30


def identity(like: Tensor) -> Tensor:
    """The unit tensor (6,)."""
    return like.new_tensor([1.0, 1.0, 1.0, 0.0, 0.0, 0.0])


def trace(a: Tensor) -> Tensor:
    """Trace (...,)."""
    return a[..., 0] + a[..., 1] + a[..., 2]


def deviator(a: Tensor) -> Tensor:
    """a - tr(a)/3 I."""
    return a - (trace(a) / 3.0).unsqueeze(-1) * identity(a)


def dot(a: Tensor, b: Tensor) -> Tensor:
    """Double contraction a : b."""
    return (a * b).sum(-1)


def norm(a: Tensor, dim: int = -1) -> Tensor:
    """Frobenius norm of vectors along a dimension; its derivative at zero is zero."""
    square = (a * a).sum(dim)
    zero = square <= TINY
    return torch.where(zero, torch.zeros_like(square), torch.sqrt(torch.where(zero, torch.ones_like(square), square)))


def mean_pressure(stress: Tensor) -> Tensor:
    """p = -tr(stress)/3, positive in compression."""
    return -trace(stress) / 3.0


def equivalent_stress(stress: Tensor) -> Tensor:
    """q = √(3/2) |dev stress|, never negative."""
    return math.sqrt(1.5) * norm(deviator(stress))


def determinant(a: Tensor) -> Tensor:
    """Determinant of the symmetric tensor."""
    xx, yy, zz, yz, xz, xy = a.unbind(-1)
    return xx * (yy * zz - yz**2 / 2) - yy * xz**2 / 2 - zz * xy**2 / 2 + yz * xz * xy / ROOT2


def to_matrix(a: Tensor) -> Tensor:
    """The symmetric matrix (..., 3, 3)."""
    xx, yy, zz, yz, xz, xy = a.unbind(-1)
    yz, xz, xy = yz / ROOT2, xz / ROOT2, xy / ROOT2
    return torch.stack([xx, xy, xz, xy, yy, yz, xz, yz, zz], -1).unflatten(-1, (3, 3))


def from_matrix(m: Tensor) -> Tensor:
    """The Mandel vector of a matrix (..., 3, 3), whose symmetric part is taken."""
    shear = [(m[..., i, j] + m[..., j, i]) / ROOT2 for i, j in ((1, 2), (0, 2), (0, 1))]
    return torch.stack([m[..., 0, 0], m[..., 1, 1], m[..., 2, 2], *shear], -1)


def axisymmetric(axial: Tensor, radial: Tensor) -> Tensor:
    """diag(axial, radial, radial): the axis of a specimen is x."""
    zero = torch.zeros_like(axial)
    return torch.stack([axial, radial, radial, zero, zero, zero], -1)
