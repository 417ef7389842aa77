"""Linear flow whose conductivity differs between principal directions: the law of Darcy with a tensor."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from bilevel.problem import Params
from physics.constitutive.law import Law
from physics.local.density import Density
from physics.local.parameters import LawParameter, LawParameters


class AnisotropicConduction(Law, Density):
    """flux = K grad h with principal conductivities k, in the last principal direction k * anisotropy (Bear 1972, eq. 5.6.1).

    params: the coefficient k > 0 by its name, and "anisotropy", the ratio of vertical to horizontal conductivity in a
    section or in space. turn: angle of the first principal direction from the first axis in a plane, in rad, anticlockwise.
    """

    def __init__(self, coefficient: str, units: str, dim: int, turn: float = 0.0) -> None:
        self.coefficient = coefficient
        self.parameters = LawParameters(
            LawParameter(coefficient, units, lower=0.0),
            LawParameter("anisotropy", lower=0.0, description="conductivity of the last over the first direction"),
        )
        self.axes = torch.eye(dim, dtype=torch.float64)
        if turn:
            cos, sin = math.cos(turn), math.sin(turn)
            self.axes = torch.tensor([[cos, sin], [-sin, cos]], dtype=torch.float64)

    def matrix(self, params: Params) -> Tensor:
        """K (..., dim, dim)."""
        first = params[self.coefficient]
        last = first * params["anisotropy"]
        first, last = torch.broadcast_tensors(first, last)
        values = torch.stack([*[first] * (len(self.axes) - 1), last], -1)
        axes = self.axes.to(values)
        return torch.einsum("...k,ki,kj->...ij", values, axes, axes)

    def energy(self, x: Tensor, params: Params) -> Tensor:
        return 0.5 * (x * self.stress(x, params)).sum(-1)

    def stress(self, x: Tensor, params: Params) -> Tensor:
        return (self.matrix(params) * x.unsqueeze(-2)).sum(-1)

    def tangent(self, x: Tensor, params: Params, state_dims: int) -> Tensor:
        return self.matrix(params).expand(*x.shape, x.shape[-1])
