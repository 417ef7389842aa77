"""Hypoplasticity of sand (von Wolffersdorff 1996), integrated by the implicit midpoint rule."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from bilevel.report import InputError
from physics.constitutive.inelastic.hypoplastic_slopes import EYE, UNIT, Array, rate_slopes
from physics.constitutive.inelastic.law import InelasticLaw, StateVariable, Values
from physics.constitutive.inelastic.linearised import LinearisedResidual, Slopes
from physics.constitutive.mandel import TINY, determinant, dot, identity, mean_pressure, norm, trace
from physics.local.parameters import LawParameter, LawParameters

HYPOPLASTIC = LawParameters(
    LawParameter("friction_angle", "rad", lower=0.0, upper=math.pi / 2, description="critical friction angle"),
    LawParameter("granular_hardness", "Pa", lower=0.0, description="granulate hardness hs"),
    LawParameter("hardness_exponent", "", lower=0.0, upper=1.0, description="exponent n of the compression law"),
    LawParameter("void_ratio_min", "", lower=0.0, description="ed0, densest packing at zero pressure"),
    LawParameter(
        "void_ratio_critical", "", above="void_ratio_min", lower=0.0, description="ec0 lies between ed0 and ei0"
    ),
    LawParameter(
        "void_ratio_max", "", above="void_ratio_critical", lower=0.0, description="ei0, loosest packing, exceeds ec0"
    ),
    LawParameter("pyknotropy", "", lower=0.0, description="alpha, exponent of the density factor fd"),
    LawParameter("barotropy", "", lower=0.0, description="beta, exponent of the density factor in fs"),
)


class Rate(NamedTuple):
    """The stress rate is L : D + N |D|; both parts for a given stress and void ratio."""

    linear: Tensor
    """L : D for the given strain rate (*batch, 6)."""
    nonlinear: Tensor
    """N (*batch, 6)."""


class Hypoplastic(InelasticLaw):
    """dT = fs/tr(T^2) (F^2 D + a^2 T tr(T D) + fd a F (T + T*) |D|), T = stress/trace (von Wolffersdorff 1996, eq. 2).

    State behind the stress: the void ratio. Strains are logarithmic, so e follows from their trace exactly. The rate is
    evaluated at the middle of the increment, which makes the update second-order accurate and implicit.
    Raises InputError for a start outside compression.
    """

    parameters = HYPOPLASTIC
    variables: tuple[StateVariable, ...] = (StateVariable("void_ratio", initial=None),)

    def initial_state(self, stress: Tensor, **variables: Tensor) -> Tensor:
        """As every law's; also raises InputError unless every normal stress is compressive."""
        if bool((stress[..., :3] >= 0).any()):
            raise InputError(
                "hypoplastic sand must start from compression in all directions; give a small isotropic pressure"
            )
        return super().initial_state(stress, **variables)

    def residual(self, state: Tensor, increment: Tensor, previous: Tensor, params: Values) -> Tensor:
        void_ratio = (1.0 + previous[..., 6]) * torch.exp(trace(increment)) - 1.0
        middle = 0.5 * (previous[..., :6] + state[..., :6])
        rate = self.rate(middle, 0.5 * (previous[..., 6] + void_ratio), increment, params)
        change = rate.linear + rate.nonlinear * norm(increment).unsqueeze(-1)
        stiffness = 100.0 * mean_pressure(previous[..., :6]).unsqueeze(-1)
        of_stress = (state[..., :6] - previous[..., :6] - change) / stiffness
        return torch.cat([of_stress, (state[..., 6] - void_ratio).unsqueeze(-1)], -1)

    def linearised(self, state: Tensor, increment: Tensor, previous: Tensor, values: Values) -> LinearisedResidual:
        if type(self).residual is not Hypoplastic.residual or state.device.type != "cpu":
            return super().linearised(state, increment, previous, values)
        return _Linearised(state, increment, previous, values)

    def rate(self, stress: Tensor, void_ratio: Tensor, strain_rate: Tensor, params: Values) -> Rate:
        """The two parts of the stress rate; Pa per unit of the strain rate's time."""
        ratio = stress / trace(stress).unsqueeze(-1)
        unit = identity(stress)
        offset = ratio - unit / 3.0
        sine = torch.sin(torch.as_tensor(params["friction_angle"]))
        a = math.sqrt(3.0 / 8.0) * (3.0 - sine) / sine
        lode = _lode_factor(offset)
        density, stiffness = _factors(mean_pressure(stress), void_ratio, a, params)
        prefactor = (stiffness / dot(ratio, ratio)).unsqueeze(-1)
        along = (a**2 * dot(ratio, strain_rate)).unsqueeze(-1) * ratio
        linear = prefactor * ((lode**2).unsqueeze(-1) * strain_rate + along)
        nonlinear = prefactor * (density * a * lode).unsqueeze(-1) * (ratio + offset)
        return Rate(linear, nonlinear)


