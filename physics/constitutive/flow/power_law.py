"""Flow whose flux grows with a power of the drop: head-loss laws of pipes, ice, non-Newtonian fluids, the p-Laplacian."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bilevel.problem import Params
from bilevel.report import InputError
from physics.constitutive.flow.law import Asymptotes, FlowLaw
from physics.local.parameters import LawParameter, LawParameters


@dataclass(frozen=True)
class PowerLaw(FlowLaw):
    """flux = C |drop|^(p-2) drop, smoothed below `threshold`: the p-Laplacian.

    params: C > 0, by the name `coefficient`. A head-loss law drop = R flux |flux|^(n-1) (Darcy-Weisbach n = 2,
    Hazen-Williams n = 1.852) is p = 1 + 1/n, C = R^(-1/n); see `from_loss_exponent`. Creeping ice is p = 4/3 (Glen 1955),
    turbulent filtration p = 3/2.
    The energy is C/p ((drop^2 + e^2)^(p/2) - e^p), e = threshold (Glowinski & Marrocco 1975, smoothed): without it the
    slope at rest is infinite for p < 2 and zero for p > 2. The relative bias of the flux is (p-2)/2 (e/drop)^2. Raises
    InputError unless p > 1 and e > 0.
    """

    exponent: float
    threshold: float = 1e-6
    coefficient: str = "conductance"
    parameters = LawParameters(LawParameter("conductance", lower=0.0))

    def __post_init__(self) -> None:
        if self.exponent <= 1.0:
            raise InputError(f"a power law needs an exponent p > 1 for its energy to be convex, got {self.exponent}")
        if self.threshold <= 0.0:
            raise InputError(f"a power law needs a positive threshold, got {self.threshold}")
        object.__setattr__(self, "parameters", LawParameters(LawParameter(self.coefficient, lower=0.0)))

    @staticmethod
    def from_loss_exponent(n: float, threshold: float = 1e-6) -> PowerLaw:
        """The law for drop = R flux |flux|^(n-1)."""
        if n <= 0.0:
            raise InputError(f"a head-loss exponent must be positive, got {n}")
        return PowerLaw(1.0 + 1.0 / n, threshold)

    def potential(self, drop: Tensor, params: Params) -> Tensor:
        square, p = drop.square() + self.threshold**2, self.exponent
        return params[self.coefficient] / p * (self._powered(square) * square - self.threshold**p)

    def flux(self, drop: Tensor, params: Params) -> Tensor:
        return self.secant(drop, params) * drop

    def secant(self, size: Tensor, params: Params) -> Tensor:
        return params[self.coefficient] * self._powered(size.square() + self.threshold**2)

    def secant_and_slope(self, size: Tensor, params: Params) -> tuple[Tensor, Tensor]:
        own = size.square()
        square = own + self.threshold**2
        secant = params[self.coefficient] * self._powered(square)
        return secant, secant * (1.0 + (self.exponent - 2.0) * own / square)

    def asymptotes(self, typical: Tensor, params: Params) -> Asymptotes:
        p, e = torch.full_like(typical, self.exponent), torch.full_like(typical, self.threshold)
        return Asymptotes(self.secant(torch.zeros_like(typical), params), e, p)

    def _powered(self, square: Tensor) -> Tensor:
        """square^(p/2-1); exp and log take half the time of a general power."""
        return ((0.5 * self.exponent - 1.0) * square.log()).exp()
