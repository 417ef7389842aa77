"""tr(C^p) of symmetric matrices, safe where eigenvalues coalesce.

The eigenvectors and eigenvalues are taken as numbers; the dependence on C is the third-order Taylor polynomial of the
trace about them, in divided differences of the derivative, so that three derivatives in C are exact everywhere (Daleckii
& Krein 1965; Higham 2008, ch. 3). Divided differences of close eigenvalues are integrals (Hermite-Genocchi).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

CLOSE = 0.4
"""Eigenvalues whose gap is below this fraction of their mean are close."""


def power_trace(c: Tensor, p: Tensor) -> Tensor:
    """tr(C^p) (..., N) of symmetric positive definite C (..., 3, 3) for exponents p (..., N).

    Differentiable three times in C and to any order in p.
    """
    values, vectors = torch.linalg.eigh(c.detach())
    change = vectors.mT @ c @ vectors - torch.diag_embed(values)
    x, d, p = values[..., None, :], change[..., None, :, :], p[..., None]
    first = p * x ** (p - 1.0)
    second = _first_difference(x[..., :, None], x[..., None, :], p[..., None])
    third = _second_difference(x, p)
    total = (x**p).sum(-1) + (first * d.diagonal(dim1=-2, dim2=-1)).sum(-1)
    total = total + 0.5 * (second * d * d).sum((-2, -1))
    return total + torch.einsum("...ijk,...ij,...jk,...ki->...", third, d, d, d) / 3.0


def _first_difference(x: Tensor, y: Tensor, p: Tensor) -> Tensor:
    """g[x, y] of g(x) = p x^(p-1)."""
    close = (x - y).abs() < CLOSE * 0.5 * (x + y)
    nodes, weights = _gauss(8, x)
    along = x.unsqueeze(-1) + torch.where(close, y - x, 0.0).unsqueeze(-1) * nodes
    q = p.unsqueeze(-1)
    integral = (q * (q - 1.0) * along ** (q - 2.0) * weights).sum(-1)
    gap = torch.where(close, torch.ones_like(x - y), x - y)
    return torch.where(close, integral, p * (x ** (p - 1.0) - y ** (p - 1.0)) / gap)


def _second_difference(x: Tensor, p: Tensor) -> Tensor:
    """g[x_i, x_j, x_k] (..., 3, 3, 3) of g(x) = p x^(p-1) for ascending x (..., 3); each unordered triple once."""
    triples = [(i, j, k) for i in range(3) for j in range(i, 3) for k in range(j, 3)]
    low, middle, high = (x[..., [triple[position] for triple in triples]] for position in range(3))
    close = (high - low) < CLOSE * 0.5 * (high + low)
    s, weight_s = _gauss(6, x)
    spread_m, spread_h = (torch.where(close, v - low, 0.0)[..., None, None] for v in (middle, high))
    along = low[..., None, None] + s[:, None] * (spread_m + s * (spread_h - spread_m))
    q = p[..., None, None]
    density = q * (q - 1.0) * (q - 2.0) * along ** (q - 3.0) * (weight_s * s)[:, None] * weight_s
    gap = torch.where(close, torch.ones_like(high), high - low)
    quotient = (_first_difference(middle, high, p) - _first_difference(low, middle, p)) / gap
    unique = torch.where(close, density.sum((-2, -1)), quotient)
    position = {triple: n for n, triple in enumerate(triples)}
    every = [sorted((i, j, k)) for i in range(3) for j in range(3) for k in range(3)]
    order = [position[i, j, k] for i, j, k in every]
    return unique[..., order].reshape(*unique.shape[:-1], 3, 3, 3)


def _gauss(count: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Gauss-Legendre nodes and weights on [0, 1]."""
    nodes, weights = np.polynomial.legendre.leggauss(count)
    return torch.as_tensor(0.5 * (nodes + 1.0)).to(like), torch.as_tensor(0.5 * weights).to(like)
