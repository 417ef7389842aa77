"""The quadratic model of an instance: a symmetric positive definite linear system as a problem of its own."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from bilevel.acceleration.family import Instance
from bilevel.linalg.operator import LinearOperator
from bilevel.problem import EnergyProblem, Params


class Quadratic(EnergyProblem):
    """E(u) = u.H u / 2 - b.u with H as it was assembled."""

    def __init__(self, matrix: LinearOperator, load: Tensor) -> None:
        self.matrix, self.load = matrix, load
        self.structure = matrix.structure

    def value(self, u: Tensor, params: Params) -> Tensor:
        return (u * (0.5 * self.matrix.matmul(u) - self.load)).sum(-1)

    def residual(self, u: Tensor, params: Params) -> Tensor:
        return self.matrix.matmul(u) - self.load

    def value_and_residual(self, u: Tensor, params: Params) -> tuple[Tensor, Tensor]:
        image = self.matrix.matmul(u)
        return (u * (0.5 * image - self.load)).sum(-1), image - self.load

    def tangent(self, u: Tensor, params: Params) -> LinearOperator:
        return self.matrix

    def product(self, u: Tensor, params: Params, x: Tensor) -> Tensor:
        return self.matrix.matmul(x)


@torch.no_grad()
def quadratic_model(instance: Instance) -> Instance:
    """The linear problem H u = b, H the tangent of the unloaded instance at rest, b from a state of random signs."""
    rest = torch.zeros_like(instance.start)
    params = instance.params if instance.path is None else instance.path(instance.params, 0.0)
    matrix = instance.problem.tangent(rest, params)
    guess = torch.randn(rest.shape, generator=torch.Generator().manual_seed(0), dtype=rest.dtype)
    problem = Quadratic(matrix, matrix.matmul(guess))
    return replace(instance, problem=problem, params=None, start=rest, cellwise=None, path=None, own_start=None)
