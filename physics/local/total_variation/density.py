"""Smoothed total variation and the misfit at nodes."""

from __future__ import annotations

import torch
from torch import Tensor

from bilevel.problem import Params
from physics.local.density import Density
from physics.local.parameters import LawParameter, LawParameters


class SmoothedVariation(Density):
    """psi = weight (sqrt(|g|^2 + smoothing^2) - smoothing). Source: Rudin, Osher & Fatemi 1992; Vogel & Oman 1996."""

    parameters = LawParameters(LawParameter("weight"), LawParameter("smoothing"))

    def energy(self, x: Tensor, params: Params) -> Tensor:
        return params["weight"] * (self._root(x, params) - params["smoothing"])

    def stress(self, x: Tensor, params: Params) -> Tensor:
        return x * (params["weight"] / self._root(x, params)).unsqueeze(-1)

    def tangent(self, x: Tensor, params: Params, state_dims: int) -> Tensor:
        root = self._root(x, params)
        unit = torch.eye(x.shape[-1]).to(x)
        along = x.unsqueeze(-1) * x.unsqueeze(-2) / root[..., None, None] ** 2
        return (unit - along) * (params["weight"] / root)[..., None, None]

    def _root(self, x: Tensor, params: Params) -> Tensor:
        return (x.square().sum(-1) + params["smoothing"] ** 2).sqrt()


class Misfit(Density):
    """psi = mass / 2 (u - value)^2."""

    parameters = LawParameters(LawParameter("mass"), LawParameter("value"))

    def energy(self, x: Tensor, params: Params) -> Tensor:
        return 0.5 * params["mass"] * (x[..., 0, 0] - params["value"]).square()

    def stress(self, x: Tensor, params: Params) -> Tensor:
        return (params["mass"] * (x[..., 0, 0] - params["value"]))[..., None, None].expand(x.shape)

    def tangent(self, x: Tensor, params: Params, state_dims: int) -> Tensor:
        return params["mass"].reshape(-1, 1, *[1] * (2 * state_dims)).expand(*x.shape, *[1] * state_dims)
