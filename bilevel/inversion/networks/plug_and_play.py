"""Plug-and-play: a denoiser in the place of a proximal operator, in proximal gradient and in ADMM.

Sources: Venkatakrishnan, Bouman, Wohlberg 2013 (PnP-ADMM); Kamilov, Mansour, Wohlberg 2017 (PnP proximal gradient);
Ryu, Liu, Wang, Chen, Wang, Yin 2019 (convergence).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

import bilevel
from bilevel.composite import regularised_inverse
from bilevel.composite.solver import require_iterations
from bilevel.inversion.networks.guards import Certificate, jacobian_norm
from bilevel.linalg.linear_map import LinearMap
from bilevel.report import ConvergenceError, InputError, OnFail, fail, require_finite

Denoise = Callable[[Tensor], Tensor]


@dataclass
class Restoration:
    """The restored pictures and the certificate of the iteration that made them."""

    x: Tensor
    certificate: Certificate


@dataclass
class PnPProximalGradient:
    """x <- D(x - step A^T (A x - y)); step defaults to 1 / |A|^2, and at most 2 / |A|^2 is nonexpansive.

    accelerate: Nesterov extrapolation with restart whenever it points uphill; sound when D is a proximal operator.
    tolerance: on |x - T(x)| / |x|, worst picture.
    """

    denoiser: Denoise
    step: float | None = None
    accelerate: bool = True
    tolerance: float = 1e-6
    max_iterations: int = 2000

    def restore(self, A: LinearMap, y: Tensor, x0: Tensor | None = None, on_fail: OnFail = "raise") -> Restoration:
        """Restore pictures from y (*batch, *range); raises ConvergenceError where the iteration does not converge."""
        A.check_data(y)
        require_iterations(self.max_iterations)
        lipschitz = A.norm() ** 2
        step = 1 / lipschitz if self.step is None else self.step
        if not 0 < step <= 2 / lipschitz:
            raise InputError(
                f"the step {step:g} lies outside (0, {2 / lipschitz:g}], where the gradient step is nonexpansive"
            )

        def map(x: Tensor) -> Tensor:
            return self.denoiser(x - step * A.adjoint(A(x) - y))

        with torch.no_grad():
            x = A.adjoint(y) if x0 is None else _checked(x0, A)
            x, residuals, reached = self._iterate(map, x)
            return _finish(self.denoiser, x, residuals, reached, on_fail)

    def _iterate(self, map: Denoise, x: Tensor) -> tuple[Tensor, list[float], bool]:
        dims = (-2, -1)
        point, previous, age = x, x, torch.ones_like(x[..., :1, :1])
        residuals: list[float] = []
        for _ in range(self.max_iterations):
            new = map(point)
            size = torch.linalg.vector_norm(new, dim=dims).clamp_min(torch.finfo(new.dtype).tiny)
            change = torch.linalg.vector_norm(new - point, dim=dims) / size
            residuals.append(float(change.max()))
            if residuals[-1] <= self.tolerance:
                return new, residuals, True
            if not residuals[-1] < 1e6:
                return new, residuals, False
            if not self.accelerate:
                point = new
                continue
            uphill = ((point - new) * (new - previous)).sum(dims, keepdim=True) > 0
            age = torch.where(uphill, torch.ones_like(age), age)
            older = 0.5 * (1 + (1 + 4 * age.square()).sqrt())
            beta = torch.where(uphill, 0.0, (age - 1) / older)
            point, previous, age = new + beta * (new - previous), new, older
        return new, residuals, False


@dataclass
class PnPADMM:
    """x <- (A^T A + rho)^-1 (A^T y + rho (z - u)); z <- D(x + u); u <- u + x - z.

    Its fixed points are those of `PnPProximalGradient` with step 1 / rho: x = D(x - A^T (A x - y) / rho). Where D is the
    proximal operator of g, both minimise |A x - y|^2 / 2 + rho g(x). So rho defaults to |A|^2, as the step to 1 / |A|^2.
    tolerance: on the relative change |x - z| + |z - z_previous| against |x|, worst picture.
    """

    denoiser: Denoise
    rho: float | None = None
    tolerance: float = 1e-6
    max_iterations: int = 2000

    def restore(self, A: LinearMap, y: Tensor, x0: Tensor | None = None, on_fail: OnFail = "raise") -> Restoration:
        """Restore pictures from y (*batch, *range); raises ConvergenceError where the iteration does not converge."""
        A.check_data(y)
        require_iterations(self.max_iterations)
        rho = A.norm() ** 2 if self.rho is None else self.rho
        invert = regularised_inverse(A, rho)
        back = A.adjoint(y)
        with torch.no_grad():
            z = back if x0 is None else _checked(x0, A)
            u = torch.zeros_like(z)
            residuals: list[float] = []
            reached = False
            for _ in range(self.max_iterations):
                x = invert(back + rho * (z - u))
                new = self.denoiser(x + u)
                u = u + x - new
                size = x.norm(dim=(-2, -1)).clamp_min(torch.finfo(x.dtype).tiny)
                change = ((x - new).norm(dim=(-2, -1)) + (new - z).norm(dim=(-2, -1))) / size
                residuals.append(float(change.max()))
                z, reached = new, residuals[-1] <= self.tolerance
                if reached or not residuals[-1] < 1e6:
                    break
            return _finish(self.denoiser, z, residuals, reached, on_fail)


def _checked(x0: Tensor, A: LinearMap) -> Tensor:
    if tuple(x0.shape[-len(A.domain) :]) != A.domain:
        raise InputError(f"the start has shape {tuple(x0.shape)}, but the operator takes (*batch, {A.domain})")
    require_finite("the start", x0)
    return x0


def _finish(denoiser: Denoise, x: Tensor, residuals: list[float], reached: bool, on_fail: OnFail) -> Restoration:
    """Certify the end point: Jacobian norm of 2 D - 1 there, and the history relative to its start."""
    finite = bool(torch.isfinite(x).all())
    norm = float("inf")
    if finite:
        pictures = x.reshape(-1, *x.shape[-2:])
        norm = float(jacobian_norm(lambda v: 2 * denoiser(v) - v, pictures).max())
    certificate = Certificate(norm, 1.0, tuple(residuals), reached)
    if not reached:
        fail(certificate.verdict if not certificate.stable else _not_yet(certificate), on_fail, ConvergenceError)
    return Restoration(x, certificate)


def _not_yet(certificate: Certificate) -> str:
    return f"the iteration contracts but has not reached its tolerance; raise max_iterations ({certificate.verdict})"


class UnrolledADMM(torch.nn.Module):
    """`depth` iterations of PnP-ADMM as a network: trains the denoiser and rho end to end.

    The x-update minimises misfit(x, y) + rho |x - v|^2 / 2 with `bilevel.argmin` and is differentiated implicitly, so
    the misfit may be any smooth function (x, y) -> scalar, and the inner solver's iterations are never taped.
    """

    def __init__(
        self, denoiser: torch.nn.Module, misfit: Callable[[Tensor, Tensor], Tensor], depth: int = 5, rho: float = 0.1
    ) -> None:
        super().__init__()
        if rho <= 0:
            raise InputError(f"the penalty rho must be positive, got {rho:g}")
        if depth < 1:
            raise InputError(f"a network has at least one layer, got depth {depth}")
        self.denoiser, self.misfit, self.depth = denoiser, misfit, depth
        self.log_rho = torch.nn.Parameter(torch.tensor(rho, dtype=torch.float64).log())

    def forward(self, y: Tensor, x0: Tensor) -> Tensor:
        """The estimate (height, width) from data y, starting from x0."""
        rho = self.log_rho.exp().to(x0)
        z, u = x0, torch.zeros_like(x0)
        for _ in range(self.depth):
            x = self._data_step(y, z - u, rho, z.detach())
            z = self.denoiser(x + u)
            u = u + x - z
        return z

    def _data_step(self, y: Tensor, v: Tensor, rho: Tensor, start: Tensor) -> Tensor:
        def energy(x: Tensor, params: dict[str, Tensor]) -> Tensor:
            return self.misfit(x, params["y"]) + 0.5 * params["rho"] * (x - params["v"]).square().sum()

        return bilevel.argmin(energy, start, {"y": y, "v": v, "rho": rho}).u
