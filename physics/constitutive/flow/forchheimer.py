"""Flow with inertia."""

from __future__ import annotations

import torch
from torch import Tensor

from bilevel.problem import Params
from physics.constitutive.flow.law import Asymptotes, FlowLaw
from physics.local.parameters import LawParameter, LawParameters


class Forchheimer(FlowLaw):
    """drop = a flux + b flux |flux| (Forchheimer 1901). params: linear a [d/m2] > 0, quadratic b [d2/m5] >= 0.

    flux = 2 drop / (a + sqrt(a^2 + 4 b |drop|)); the energy is the Legendre transform a/2 flux^2 + 2/3 b |flux|^3. The
    degree falls from 2 far below the drop a^2 / 4b to 3/2 far above it.
    """

    parameters = LawParameters(
        LawParameter("linear", "d/m2", lower=0.0), LawParameter("quadratic", "d2/m5", lower=0.0, closed=True)
    )

    def potential(self, drop: Tensor, params: Params) -> Tensor:
        flux = self.flux(drop, params)
        return flux**2 * (0.5 * params["linear"] + 2.0 / 3.0 * params["quadratic"] * flux.abs())

    def flux(self, drop: Tensor, params: Params) -> Tensor:
        return self.secant(drop, params) * drop

    def secant(self, size: Tensor, params: Params) -> Tensor:
        return 2.0 / (params["linear"] + self._root(size, params))

    def secant_and_slope(self, size: Tensor, params: Params) -> tuple[Tensor, Tensor]:
        root = self._root(size, params)
        return 2.0 / (params["linear"] + root), 1.0 / root

    def asymptotes(self, typical: Tensor, params: Params) -> Asymptotes:
        a, b = params["linear"], params["quadratic"]
        # Where half of the loss is inertial, which is what the shipped guesses know; the lines meet at four times that.
        return Asymptotes(1.0 / a, a**2 / (4.0 * b), torch.full_like(typical, 1.5))

    def log_size(self, flux: Tensor, asymptotes: Asymptotes, params: Params) -> Tensor:
        return (flux * (params["linear"] + params["quadratic"] * flux)).log()

    def _root(self, size: Tensor, params: Params) -> Tensor:
        return torch.sqrt(params["linear"] ** 2 + 4.0 * params["quadratic"] * size.abs())
