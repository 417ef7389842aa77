"""What the Krylov methods share: rows of vectors, how a run ended, and what counts as solved.

Every method solves for right-hand sides (m, *batch, n) at once, each row its own system, and is measured by the true residual
b - A x, computed anew at the end.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Product = Callable[[Tensor], Tensor]
"""Rows (m, *batch, n) to rows of the same shape."""

LARGEST_FLOOR = 1e-6
"""Solutions so large that their rounding exceeds this share of the right-hand side are those of singular matrices."""
ROUNDING = 8.0
"""A residual below this many roundings of |A| |x| is as small as it can get; |A| is estimated from below."""


@dataclass
class Run:
    """How a Krylov method ended.

    x (m, *batch, n); residual (m, *batch): ||b - A x|| / ||b||, 0 where b = 0; solved (m, *batch): met the tolerance,
    or the rounding error of the product; negative (m, *batch): met a direction d with d.A d <= 0, given in
    `direction` (CG only).
    """

    x: Tensor
    residual: Tensor
    solved: Tensor
    products: int
    negative: Tensor
    direction: Tensor


def dot(x: Tensor, y: Tensor) -> Tensor:
    """Inner products row by row, (..., 1)."""
    return (x * y).sum(-1, keepdim=True)


def norm(x: Tensor) -> Tensor:
    """Norms row by row, (..., 1)."""
    return torch.linalg.vector_norm(x, dim=-1, keepdim=True)


def divide(numerator: Tensor, denominator: Tensor) -> Tensor:
    """The quotient, and zero where the denominator is zero."""
    return torch.where(denominator == 0, 0.0, numerator / torch.where(denominator == 0, 1.0, denominator))


def identity(rows: Tensor) -> Tensor:
    """No preconditioner."""
    return rows


def checked_run(
    product: Product, b: Tensor, x: Tensor, residual: Tensor, tolerance: float | Tensor, products: int
) -> Run:
    """How a run ended that stands at x with the true residual b - A x, after `products` products."""
    size, missed = norm(b), norm(residual)
    solved = missed <= tolerance * size
    if not bool(solved.all()):
        image, products = b - residual, products + 1
        largest = torch.maximum(divide(norm(image), norm(x)), divide(norm(product(image)), norm(image)))
        floor = ROUNDING * torch.finfo(b.dtype).eps * largest * norm(x)
        solved = solved | (missed <= torch.minimum(floor, LARGEST_FLOOR * size))
    none = torch.zeros_like(solved.squeeze(-1))
    return Run(x, divide(missed, size).squeeze(-1), solved.squeeze(-1), products, none, torch.zeros_like(x))
