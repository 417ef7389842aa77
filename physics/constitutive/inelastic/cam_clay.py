"""Modified Cam-Clay, implicit, with elasticity of a constant shear modulus or of a constant Poisson's ratio."""

from __future__ import annotations

from abc import abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor

from bilevel.report import InputError
from physics.constitutive.exponentials import phi_1
from physics.constitutive.inelastic.law import InelasticLaw, StateVariable, Values
from physics.constitutive.mandel import deviator, equivalent_stress, identity, mean_pressure, trace
from physics.local.parameters import LawParameter, LawParameters

CRITICAL_STATE = LawParameters(
    LawParameter(
        "compression_index", "", lower=0.0, description="lambda, slope of the normal compression line in e-ln p"
    ),
    LawParameter(
        "swelling_index",
        "",
        lower=0.0,
        below="compression_index",
        description="kappa, slope of the unloading line, is less than the compression index lambda",
    ),
    LawParameter("critical_ratio", "", lower=0.0, description="M, the ratio q/p at critical state"),
)


class _Terms(NamedTuple):
    """What the equations of one increment share: compression-positive volume changes and the split of the new state."""

    pressure: Tensor
    old_pressure: Tensor
    reference: Tensor
    volume: Tensor
    compression: Tensor
    shear_strain: Tensor
    old_shear: Tensor


