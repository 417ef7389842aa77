"""tr(C^p) of symmetric matrices, safe where eigenvalues coalesce.

The eigenvectors and eigenvalues are taken as numbers; the dependence on C is the third-order Taylor polynomial of the
trace about them, in divided differences of the derivative, so that three derivatives in C are exact everywhere (Daleckii
& Krein 1965; Higham 2008, ch. 3). Divided differences of close eigenvalues are integrals (Hermite-Genocchi).
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
import torch
from torch import Tensor

from physics.constitutive.exponentials import phi_1, phi_2

CLOSE = 0.4
"""Eigenvalues whose gap is below this fraction of their mean are close."""


def power_trace(c: Tensor, p: Tensor) -> Tensor:
    """tr(C^p) (..., N) of symmetric positive definite C (..., 3, 3) for exponents p (..., N).

    Differentiable three times in C and to any order in p.
    """
    return _trace(_Power(), c, p)


def power_excess(c: Tensor, p: Tensor) -> Tensor:
    """(tr(C^p) - 3) / p^2 (..., N) of symmetric positive definite C (..., 3, 3) with det C = 1, for p (..., N).

    To full precision as p tends to 0, where it is half the sum of squared logarithms, and about C = I. Differentiable as
    `power_trace`.
    """
    return _trace(_Excess(), c, p)


def power_excess_of_values(x: Tensor, p: Tensor) -> Tensor:
    """`power_excess` (..., N) of eigenvalues x (..., 3) whose product is 1."""
    return _Excess().value(x[..., None, :], p[..., None]).sum(-1)


class _Function(ABC):
    """A function f(x; p) whose sum over the eigenvalues is wanted, with three derivatives in x."""

    @abstractmethod
    def value(self, x: Tensor, p: Tensor) -> Tensor: ...

    @abstractmethod
    def first(self, x: Tensor, p: Tensor) -> Tensor: ...

    @abstractmethod
    def second(self, x: Tensor, p: Tensor) -> Tensor: ...

    @abstractmethod
    def third(self, x: Tensor, p: Tensor) -> Tensor: ...


class _Power(_Function):
    """x^p."""

    def value(self, x: Tensor, p: Tensor) -> Tensor:
        return x**p

    def first(self, x: Tensor, p: Tensor) -> Tensor:
        return p * x ** (p - 1.0)

    def second(self, x: Tensor, p: Tensor) -> Tensor:
        return p * (p - 1.0) * x ** (p - 2.0)

    def third(self, x: Tensor, p: Tensor) -> Tensor:
        return p * (p - 1.0) * (p - 2.0) * x ** (p - 3.0)


class _Excess(_Function):
    """(x^p - 1 - p ln x) / p^2. The logarithms sum to ln det C = 0; taken away one by one, they leave no rounding behind."""

    def value(self, x: Tensor, p: Tensor) -> Tensor:
        log = torch.log(x)
        return log**2 * phi_2(p * log)

    def first(self, x: Tensor, p: Tensor) -> Tensor:
        return self._quotient(x, p) / x

    def second(self, x: Tensor, p: Tensor) -> Tensor:
        return (x**p - self._quotient(x, p)) / x**2

    def third(self, x: Tensor, p: Tensor) -> Tensor:
        return ((p - 3.0) * x**p + 2.0 * self._quotient(x, p)) / x**3

    @staticmethod
    def _quotient(x: Tensor, p: Tensor) -> Tensor:
        """(x^p - 1) / p."""
        log = torch.log(x)
        return log * phi_1(p * log)


def _trace(f: _Function, c: Tensor, p: Tensor) -> Tensor:
    """The sum (..., N) of f over the eigenvalues of C."""
    fixed = c.detach()
    finite = torch.isfinite(fixed).all(-1, keepdim=True).all(-2, keepdim=True)
    # LAPACK refuses NaN; a trial state that has some keeps it in `change`, for the solver to see.
    values, vectors = torch.linalg.eigh(torch.where(finite, fixed, torch.eye(3).to(fixed)))
    change = vectors.mT @ c @ vectors - torch.diag_embed(values)
    x, d, p = values[..., None, :], change[..., None, :, :], p[..., None]
    second = _first_difference(f, x[..., :, None], x[..., None, :], p[..., None])
    third = _second_difference(f, x, p)
    total = f.value(x, p).sum(-1) + (f.first(x, p) * d.diagonal(dim1=-2, dim2=-1)).sum(-1)
    total = total + 0.5 * (second * d * d).sum((-2, -1))
    return total + torch.einsum("...ijk,...ij,...jk,...ki->...", third, d, d, d) / 3.0


def _first_difference(f: _Function, x: Tensor, y: Tensor, p: Tensor) -> Tensor:
    """The divided difference f'[x, y]."""
    close = (x - y).abs() < CLOSE * 0.5 * (x + y)
    nodes, weights = _gauss(8, x)
    along = x.unsqueeze(-1) + torch.where(close, y - x, 0.0).unsqueeze(-1) * nodes
    integral = (f.second(along, p.unsqueeze(-1)) * weights).sum(-1)
    gap = torch.where(close, torch.ones_like(x - y), x - y)
    return torch.where(close, integral, (f.first(x, p) - f.first(y, p)) / gap)


def _second_difference(f: _Function, x: Tensor, p: Tensor) -> Tensor:
    """f'[x_i, x_j, x_k] (..., 3, 3, 3) for ascending x (..., 3); each unordered triple once."""
    triples = [(i, j, k) for i in range(3) for j in range(i, 3) for k in range(j, 3)]
    low, middle, high = (x[..., [triple[position] for triple in triples]] for position in range(3))
    close = (high - low) < CLOSE * 0.5 * (high + low)
    s, weight_s = _gauss(6, x)
    spread_m, spread_h = (torch.where(close, v - low, 0.0)[..., None, None] for v in (middle, high))
    along = low[..., None, None] + s[:, None] * (spread_m + s * (spread_h - spread_m))
    density = f.third(along, p[..., None, None]) * (weight_s * s)[:, None] * weight_s
    gap = torch.where(close, torch.ones_like(high), high - low)
    quotient = (_first_difference(f, middle, high, p) - _first_difference(f, low, middle, p)) / gap
    unique = torch.where(close, density.sum((-2, -1)), quotient)
    position = {triple: n for n, triple in enumerate(triples)}
    every = [sorted((i, j, k)) for i in range(3) for j in range(3) for k in range(3)]
    order = [position[i, j, k] for i, j, k in every]
    return unique[..., order].reshape(*unique.shape[:-1], 3, 3, 3)


def _gauss(count: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Gauss-Legendre nodes and weights on [0, 1]."""
    nodes, weights = np.polynomial.legendre.leggauss(count)
    return torch.as_tensor(0.5 * (nodes + 1.0)).to(like), torch.as_tensor(0.5 * weights).to(like)
