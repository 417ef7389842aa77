"""Composite problems: minimise f(x) + weight g(x), f smooth, g with a proximal operator.

The minimisers are the fixed points of the forward-backward map x -> prox(x - s grad f(x)), whatever the step s > 0
(Combettes & Wajs 2005, proposition 3.1). So a composite problem is a `FixedPoint`: `bilevel.fixed_point` takes it with
any solver of this package, and differentiates its solution by the implicit function theorem.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bilevel.composite.regularisers import Number, Regulariser, require_nonnegative
from bilevel.linalg.linear_map import LinearMap
from bilevel.problem import FixedPoint, Params
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

    @abstractmethod
    def collect(self, params: Params) -> Params:
        """The tensors that the function depends on, its own and the given ones."""

    @abstractmethod
    def at(self, params: Params) -> Smooth:
        """The function with the tensors that `collect` gave, or others in their place."""


class LeastSquares(Smooth):
    """f(x) = |A x - y|^2 / 2 for a linear map A and data y (*batch, *range); differentiable in y."""

    lipschitz: float

    def __init__(self, A: LinearMap, data: Tensor) -> None:
        A.check_data(data)
        self.A, self.data = A, data
        with torch.no_grad():  # only a step follows from it, which no solution depends on
            self.lipschitz = A.norm() ** 2
        self.domain = A.domain

    def value(self, x: Tensor) -> Tensor:
        residual = self.A(x) - self.data
        return 0.5 * residual.square().flatten(residual.dim() - len(self.A.range)).sum(-1)

    def gradient(self, x: Tensor) -> Tensor:
        return self.A.adjoint(self.A(x) - self.data)

    def collect(self, params: Params) -> Params:
        if params is not None:
            raise InputError("a least-squares misfit has its data and takes no parameters beside them")
        return self.data

    def at(self, params: Params) -> LeastSquares:
        moved = copy.copy(self)
        moved.data = params
        return moved


class SmoothFunction(Smooth):
    """A plain function f(x), or f(x, params) -> (*batch), differentiated by torch.func."""

    def __init__(self, function: Callable[..., Tensor], lipschitz: float | None = None) -> None:
        self.function, self.lipschitz = function, lipschitz

    def value(self, x: Tensor) -> Tensor:
        return self.function(x)

    def gradient(self, x: Tensor) -> Tensor:
        return torch.func.grad(lambda v: self.function(v).sum())(x)

    def collect(self, params: Params) -> Params:
        return params

    def at(self, params: Params) -> SmoothFunction:
        if params is None:
            return self
        return SmoothFunction(lambda x: self.function(x, params), self.lipschitz)


@dataclass
class Composite(FixedPoint):
    """minimise f(x) + weight g(x); weight is a number, or a tensor that broadcasts against x (and is differentiable)."""

    smooth: Smooth
    regulariser: Regulariser
    weight: Number = 1.0

    def __post_init__(self) -> None:
        require_nonnegative("the regularisation weight lambda", self.weight)
        self.shape: tuple[int, ...] = ()

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

    def collect(self, params: Params) -> dict[str, Any]:
        return {"smooth": self.smooth.collect(params), "weight": self.weight}

    def at(self, params: dict[str, Any]) -> Composite:
        """The problem with the tensors that `collect` gave, or others in their place."""
        # A copy, not a new one: the constructor reads the weight, which a transform under way does not allow.
        moved = copy.copy(self)
        moved.smooth, moved.weight = self.smooth.at(params["smooth"]), params["weight"]
        return moved

    def for_unknown(self, u0: Tensor) -> Composite:
        self._check_start(u0)
        ready = copy.copy(self)
        ready.batch_dims = u0.dim() - self.event_dims
        ready.shape = tuple(u0.shape[ready.batch_dims :])
        return ready

    def shaped(self, u: Tensor) -> Tensor:
        """A vector (*batch, n) in the unknown's own shape."""
        return u.reshape(*u.shape[:-1], *self.shape)

    def map(self, u: Tensor, params: Params) -> Tensor:
        problem = self.at(params)
        return problem.gradient_step(self.shaped(u), 1 / (self.smooth.lipschitz or 1.0)).reshape(u.shape)

    def probe(self, u: Tensor, params: Params) -> Tensor:
        # Without the prox: total variation's is dear, and is not meant to be differentiated.
        problem = self.at(params)
        return problem.smooth.gradient(self.shaped(u)) + problem.weight

    def _check_start(self, x0: Tensor) -> None:
        if x0.dim() < self.event_dims:
            raise InputError(f"the start has shape {tuple(x0.shape)}, the unknown has {self.event_dims} dimension(s)")
        domain = self.smooth.domain
        if domain is not None and tuple(x0.shape[x0.dim() - len(domain) :]) != domain:
            raise InputError(f"the start has shape {tuple(x0.shape)}, but the operator takes (*batch, {domain})")
        require_finite("the start", x0)
