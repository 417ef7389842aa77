"""Restarted GMRES (Saad and Schultz 1986, SIAM J. Sci. Stat. Comput. 7, 856), right-preconditioned, row by row."""

from __future__ import annotations

import torch
from torch import Tensor

from bilevel.linalg.krylov.rows import Product, Run, checked_run, divide, identity, norm


def gmres(
    product: Product,
    b: Tensor,
    *,
    tolerance: float | Tensor,
    max_iterations: int,
    restart: int = 50,
    precondition: Product = identity,
    start: Tensor | None = None,
) -> Run:
    """Solve A x = b for any regular A; b (m, *batch, n). Holds up to 2 `restart` vectors for each right-hand side."""
    x, residual, products = (torch.zeros_like(b), b, 0) if start is None else (start, b - product(start), 1)
    run = checked_run(product, b, x, residual, tolerance, products)
    while not bool(run.solved.all()) and run.products < max_iterations and bool(torch.isfinite(residual).all()):
        missed = torch.where(run.solved.unsqueeze(-1), 0.0, residual)
        steps = min(restart, max_iterations - run.products)
        step, used = _cycle(product, missed, tolerance * norm(b), steps, precondition)
        x = run.x + step
        residual = b - product(x)
        run = checked_run(product, b, x, residual, tolerance, run.products + used + 1)
    return run


def _cycle(product: Product, b: Tensor, target: Tensor, steps: int, precondition: Product) -> tuple[Tensor, int]:
    """One Arnoldi process, orthogonalised twice; the increment and the number of products."""
    size = norm(b)
    basis, images = [divide(b, size)], []
    hessenberg = b.new_zeros(*b.shape[:-1], steps + 1, steps)
    y = b.new_zeros(*b.shape[:-1], 0, 1)
    used = 0
    for j in range(steps):
        images.append(precondition(basis[-1]))  # kept, for a preconditioner may cost more than all else
        w = product(images[-1])
        v = torch.stack(basis, dim=-2)
        coefficients = torch.zeros_like(v[..., :1])
        for _ in range(2):
            along = v @ w.unsqueeze(-1)
            w = w - (v.mT @ along).squeeze(-1)
            coefficients = coefficients + along
        hessenberg[..., : j + 1, j] = coefficients.squeeze(-1)
        length = norm(w)
        if not bool(torch.isfinite(length).all()):
            break
        hessenberg[..., j + 1, j] = length.squeeze(-1)
        basis.append(divide(w, length))
        used = j + 1
        y, missed = _least_squares(hessenberg[..., : used + 1, :used], size)
        if not bool((missed > target).any()):
            break
    if used == 0:
        return torch.zeros_like(b), 1
    return (torch.stack(images[:used], dim=-1) @ y).squeeze(-1), used


def _least_squares(hessenberg: Tensor, size: Tensor) -> tuple[Tensor, Tensor]:
    """The shortest minimiser of |size e1 - H y|, and that minimum; H lacks full rank where a row broke down."""
    right = torch.zeros_like(hessenberg[..., :1])
    right[..., 0, :] = size
    y = torch.linalg.pinv(hessenberg) @ right
    return y, norm((right - hessenberg @ y).squeeze(-1))