class ModifiedCamClay(InelasticLaw):
    """f = q^2/M^2 + p (p - pc), associated flow, de = -lambda dp/p along normal compression (Roscoe & Burland 1968).

    State behind the stress: preconsolidation pressure pc (Pa), void ratio e, accumulated plastic multiplier (strain-like).
    Fully implicit (Borja & Lee 1990; Borja 1991) with the specific volume v at mid-increment; strains are logarithmic.
    The elastic stress follows from p = p_n exp(v de_v/kappa) and the shear modulus that the subclass gives.
    specific_volume: held at this value in the compression laws, as small-strain solutions do; None follows the void ratio.
    The exact implicit hardening law derives from no incremental potential, so both forms are residual problems.
    """

    parameters = CRITICAL_STATE
    variables = (
        StateVariable("preconsolidation", 1e5, initial=None),
        StateVariable("void_ratio", initial=None),
        StateVariable("plastic_multiplier"),
    )

    def __init__(self, specific_volume: float | None = None) -> None:
        self.specific_volume = specific_volume

    @abstractmethod
    def shear_modulus(self, stretch: Tensor, terms: _Terms, params: Values) -> Tensor:
        """G, Pa; stretch = ln(p/p_n) of the increment."""

    def initial_state(self, stress: Tensor, **variables: Tensor) -> Tensor:
        """As every law's; also raises InputError for tension, and for preconsolidation <= 0."""
        state = super().initial_state(stress, **variables)
        if bool((mean_pressure(stress) <= 0).any()):
            raise InputError(
                "Cam-Clay needs a positive mean pressure to start from; the initial stress is tensile or zero"
            )
        if bool((state[..., 6] <= 0).any()):
            raise InputError("preconsolidation must be positive (compression, Pa)")
        return state

    def yield_function(self, state: Tensor, params: Values) -> Tensor:
        """f / pc^2, dimensionless (*batch,)."""
        p, pc = mean_pressure(state[..., :6]), state[..., 6]
        q = equivalent_stress(state[..., :6])
        return ((q / params["critical_ratio"]) ** 2 + p * (p - pc)) / pc**2

    def residual(self, state: Tensor, increment: Tensor, previous: Tensor, params: Values) -> Tensor:
        terms = self._terms(state, increment, previous)
        stress, pc, void_ratio = state[..., :6], state[..., 6], state[..., 7]
        multiplier = state[..., 8] - previous[..., 8]
        p, reference = terms.pressure, terms.reference
        slope = torch.as_tensor(params["critical_ratio"])
        swelling = torch.as_tensor(params["swelling_index"])
        plastic_volume = multiplier * (2.0 * p - pc) / reference
        stretch = torch.log(p / terms.old_pressure)
        shear = self.shear_modulus(stretch, terms, params)
        softening = 1.0 + 6.0 * shear * multiplier / (slope**2 * reference)
        trial_shear = terms.old_shear + 2.0 * shear.unsqueeze(-1) * terms.shear_strain
        of_shear = (deviator(stress) * softening.unsqueeze(-1) - trial_shear) / reference.unsqueeze(-1)
        of_pressure = stretch - terms.volume * (terms.compression - plastic_volume) / swelling
        of_hardening = torch.log(pc / previous[..., 6]) - terms.volume * plastic_volume / (
            params["compression_index"] - swelling
        )
        of_void_ratio = void_ratio - (1.0 + previous[..., 7]) * torch.exp(-terms.compression) + 1.0
        of_yield = ((equivalent_stress(stress) / slope) ** 2 + p * (p - pc)) / reference**2
        # Complementarity of multiplier >= 0 and f <= 0, continuous between its branches; both are strain-like.
        strain_like = of_yield * (swelling / terms.volume).detach()
        of_multiplier = torch.where(multiplier + strain_like > 0, strain_like, -multiplier)
        isotropic = (of_pressure / 3.0).unsqueeze(-1) * identity(stress)
        return torch.cat([of_shear + isotropic, torch.stack([of_hardening, of_void_ratio, of_multiplier], -1)], -1)

    def _terms(self, state: Tensor, increment: Tensor, previous: Tensor) -> _Terms:
        compression = -trace(increment)
        volume = (1.0 + previous[..., 7]) * 0.5 * (1.0 + torch.exp(-compression))
        if self.specific_volume is not None:
            volume = torch.full_like(volume, self.specific_volume)
        return _Terms(
            pressure=mean_pressure(state[..., :6]),
            old_pressure=mean_pressure(previous[..., :6]),
            reference=previous[..., 6],
            volume=volume,
            compression=compression,
            shear_strain=deviator(increment),
            old_shear=deviator(previous[..., :6]),
        )

    def plastic_increment(self, state: Tensor, increment: Tensor, previous: Tensor, params: Values) -> Tensor:
        multiplier = (state[..., 8] - previous[..., 8]) / previous[..., 6]
        stress, pc = state[..., :6], state[..., 6]
        volumetric = multiplier * (2.0 * mean_pressure(stress) - pc) / 3.0
        deviatoric = 3.0 * multiplier / torch.as_tensor(params["critical_ratio"]) ** 2
        return deviatoric.unsqueeze(-1) * deviator(stress) - volumetric.unsqueeze(-1) * identity(stress)


class CamClayConstantShearModulus(ModifiedCamClay):
    """Hyperelastic: the stored energy is kappa p_n/v exp(v e_v/kappa) + G |dev e|^2, so elastic loops conserve energy."""

    parameters = CRITICAL_STATE + LawParameters(
        LawParameter("shear_modulus", "Pa", lower=0.0, description="elastic shear modulus")
    )

    def shear_modulus(self, stretch: Tensor, terms: _Terms, params: Values) -> Tensor:
        return torch.as_tensor(params["shear_modulus"]) + torch.zeros_like(stretch)


class CamClayConstantPoissonsRatio(ModifiedCamClay):
    """Hypoelastic: G follows the secant bulk modulus of the increment at a constant Poisson's ratio; no energy exists."""

    parameters = CRITICAL_STATE + LawParameters(
        LawParameter("poissons_ratio", "", lower=-1.0, upper=0.5, description="Poisson's ratio")
    )

    def shear_modulus(self, stretch: Tensor, terms: _Terms, params: Values) -> Tensor:
        poisson = torch.as_tensor(params["poissons_ratio"])
        tangent_bulk = terms.old_pressure * terms.volume / params["swelling_index"]
        return 1.5 * (1.0 - 2.0 * poisson) / (1.0 + poisson) * tangent_bulk * phi_1(stretch)
