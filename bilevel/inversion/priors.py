"""Priors: what is believed of the unknown, each with its solver; all minimise |A x - y|^2 / 2 + lambda g(x)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from math import prod
from typing import ClassVar

import torch
from torch import Tensor

import bilevel
from bilevel.composite import (
    FISTA,
    L1,
    AnalysisNorm,
    Composite,
    CompositeSolver,
    LeastSquares,
    Number,
    PrimalDual,
    Restart,
    SplitBregman,
    TotalVariation,
    regularised_inverse,
)
from bilevel.inversion.networks.plug_and_play import PnPProximalGradient
from bilevel.linalg.linear_map import Convolution, LinearMap
from bilevel.report import InputError
from bilevel.solvers import Tolerance

DENSE_UNKNOWNS = 2500
"""Up to here total variation is minimised with a dense factorisation."""


class Prior(ABC):
    """One way to regularise; `solve` gives the estimate at a given lambda."""

    quadratic: ClassVar[bool] = False
    """whether the penalty is a square"""

    @abstractmethod
    def solve(self, A: LinearMap, y: Tensor, weight: float, start: Tensor | None = None) -> Tensor:
        """The estimate (*domain) from data y (*range), at lambda = `weight` > 0; `start` only speeds it up."""

    @abstractmethod
    def penalty(self, x: Tensor) -> float:
        """g(x): the ordinate of the L-curve."""

    @abstractmethod
    def scale(self, A: LinearMap, y: Tensor) -> float:
        """A lambda of natural size, which follows the units of operator, data and g; searches are relative to it."""

    def freedom(self, A: LinearMap, y: Tensor, weight: float, x: Tensor) -> float:
        """Effective degrees of freedom, the divergence of A x(y): by a Monte-Carlo difference (Ramani, Blu, Unser 2008)."""
        probe = torch.randn(y.shape, generator=torch.Generator().manual_seed(0), dtype=y.dtype).to(y.device)
        step = 1e-3 * float(y.norm()) / y.numel() ** 0.5
        moved = self.solve(A, y + step * probe, weight, x)
        return float((probe * (A(moved) - A(x))).sum()) / step

    def state(self, A: LinearMap, y: Tensor, log_weight: Tensor) -> Tensor | None:
        """The estimate as a differentiable function of log lambda, through an implicit layer; None if it has none."""
        return None


class Tikhonov(Prior):
    """g(x) = |L x|^2 / 2, with L the identity or a given matrix (k, n) such as first differences."""

    quadratic = True

    def __init__(self, L: Tensor | None = None) -> None:
        self.L = L

    def solve(self, A: LinearMap, y: Tensor, weight: float, start: Tensor | None = None) -> Tensor:
        right = A.adjoint(y)
        if self.L is None:
            return regularised_inverse(A, weight)(right)
        return self._normal(A, weight, right.reshape(-1, 1)).reshape(A.domain)

    def penalty(self, x: Tensor) -> float:
        return 0.5 * float((x if self.L is None else self.L.to(x) @ x.reshape(-1)).square().sum())

    def scale(self, A: LinearMap, y: Tensor) -> float:
        """|A|^2 / |L|^2, where the data weigh as much as the prior; zero without data."""
        roughness = 1.0 if self.L is None else float(torch.linalg.matrix_norm(self.L.to(y), 2))
        if roughness == 0:
            raise InputError("the smoothing matrix is zero, so it is no prior")
        return (A.norm() / roughness) ** 2 if bool((A.adjoint(y) != 0).any()) else 0.0

    def freedom(self, A: LinearMap, y: Tensor, weight: float, x: Tensor) -> float:
        """trace of A (A^T A + lambda L^T L)^-1 A^T, exactly."""
        if self.L is None and isinstance(A, Convolution):
            power = torch.fft.fft2(A.kernel).abs().square()
            return float((power / (power + weight)).sum())
        matrix = A.matrix()
        if self.L is None:
            power = torch.linalg.svdvals(matrix).square()
            return float((power / (power + weight)).sum())
        return float((matrix * self._normal(A, weight, matrix.mT).mT).sum())

    def state(self, A: LinearMap, y: Tensor, log_weight: Tensor) -> Tensor:
        L = self.L

        def energy(x: Tensor, p: dict[str, Tensor]) -> Tensor:
            roughness = x if L is None else L.to(x) @ x.reshape(-1)
            return 0.5 * (A(x) - p["y"]).square().sum() + 0.5 * p["log_weight"].exp() * roughness.square().sum()

        start = self.solve(A, y, float(log_weight.detach().exp()))
        solver = bilevel.Newton(tolerance=Tolerance(relative=1e-8, absolute=1e-8 * float(A.adjoint(y).norm())))
        return bilevel.argmin(energy, start, {"y": y, "log_weight": log_weight}, solver=solver).u

    def _normal(self, A: LinearMap, weight: float, right: Tensor) -> Tensor:
        matrix = A.matrix()
        assert self.L is not None
        L = self.L.to(matrix)
        if L.shape[1] != matrix.shape[1]:
            raise InputError(f"the smoothing matrix has {L.shape[1]} columns, but there are {matrix.shape[1]} unknowns")
        factor, info = torch.linalg.cholesky_ex(matrix.mT @ matrix + weight * L.mT @ L)
        if int(info) != 0:
            raise InputError("operator and smoothing matrix share a null space; the estimate is not unique")
        return torch.cholesky_solve(right, factor)


class L1Prior(Prior):
    """g(x) = sum |x_i|: sparse unknowns."""

    def __init__(self, solver: CompositeSolver | None = None) -> None:
        self.solver = solver or FISTA(max_iterations=50_000, restart=Restart.GRADIENT)

    def solve(self, A: LinearMap, y: Tensor, weight: float, start: Tensor | None = None) -> Tensor:
        return self._minimiser(A, y, weight, start)

    def penalty(self, x: Tensor) -> float:
        return float(x.abs().sum())

    def scale(self, A: LinearMap, y: Tensor) -> float:
        """|A^T y|_max: from there on the estimate is zero."""
        return float(A.adjoint(y).abs().max())

    def freedom(self, A: LinearMap, y: Tensor, weight: float, x: Tensor) -> float:
        """The number of nonzero entries (Zou, Hastie, Tibshirani 2007)."""
        return float((x != 0).sum())

    def state(self, A: LinearMap, y: Tensor, log_weight: Tensor) -> Tensor:
        return self._minimiser(A, y, log_weight.exp(), None)

    def _minimiser(self, A: LinearMap, y: Tensor, weight: Number, start: Tensor | None) -> Tensor:
        norm = L1()
        norm.event_dims = len(A.domain)
        return _minimise(Composite(LeastSquares(A, y), norm, weight), A, y, start, self.solver)


class TotalVariationPrior(Prior):
    """g = total variation of a picture, or of node values on a graph (pass a `GraphTotalVariation`).

    solver: split Bregman up to 2,500 unknowns, where a dense factorisation is quick, and primal-dual splitting above.
    """

    def __init__(self, norm: AnalysisNorm | None = None, solver: CompositeSolver | None = None) -> None:
        self.norm = norm or TotalVariation()
        self.solver = solver

    def solve(self, A: LinearMap, y: Tensor, weight: float, start: Tensor | None = None) -> Tensor:
        small = prod(A.domain) <= DENSE_UNKNOWNS
        solver = self.solver or (SplitBregman(tolerance=Tolerance(1e-5)) if small else PrimalDual())
        return _minimise(Composite(LeastSquares(A, y), self.norm, weight), A, y, start, solver)

    def penalty(self, x: Tensor) -> float:
        return float(self.norm.value(x))

    def scale(self, A: LinearMap, y: Tensor) -> float:
        """|A^T y|_max / |D|: about where the estimate begins to have edges."""
        return float(A.adjoint(y).abs().max()) / self.norm.norm_squared**0.5


class LearnedPrior(Prior):
    """A denoiser as prior: the plug-and-play fixed point, with lambda as the denoiser's scale (`Denoiser.forward`).

    Accelerated, so the denoiser must be a proximal operator (`ConvexDenoiser`), unless `accelerate` is off.
    """

    def __init__(
        self, denoiser: Callable[[Tensor, float], Tensor], accelerate: bool = True, tolerance: float = 1e-5
    ) -> None:
        self.denoiser, self.accelerate, self.tolerance = denoiser, accelerate, tolerance

    def solve(self, A: LinearMap, y: Tensor, weight: float, start: Tensor | None = None) -> Tensor:
        if len(A.domain) != 2:
            raise InputError(
                f"a denoiser is a prior for pictures (height, width), but the unknown has shape {A.domain}"
            )
        scheme = PnPProximalGradient(
            lambda v: self.denoiser(v, weight),
            accelerate=self.accelerate,
            tolerance=self.tolerance,
            max_iterations=5000,
        )
        return scheme.restore(A, y, start).x

    def penalty(self, x: Tensor) -> float:
        """|x - D(x)|^2 / 2: how much of x the denoiser would take away, at x's own range of values."""
        with torch.no_grad():
            return 0.5 * float((x - self.denoiser(x, max(float(x.abs().max()), 1e-300))).square().sum())

    def scale(self, A: LinearMap, y: Tensor) -> float:
        """The range of values of the simplest estimate, A^T y / |A|^2."""
        return float(A.adjoint(y).abs().max()) / A.norm() ** 2 if bool((y != 0).any()) else 0.0


def _minimise(problem: Composite, A: LinearMap, y: Tensor, start: Tensor | None, solver: CompositeSolver) -> Tensor:
    """The minimiser from `start`, or from zero."""
    x0 = torch.zeros(A.domain, dtype=y.dtype, device=y.device) if start is None else start
    return bilevel.fixed_point(problem, x0, solver=solver).u
