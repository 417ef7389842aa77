"""J2 (von Mises) plasticity at small strains with isotropic hardening, by the implicit radial return."""

from __future__ import annotations

import torch
from torch import Tensor

from physics.constitutive.inelastic.hardening import Hardening, LinearHardening
from physics.constitutive.inelastic.law import ReturnMapping, StateVariable, Values
from physics.constitutive.inelastic.radial_return import ReturnStep, consistent_tangent, radial_return
from physics.constitutive.lame import ELASTIC, LameParameters


class J2Plasticity(ReturnMapping):
    """√(3/2) |dev stress| = flow stress(equivalent plastic strain), associated (Simo & Hughes 1998, section 3.3).

    State behind the stress: the equivalent plastic strain.
    """

    variables = (StateVariable("plastic_strain"),)

    def __init__(self, hardening: Hardening | None = None) -> None:
        self.hardening = hardening or LinearHardening()
        self.parameters = ELASTIC + self.hardening.parameters

    def advance(self, increment: Tensor, previous: Tensor, params: Values) -> Tensor:
        step = self._step(increment, previous, params)
        return torch.cat([step.stress.movedim(0, -1), step.plastic_strain.unsqueeze(-1)], -1)

    def consistent_tangent(self, state: Tensor, increment: Tensor, previous: Tensor, params: Values) -> Tensor:
        moduli = LameParameters.of(params)
        step = self._step(increment, previous, params)
        slope = self.hardening.slope(step.plastic_strain, params)
        return consistent_tangent(step, moduli.bulk_modulus, moduli.mu, slope).movedim((0, 1), (-2, -1))

    def _step(self, increment: Tensor, previous: Tensor, params: Values) -> ReturnStep:
        moduli = LameParameters.of(params)
        increment, stress = torch.broadcast_tensors(increment, previous[..., :6])
        old = previous[..., 6].expand(increment.shape[:-1])

        def growth(size: Tensor, plastic_strain: Tensor) -> Tensor:
            return self.hardening.growth(size, plastic_strain, 3.0 * moduli.mu, params)

        entries = stress.movedim(-1, 0), old, increment.movedim(-1, 0)
        return radial_return(*entries, moduli.bulk_modulus, moduli.mu, growth)
