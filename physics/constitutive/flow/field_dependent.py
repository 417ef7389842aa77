"""Conduction whose conductivity depends on the field itself, such as unsaturated flow or heat in metals."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from bilevel.problem import Params
from physics.constitutive.law import Law
from physics.discretisation.matmul import matmul
from physics.local.density import Cells
from physics.local.parameters import LawParameter, LawParameters
from physics.local.residual import Flux


class FieldDependentConduction(Law, Flux):
    """s = (k f(u) g, 0) of x = (g, u), gradient and value (..., d + 1). params: conductivity k > 0."""

    parameters = LawParameters(LawParameter("conductivity", lower=0.0))

    @abstractmethod
    def relative(self, u: Tensor) -> Tensor:
        """The factor f(u) > 0 (...) by which fields (...) change the conductivity."""

    def relative_slope(self, u: Tensor) -> Tensor:
        """df/du (...)."""
        return torch.func.grad(lambda v: self.relative(v).sum())(u)

    def stress(self, x: Tensor, params: Params) -> Tensor:
        factor = params["conductivity"] * self.relative(x[..., -1])
        return torch.nn.functional.pad(factor.unsqueeze(-1) * x[..., :-1], (0, 1))

    def tangent(self, x: Tensor, params: Params, state_dims: int) -> Tensor:
        g, u, k = x[..., :-1], x[..., -1], params["conductivity"]
        result = x.new_zeros(*x.shape, x.shape[-1])
        result[..., :-1, -1] = (k * self.relative_slope(u)).unsqueeze(-1) * g
        result[..., :-1, :-1].diagonal(dim1=-2, dim2=-1).copy_((k * self.relative(u)).unsqueeze(-1))
        return result

    def element_matrices(self, x: Tensor, params: Params, cells: Cells) -> Tensor:
        # Contracted by hand: the tangent has no more entries than a scalar and a vector for each point.
        g, u, scale = x[..., :-1], x[..., -1], cells.weights * params["conductivity"]
        along = (scale * self.relative(u))[:, None, :, None] * cells.matrix[..., :-1]
        across = ((scale * self.relative_slope(u)).unsqueeze(-1) * g).unsqueeze(1) * cells.matrix[..., -1:]
        left, right = cells.matrix[..., :-1].flatten(2), (along + across).flatten(2)
        return matmul(left, right.mT).unsqueeze(0)


@dataclass(frozen=True)
class QuadraticConductivity(FieldDependentConduction):
    """f = 1 + coefficient u^2."""

    coefficient: float = 1.0

    def relative(self, u: Tensor) -> Tensor:
        return 1.0 + self.coefficient * u.square()

    def relative_slope(self, u: Tensor) -> Tensor:
        return 2.0 * self.coefficient * u
