"""Closed-form algebra of many 2 x 2 and 3 x 3 matrices at once, differentiable to any order."""

from __future__ import annotations

import torch
from torch import Tensor


def cofactor(a: Tensor) -> Tensor:
    """The cofactor matrices (..., d, d), d = 1, 2 or 3: the derivative of the determinant, det(a) a^-T."""
    d = a.shape[-1]
    if d == 1:
        return torch.ones_like(a)
    if d == 2:
        return torch.stack((a[..., 1, 1], -a[..., 1, 0], -a[..., 0, 1], a[..., 0, 0]), -1).reshape(a.shape)
    rows = a.unbind(-2)
    crosses = (torch.linalg.cross(rows[(i + 1) % 3], rows[(i + 2) % 3]) for i in range(3))
    return torch.stack(tuple(crosses), -2)


def determinant(a: Tensor) -> Tensor:
    """The determinants (...) of matrices (..., d, d), d = 1, 2 or 3."""
    if a.shape[-1] == 1:
        return a[..., 0, 0]
    if a.shape[-1] == 2:
        return a[..., 0, 0] * a[..., 1, 1] - a[..., 0, 1] * a[..., 1, 0]
    rows = a.unbind(-2)
    return (rows[0] * torch.linalg.cross(rows[1], rows[2])).sum(-1)


def inverse(a: Tensor) -> tuple[Tensor, Tensor]:
    """The inverses (..., d, d) and determinants (...)."""
    c = cofactor(a)
    det = (a[..., 0, :] * c[..., 0, :]).sum(-1)
    return c.mT / det[..., None, None], det


def outer(a: Tensor, b: Tensor) -> Tensor:
    """The products a_ij b_kl of matrices (..., d, d) as (..., d, d, d, d)."""
    return a[..., :, :, None, None] * b[..., None, None, :, :]
