"""Vectors of cells: numbers (E,) along a line, whose direction is their sign, or (E, d) in the plane or in space.

Numbers are told by their shape and have ways of their own here, so that edges pay for no tensors.
"""

from __future__ import annotations

import torch
from torch import Tensor

TINY = 1e-300
"""Squared lengths are at least this, so that the length of nothing has a derivative."""


def dot(one: Tensor, other: Tensor) -> Tensor:
    """The products (E,); a sum of columns takes a tenth of the time of a reduction over so few."""
    if one.dim() == 1:
        return one * other
    return torch.stack([a * b for a, b in zip(one.unbind(1), other.unbind(1))]).sum(0)


def size(vectors: Tensor) -> Tensor:
    """The lengths (E,)."""
    return vectors.abs() if vectors.dim() == 1 else dot(vectors, vectors).clamp(min=TINY).sqrt()


def scaled(factors: Tensor, vectors: Tensor) -> Tensor:
    """Vectors times factors (E,)."""
    return factors * vectors if vectors.dim() == 1 else factors[:, None] * vectors


def times(slope: Tensor, vectors: Tensor) -> Tensor:
    """slope v, for slopes (E,) or (E, d, d)."""
    if vectors.dim() == 1:
        return slope * vectors
    return torch.stack([dot(row, vectors) for row in slope.unbind(1)], 1)


def outer(one: Tensor, other: Tensor) -> Tensor:
    """The products (E,) or (E, d, d), shaped like a slope."""
    return one * other if one.dim() == 1 else one[:, :, None] * other[:, None, :]


def agreement(one: Tensor, other: Tensor) -> Tensor:
    """How far directions agree (E,): (1 + cosine) / 2, from 0 to 1; of numbers whether they have one sign, as bool."""
    if one.dim() == 1:
        return one * other > 0
    return 0.5 + 0.5 * dot(one, other) / (size(one) * size(other))


def direction(one: Tensor, other: Tensor, share: Tensor, agree: Tensor, take_other: Tensor) -> Tensor:
    """Unit vectors between the directions of both, by the other's share (E,), where they agree; else the chosen one."""
    if one.dim() == 1:
        return torch.where(take_other, other, one).sign()
    share = torch.where(agree, share, take_other.to(share))
    between = scaled((1.0 - share) / size(one), one) + scaled(share / size(other), other)
    return scaled(1.0 / size(between), between)


def slope_about(direction: Tensor, along: Tensor, across: Tensor) -> Tensor:
    """The slopes that are `along` (E,) in a direction and `across` (E,) at right angles to it."""
    if direction.dim() == 1:
        return along
    return isotropic(across, direction) + outer(scaled(along - across, direction), direction)


def isotropic(slope: Tensor, like: Tensor) -> Tensor:
    """Slopes (E,) that are the same in all directions of vectors like these."""
    if like.dim() == 1:
        return slope
    return slope[:, None, None] * torch.eye(like.shape[1], dtype=slope.dtype, device=slope.device)