class _Linearised(LinearisedResidual):
    """The residual of `Hypoplastic` with derivatives in closed form."""

    def __init__(self, state: Tensor, increment: Tensor, previous: Tensor, values: Values) -> None:
        new, strain, old = state.numpy(), increment.numpy(), previous.numpy()
        numbers = {name: value.numpy() for name, value in values.items()}
        self._grown = np.exp(strain[..., :3].sum(-1))
        void_ratio = (1.0 + old[..., 6]) * self._grown - 1.0
        middle = 0.5 * (old[..., :6] + new[..., :6])
        with np.errstate(all="ignore"):  # a trial state in tension is not a number, which the solver sees
            self._rate = rate_slopes(middle, 0.5 * (old[..., 6] + void_ratio), strain, numbers)
        self._stiffness = (-100.0 / 3.0 * old[..., :3].sum(-1))[..., None, None]
        of_stress = (new[..., :6] - old[..., :6] - self._rate.rate) / self._stiffness[..., 0]
        self._residual = np.concatenate([of_stress, (new[..., 6] - void_ratio)[..., None]], -1)
        self._new_void_ratio = (1.0 + void_ratio)[..., None, None] * UNIT  # by the increment
        self._names = list(values)
        self.residual = torch.from_numpy(self._residual)

    def by_new(self) -> tuple[Tensor, Tensor]:
        rate = self._rate
        by_state = self._square(EYE - 0.5 * rate.by_stress, 0.0, 1.0)
        by_strain = rate.by_strain + 0.5 * rate.by_void_ratio[..., None] * self._new_void_ratio
        by_increment = np.concatenate([-by_strain / self._stiffness, -self._new_void_ratio], -2)
        return torch.from_numpy(by_state), torch.from_numpy(by_increment)

    def slopes(self) -> Slopes:
        rate = self._rate
        by_stress = 100.0 / 3.0 * self._residual[..., :6, None] * UNIT - EYE - 0.5 * rate.by_stress
        by_void_ratio = -0.5 * (1.0 + self._grown)[..., None] * rate.by_void_ratio
        by_previous = self._square(by_stress, by_void_ratio, -self._grown)
        by_values = np.zeros((*self._residual.shape, len(self._names)))
        for k, name in enumerate(self._names):
            if name in rate.by_values:
                by_values[..., :6, k] = -rate.by_values[name] / self._stiffness[..., 0]
        return Slopes(*self.by_new(), torch.from_numpy(by_previous), torch.from_numpy(by_values))

    def _square(self, by_stress: Array, by_void_ratio: Array | float, last: Array | float) -> Array:
        """(*batch, 7, 7) from the derivatives of what the stiffness divides, and of the last row by the void ratio."""
        matrix = np.zeros((*self._residual.shape, 7))
        matrix[..., :6, :6] = by_stress / self._stiffness
        matrix[..., :6, 6] = by_void_ratio / self._stiffness[..., 0]
        matrix[..., 6, 6] = last
        return matrix


def _lode_factor(offset: Tensor) -> Tensor:
    """F of the Matsuoka-Nakai cone from the deviator of T/tr T (von Wolffersdorff 1996, eq. 5-7)."""
    square = dot(offset, offset)
    tangent = torch.sqrt(3.0 * square + TINY)
    # tan(psi) cos(3 theta) = -3 sqrt(2) tr(T*^3)/|T*|^2, and tr(X^3) = 3 det X for a deviator.
    tangent_cosine = -9.0 * math.sqrt(2.0) * determinant(offset) / (square + TINY)
    inside = tangent**2 / 8.0 + (2.0 - tangent**2) / (2.0 + math.sqrt(2.0) * tangent_cosine)
    return torch.sqrt(inside) - tangent / (2.0 * math.sqrt(2.0))


def _factors(pressure: Tensor, void_ratio: Tensor, a: Tensor, params: Values) -> tuple[Tensor, Tensor]:
    """The density factor fd and the stiffness factor fs, Pa (von Wolffersdorff 1996, eq. 8-12; Bauer 1996)."""
    hardness, n = params["granular_hardness"], params["hardness_exponent"]
    densest, critical, loosest = params["void_ratio_min"], params["void_ratio_critical"], params["void_ratio_max"]
    alpha, beta = params["pyknotropy"], params["barotropy"]
    load = 3.0 * pressure / hardness
    shrink = torch.exp(-(load**n))
    relative = (void_ratio - densest * shrink) / ((critical - densest) * shrink)
    room = relative > 0
    density = torch.where(
        room, torch.where(room, relative, torch.ones_like(relative)) ** alpha, torch.zeros_like(relative)
    )
    loose = torch.as_tensor((loosest - densest) / (critical - densest)) ** alpha
    loosest_now = loosest * shrink
    bulk = hardness / n * (1.0 + loosest_now) / loosest_now * load ** (1.0 - n)
    return density, bulk * (loosest_now / void_ratio) ** beta / (3.0 + a**2 - math.sqrt(3.0) * a * loose)
