"""Conjugate gradients (Hestenes and Stiefel 1952), preconditioned, row by row, with an eye for negative curvature."""

from __future__ import annotations

import torch
from torch import Tensor

from bilevel.linalg.krylov.rows import Product, Run, checked_run, divide, dot, identity, norm


def cg(
    product: Product,
    b: Tensor,
    *,
    tolerance: float | Tensor,
    max_iterations: int,
    precondition: Product = identity,
    start: Tensor | None = None,
) -> Run:
    """Solve A x = b for symmetric positive definite A and preconditioner; b (m, *batch, n).

    A row that meets a direction d with d.A d <= 0 stops there: it keeps its iterate, and the direction is given.
    """
    x = torch.zeros_like(b) if start is None else start
    residual = b.clone() if start is None else b - product(start)
    target = tolerance * norm(b)
    direction = torch.zeros_like(b)
    negative = torch.zeros_like(target, dtype=torch.bool)
    found = torch.zeros_like(b)
    last = torch.zeros_like(target)
    products = known = 0 if start is None else 1
    for _ in range(max_iterations):
        active = (norm(residual) > target) & ~negative
        if not bool(active.any()):
            break
        image = precondition(residual)
        energy = dot(residual, image)
        direction = image + divide(energy, last) * direction
        image, products = product(direction), products + 1
        curvature = dot(direction, image)
        bad = active & (curvature <= 0)
        found = torch.where(bad, direction, found)
        negative = negative | bad
        length = torch.where(active & ~negative, divide(energy, curvature), 0.0)
        x = x + length * direction
        residual = residual - length * image
        last = energy
    if products > known:  # the recurrence drifts from the true residual
        residual, products = b - product(x), products + 1
    run = checked_run(product, b, x, residual, tolerance, products)
    run.negative, run.direction = negative.squeeze(-1), found
    return run
