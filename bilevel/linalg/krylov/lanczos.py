"""The ends of the spectrum of a symmetric operator, by Lanczos with full orthogonalisation, row by row."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bilevel.linalg.direct.condition import random_signs
from bilevel.linalg.krylov.rows import Product, divide, identity, norm


@dataclass
class Ritz:
    """Ritz values (*batch, k), ascending, and vectors (*batch, n, k); NaN where the operator is not finite."""

    values: Tensor
    vectors: Tensor


def lanczos(product: Product, start: Tensor, steps: int, project: Product = identity) -> Ritz:
    """The Rayleigh-Ritz values of a symmetric operator on the Krylov space of `start` (*batch, n).

    project: onto the subspace of interest, which the operator maps to itself; applied to every vector, because rounding
    would lead out of it once the Krylov space is exhausted.
    """
    start = project(start)
    basis = [divide(start, norm(start))]
    images: list[Tensor] = []
    size = torch.zeros_like(start[..., :1])
    for step in range(steps):
        images.append(project(product(basis[-1])))
        if step == steps - 1:
            break
        v = torch.stack(basis, dim=-1)
        w = images[-1]
        size = torch.maximum(size, norm(w))
        for _ in range(2):
            w = project(w - (v @ (v.mT @ w.unsqueeze(-1))).squeeze(-1))
        length = norm(w)
        exhausted = length <= 1e-12 * size
        if bool(exhausted.all()):
            break
        basis.append(torch.where(exhausted, 0.0, divide(w, length)))
    v = torch.stack(basis, dim=-1)
    projected = v.mT @ torch.stack(images, dim=-1)
    # Rows whose Krylov space was exhausted carry zero vectors: give those the mean curvature, which is no extreme.
    empty = norm(v.mT).squeeze(-1) == 0
    mean = projected.diagonal(dim1=-2, dim2=-1).sum(-1, keepdim=True) / (~empty).sum(-1, keepdim=True)
    projected = 0.5 * (projected + projected.mT) + torch.diag_embed(torch.where(empty, mean, 0.0))
    finite = torch.isfinite(projected).all(-1, keepdim=True).all(-2, keepdim=True)
    values, turn = torch.linalg.eigh(torch.where(finite, projected, 0.0))  # eigh raises an error of its own at a NaN
    return Ritz(values.masked_fill(~finite.squeeze(-1), torch.nan), v @ turn)


def start_vector(n: int, batch: tuple[int, ...], like: Tensor) -> Tensor:
    """A fixed start (*batch, n) that is almost never orthogonal to anything."""
    return random_signs(n).to(like).expand(*batch, n)
