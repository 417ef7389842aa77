"""Energies that split into cells, E(u) = sum over cells of psi(g) - f.u with g = B u + g0, as families of linear systems.

Newton's method linearises the flux q = psi'(g) of every cell about its present gradient. A linear system is just as
cheap about any other gradients, also such that belong to no u: with q = slope g + offset in every cell,

    B^T (slope (B u + g0) + offset) = f

gives gradients that belong to a u and fluxes that balance. Linearised about gradients that err by e, its solution errs by
O(e^2), so a network that predicts the solution's gradients from both gradients and fluxes saves factorisations.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from bilevel.linalg import factorise
from bilevel.linalg.operator import LinearOperator
from bilevel.linalg.solver import Factor


class CellLaw(ABC):
    """psi of every cell, by its derivatives; gradients, fluxes and slopes are (E,) with a sign of their own.

    exponent (E,): the degree p of psi. threshold (E,): a gradient below which psi is quadratic. conductance (E,): what
    multiplies psi. All three are known to the network.
    """

    exponent: Tensor
    threshold: Tensor
    conductance: Tensor

    @abstractmethod
    def flux(self, gradients: Tensor) -> Tensor:
        """psi' (E,), odd and increasing in the gradient; differentiable."""

    @abstractmethod
    def slope(self, gradients: Tensor) -> Tensor:
        """psi'' (E,); differentiable."""

    @abstractmethod
    def gradients(self, fluxes: Tensor) -> Tensor:
        """The positive gradients (E,) at which psi' equals the positive `fluxes` (E,); differentiable."""

    @classmethod
    @abstractmethod
    def joined(cls, laws: Sequence[Any]) -> CellLaw:
        """The law of all cells of several laws of this class in a row."""


class SplitProblem(ABC):
    """A problem at fixed parameters, seen cell by cell.

    cells (E, A): the nodes of each cell. nodes: how many there are. law: psi.
    """

    cells: Tensor
    nodes: int
    law: CellLaw

    @abstractmethod
    def gradients(self, u: Tensor) -> Tensor:
        """g (E,) at u (n,)."""

    @abstractmethod
    def first_slope(self) -> Tensor:
        """Slopes (E,) of the linear problem whose solution is the family's start."""

    @abstractmethod
    def matrix(self, slope: Tensor) -> LinearOperator:
        """B^T slope B."""

    @abstractmethod
    def divergence(self, fluxes: Tensor) -> Tensor:
        """B^T q (n,)."""

    @abstractmethod
    def imbalance(self, fluxes: Tensor) -> Tensor:
        """B^T q - f (n,): the residual of the fluxes."""

    def mean(self, values: Tensor) -> Tensor:
        """The mean of values (E,) over the cells of the problem, for each cell (E,)."""
        return values.mean().expand_as(values)

    def solve(self, slope: Tensor, offset: Tensor) -> tuple[Tensor, Tensor]:
        """u (n,) of the linear system above, and its gradients (E,); differentiable in slope and offset."""
        return _Linear.apply(self, slope, offset)


class _Linear(torch.autograd.Function):
    """(slope, offset) -> (u, gradients), with the adjoint of one linear solve as its derivative."""

    @staticmethod
    def forward(ctx: Any, split: SplitProblem, slope: Tensor, offset: Tensor) -> tuple[Tensor, Tensor]:
        factor: Factor = factorise(split.matrix(slope))
        still = split.gradients(slope.new_zeros(factor.A.n))
        u = -factor.solve(split.imbalance(slope * still + offset))
        gradients = split.gradients(u)
        ctx.split, ctx.factor = split, factor
        ctx.save_for_backward(gradients)
        ctx.still = still
        return u, gradients

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[None, Tensor, Tensor]:
        (gradients,) = ctx.saved_tensors
        of_u, of_gradients = cotangents
        adjoint = ctx.factor.solve(of_u + ctx.split.divergence(of_gradients))
        state = ctx.split.gradients(adjoint) - ctx.still
        return None, -state * gradients, -state
