"""Composite problems: minimise f(x) + weight g(x), f smooth, g with a proximal operator."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from bilevel.composite import Number, Regulariser, require_nonnegative
from bilevel.linalg.linear_map import LinearMap
from bilevel.report import InputError, require_finite


class Smooth(ABC):
    """A differentiable convex function with one value per sample."""

    lipschitz: float | None = None
    """A bound on the gradient's Lipschitz constant, or None if unknown (the solver then backtracks)."""

    domain: tuple[int, ...] | None = None
    """The shape of one sample of x, where it is known."""

    @abstractmethod
    def value(self, x: Tensor) -> Tensor:
        """f(x), (*batch)."""

    @abstractmethod
    def gradient(self, x: Tensor) -> Tensor:
        """Shaped like x."""


class LeastSquares(Smooth):
    """f(x) = |A x - y|^2 / 2 for a linear map A and data y (*batch, *range)."""

    def __init__(self, A: LinearMap, data: Tensor) -> None:
        A.check_data(data)
        self.A, self.data = A, data
        self.lipschitz = A.norm() ** 2
        self.domain = A.domain

    def value(self, x: Tensor) -> Tensor:
        residual = self.A(x) - self.data
        return 0.5 * residual.square().flatten(residual.dim() - len(self.A.range)).sum(-1)

    def gradient(self, x: Tensor) -> Tensor:
        return self.A.adjoint(self.A(x) - self.data)


class SmoothFunction(Smooth):
    """A plain function f(x) -> (*batch), differentiated by autograd."""

    def __init__(self, function: Callable[[Tensor], Tensor], lipschitz: float | None = None) -> None:
        self.function, self.lipschitz = function, lipschitz

    def value(self, x: Tensor) -> Tensor:
        return self.function(x)

    def gradient(self, x: Tensor) -> Tensor:
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            return torch.autograd.grad(self.function(x).sum(), x)[0]


@dataclass
class Composite:
    """minimise f(x) + weight g(x); weight is a number, or broadcasts against x."""

    smooth: Smooth
    regulariser: Regulariser
    weight: Number = 1.0

    def __post_init__(self) -> None:
        require_nonnegative("the regularisation weight lambda", self.weight)

    @property
    def event_dims(self) -> int:
        return self.regulariser.event_dims

    def objective(self, x: Tensor) -> Tensor:
        """f(x) + weight g(x), (*batch)."""
        weight = self.weight
        if isinstance(weight, Tensor) and weight.dim() > 0:
            weight = weight.flatten(weight.dim() - self.event_dims)[..., 0]
        return self.smooth.value(x) + weight * self.regulariser.value(x)

    def gradient_step(self, x: Tensor, step: float) -> Tensor:
        """prox of weight g at x - step grad f(x): one forward-backward step."""
        return self.regulariser.prox(x - step * self.smooth.gradient(x), step * self.weight)

    def norm(self, d: Tensor) -> Tensor:
        """Euclidean norm per sample, (*batch)."""
        return torch.linalg.vector_norm(d.flatten(d.dim() - self.event_dims), dim=-1)

    def check_start(self, x0: Tensor) -> None:
        if x0.dim() < self.event_dims:
            raise InputError(f"the start has shape {tuple(x0.shape)}, the unknown has {self.event_dims} dimension(s)")
        domain = self.smooth.domain
        if domain is not None and tuple(x0.shape[x0.dim() - len(domain) :]) != domain:
            raise InputError(f"the start has shape {tuple(x0.shape)}, but the operator takes (*batch, {domain})")
        require_finite("the start", x0)


def require_iterations(limit: int) -> None:
    """Raise InputError unless an iteration may take at least one step."""
    if limit < 1:
        raise InputError(f"max_iterations must be at least 1, got {limit}")
