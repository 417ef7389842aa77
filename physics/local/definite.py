"""Element matrices made positive semidefinite: Newton's method on energies that are not convex.

Absolute eigenvalues step away from saddles as far as clamped ones step along flat directions, and need fewer iterations
on bodies whose volumes change a lot (Chen, Liu, Levin, Zheng and Jacobson 2024, "Stabler neo-Hookean simulation: absolute
eigenvalue filtering for projected Newton", arXiv:2406.05928).
"""

from __future__ import annotations

import torch
from torch import Tensor

from physics.local.assembly import component_pairs

DEFINITE = 1e-9
"""What is added to a matrix, relative to its trace, before it is asked whether it is positive semidefinite."""


def absolute(planes: Tensor) -> Tensor:
    """Symmetric element matrices, given as planes (P, e, A, A) of pairs of components, with |eigenvalues|."""
    matrices = _joined(planes)
    size = matrices.diagonal(dim1=-2, dim2=-1).abs().sum(-1)
    lifted = matrices + (DEFINITE * size)[:, None, None] * torch.eye(matrices.shape[-1], dtype=matrices.dtype)
    bent = torch.linalg.cholesky_ex(lifted)[1] != 0
    if not bool(bent.any()):
        return planes
    values, vectors = torch.linalg.eigh(matrices[bent])
    changed = planes.clone()
    changed[:, bent] = _split(vectors @ (values.abs().unsqueeze(-1) * vectors.mT), len(planes))
    return changed


def _components(planes: int) -> int:
    """How many components make so many pairs (i, k), i <= k."""
    return int(((8 * planes + 1) ** 0.5 - 1) / 2)


def _joined(planes: Tensor) -> Tensor:
    """The matrices (e, C A, C A), component by component."""
    count = _components(len(planes))
    places = {pair: k for k, pair in enumerate(component_pairs(count))}
    rows = [
        torch.cat([planes[places[i, k]] if i <= k else planes[places[k, i]].mT for k in range(count)], -1)
        for i in range(count)
    ]
    return torch.cat(rows, -2)


def _split(matrices: Tensor, planes: int) -> Tensor:
    """The planes (P, e, A, A) of matrices (e, C A, C A)."""
    count = _components(planes)
    size = matrices.shape[-1] // count
    blocks = matrices.unflatten(-2, (count, size)).unflatten(-1, (count, size))  # (e, i, a, k, b)
    return torch.stack([blocks[:, i, :, k] for i, k in component_pairs(count)])
