"""MINRES (Paige and Saunders 1975, SIAM J. Numer. Anal. 12, 617) for symmetric matrices, row by row."""

from __future__ import annotations

import torch
from torch import Tensor

from bilevel.linalg.krylov.rows import Product, Run, checked_run, divide, dot, identity, norm


def minres(
    product: Product,
    b: Tensor,
    *,
    tolerance: float,
    max_iterations: int,
    precondition: Product = identity,
) -> Run:
    """Solve A x = b for symmetric A and a symmetric positive definite preconditioner; b (m, *batch, n).

    The loop stops on the recurrence's residual in the preconditioner's norm; the true residual decides, and the method
    starts again from there while that helps.
    """
    target, residual = tolerance, b
    run = checked_run(product, b, torch.zeros_like(b), residual, tolerance, 0)
    while not bool(run.solved.all()) and run.products < max_iterations:
        share = divide(target * norm(b), norm(residual))
        step, used = _cycle(product, residual, share, max_iterations - run.products, precondition)
        missed = b - product(run.x + step)
        improved = norm(missed) < norm(residual)
        x, residual = torch.where(improved, run.x + step, run.x), torch.where(improved, missed, residual)
        better = checked_run(product, b, x, residual, tolerance, run.products + used + 1)
        if bool((better.residual > 0.5 * run.residual)[~better.solved].any()):
            return better
        run, target = better, 0.1 * target
    return run


def _cycle(product: Product, b: Tensor, tolerance: Tensor, limit: int, precondition: Product) -> tuple[Tensor, int]:
    """One Lanczos process with Givens rotations; the increment and the number of products."""
    x = torch.zeros_like(b)
    older, old = torch.zeros_like(b), b
    image = precondition(old)
    beta = dot(old, image).clamp(min=0).sqrt()
    beta_old = torch.zeros_like(beta)
    first = phi = beta
    cosine, sine = -torch.ones_like(beta), torch.zeros_like(beta)
    delta_bar, epsilon = torch.zeros_like(beta), torch.zeros_like(beta)
    way, way_old = torch.zeros_like(b), torch.zeros_like(b)
    for iteration in range(limit):
        if not bool((phi.abs() > tolerance * first).any()):
            return x, iteration
        v = divide(image, beta)
        y = product(v)
        if iteration:
            y = y - divide(beta, beta_old) * older
        alpha = dot(v, y)
        y = y - divide(alpha, beta) * old
        older, old = old, y
        image = precondition(y)
        beta_old, beta = beta, dot(y, image).clamp(min=0).sqrt()
        delta = cosine * delta_bar + sine * alpha
        gamma_bar = sine * delta_bar - cosine * alpha
        epsilon_next, delta_bar = sine * beta, -cosine * beta
        gamma = torch.hypot(gamma_bar, beta)
        cosine, sine = divide(gamma_bar, gamma), divide(beta, gamma)
        way_old, way = way, divide(v - epsilon * way_old - delta * way, gamma)
        x = x + cosine * phi * way
        phi, epsilon = sine * phi, epsilon_next
    return x, limit
