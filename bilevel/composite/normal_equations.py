"""Solves with A^T A + rho: by Fourier transform for a convolution, by Cholesky otherwise."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from bilevel.linalg.linear_map import Convolution, LinearMap
from bilevel.report import InputError

Solve = Callable[[Tensor], Tensor]


def regularised_inverse(A: LinearMap, rho: float) -> Solve:
    """b (*batch, *domain) -> (A^T A + rho)^-1 b."""
    if not 0 < rho < torch.inf:
        raise InputError(f"the penalty rho must be positive and finite, got {rho:g}")
    if isinstance(A, Convolution):
        eigenvalues = A.transfer().abs().square() + rho
        return lambda b: torch.fft.irfft2(torch.fft.rfft2(b) / eigenvalues, s=A.domain)
    matrix = A.matrix()
    m, n = matrix.shape
    # Woodbury: factor the smaller of A A^T and A^T A.
    gram = matrix @ matrix.mT if m < n else matrix.mT @ matrix
    factor, info = torch.linalg.cholesky_ex(gram + rho * torch.eye(min(m, n)).to(gram))
    if int(info):
        raise InputError(
            f"A^T A + {rho:g} is singular in this precision: {rho:g} is lost beside |A|^2; take a larger one or float64"
        )

    def solve(b: Tensor) -> Tensor:
        columns = b.reshape(-1, n).mT
        if m < n:
            x = (columns - matrix.mT @ torch.cholesky_solve(matrix @ columns, factor)) / rho
        else:
            x = torch.cholesky_solve(columns, factor)
        return x.mT.reshape(b.shape)

    return solve
