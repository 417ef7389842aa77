"""Laws of flow along the edges of a network, as energies of the head drop: flux = d energy / d drop.

Each law has its potential, the flux and the conductance d flux / d drop in closed form.
Head drops in m, fluxes in m3/d; the drop of an edge is the head at its first node less the head at its second.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from bilevel.problem import Params
from bilevel.report import InputError
from physics.local.density import Cells, Density


class EdgeLaw(Density):
    """A scalar law between the drop and the flux of an edge; `params` holds tensors that broadcast with the drops.

    As a density it sees the difference x (..., 1) of an edge: the head at its second node less that at its first.
    """

    @abstractmethod
    def potential(self, drop: Tensor, params: Mapping[str, Tensor]) -> Tensor:
        """The energy whose derivative is the flux; convex and even in the drop."""

    @abstractmethod
    def flux(self, drop: Tensor, params: Mapping[str, Tensor]) -> Tensor:
        """The flux from the first node to the second; odd in the drop."""

    @abstractmethod
    def conductance(self, drop: Tensor, params: Mapping[str, Tensor]) -> Tensor:
        """The derivative of the flux with respect to the drop."""

    def energy(self, x: Tensor, params: Params) -> Tensor:
        return self.potential(x[..., 0], params)

    def stress(self, x: Tensor, params: Params) -> Tensor:
        return self.flux(x, {name: value.unsqueeze(-1) for name, value in params.items()})

    def tangent(self, x: Tensor, params: Params, state_dims: int) -> Tensor:
        return self.conductance(x[..., 0], params)[..., None, None]

    def element_matrices(self, x: Tensor, params: Params, cells: Cells) -> Tensor:
        if cells.matrix.shape[2:] != (1, 1) or cells.measure.matrix is not None:
            return super().element_matrices(x, params, cells)
        ends = cells.matrix[:, :, 0, 0]
        slopes = cells.weights * self.conductance(x[..., 0], params)
        return (slopes.unsqueeze(1) * ends.unsqueeze(2) * ends.unsqueeze(1)).unsqueeze(0)


class Linear(EdgeLaw):
    """flux = conductance * drop (Darcy 1856). params: conductance [m2/d]."""

    parameters = ("conductance",)

    def potential(self, drop: Tensor, params: Mapping[str, Tensor]) -> Tensor:
        return 0.5 * params["conductance"] * drop**2

    def flux(self, drop: Tensor, params: Mapping[str, Tensor]) -> Tensor:
        return params["conductance"] * drop

    def conductance(self, drop: Tensor, params: Mapping[str, Tensor]) -> Tensor:
        return params["conductance"] * torch.ones_like(drop)


@dataclass(frozen=True)
class PowerLaw(EdgeLaw):
    """flux = C |drop|^(p-2) drop, smoothed below `threshold`: the p-Laplacian of the network.

    params: conductance C. A head-loss law drop = R flux |flux|^(n-1) (Darcy-Weisbach n = 2, Hazen-Williams n = 1.852)
    is p = 1 + 1/n, C = R^(-1/n); see `from_loss_exponent`.
    The energy is C/p ((drop^2 + e^2)^(p/2) - e^p), e = threshold [m]: without it the conductance at rest is infinite
    for p < 2 and zero for p > 2. The relative bias of the flux is (p-2)/2 (e/drop)^2.
    """

    exponent: float
    threshold: float = 1e-6
    parameters = ("conductance",)

    def __post_init__(self) -> None:
        if self.exponent <= 1.0:
            raise InputError(f"a power law needs an exponent p > 1 for its energy to be convex, got {self.exponent}")
        if self.threshold <= 0.0:
            raise InputError(f"a power law needs a positive threshold drop, got {self.threshold}")

    @staticmethod
    def from_loss_exponent(n: float, threshold: float = 1e-6) -> PowerLaw:
        """The law for drop = R flux |flux|^(n-1)."""
        if n <= 0.0:
            raise InputError(f"a head-loss exponent must be positive, got {n}")
        return PowerLaw(1.0 + 1.0 / n, threshold)

    def potential(self, drop: Tensor, params: Mapping[str, Tensor]) -> Tensor:
        p, e = self.exponent, self.threshold
        return params["conductance"] / p * ((drop**2 + e**2) ** (p / 2.0) - e**p)

    def flux(self, drop: Tensor, params: Mapping[str, Tensor]) -> Tensor:
        return params["conductance"] * drop * (drop**2 + self.threshold**2) ** (self.exponent / 2.0 - 1.0)

    def conductance(self, drop: Tensor, params: Mapping[str, Tensor]) -> Tensor:
        p, e = self.exponent, self.threshold
        return params["conductance"] * ((p - 1.0) * drop**2 + e**2) * (drop**2 + e**2) ** (p / 2.0 - 2.0)


class Forchheimer(EdgeLaw):
    """drop = a flux + b flux |flux| (Forchheimer 1901). params: linear a [d/m2] > 0, quadratic b [d2/m5] >= 0.

    flux = 2 drop / (a + sqrt(a^2 + 4 b |drop|)); the energy is the Legendre transform a/2 flux^2 + 2/3 b |flux|^3.
    """

    parameters = ("linear", "quadratic")

    def potential(self, drop: Tensor, params: Mapping[str, Tensor]) -> Tensor:
        flux = self.flux(drop, params)
        return flux**2 * (0.5 * params["linear"] + 2.0 / 3.0 * params["quadratic"] * flux.abs())

    def flux(self, drop: Tensor, params: Mapping[str, Tensor]) -> Tensor:
        a, b = params["linear"], params["quadratic"]
        return 2.0 * drop / (a + torch.sqrt(a**2 + 4.0 * b * drop.abs()))

    def conductance(self, drop: Tensor, params: Mapping[str, Tensor]) -> Tensor:
        a, b = params["linear"], params["quadratic"]
        return torch.rsqrt(a**2 + 4.0 * b * drop.abs())
