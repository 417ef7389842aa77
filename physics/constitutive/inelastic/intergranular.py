"""Hypoplasticity with intergranular strain: small-strain stiffness and its memory of reversals (Niemunis & Herle 1997)."""

from __future__ import annotations

import torch
from torch import Tensor

from physics.constitutive.inelastic.hypoplastic import HYPOPLASTIC, Hypoplastic
from physics.constitutive.inelastic.law import StateVariable, Values
from physics.constitutive.mandel import dot, mean_pressure, norm, trace
from physics.local.parameters import LawParameter, LawParameters


class HypoplasticIntergranular(Hypoplastic):
    """dT = M : D, where M blends the reversal stiffness mR L with the hypoplastic one as intergranular strain h grows.

    With s = (|h|/R)^chi and the direction n of h:
        M : D = (s mT + (1 - s) mR) L : D + s (1 - mT) (L : n)(n : D) + s N (n : D)   for n : D > 0,
        M : D = (s mT + (1 - s) mR) L : D + s (mR - mT) (L : n)(n : D)                otherwise,
        dh = D - n (n : D) (|h|/R)^beta_r for n : D > 0, else D             (Niemunis & Herle 1997, eq. 20-23).
    State behind the stress: the void ratio and the six Mandel components of h.
    """

    parameters = HYPOPLASTIC + LawParameters(
        LawParameter("intergranular_radius", "", lower=0.0, description="R, size of the elastic range in strain"),
        LawParameter(
            "transverse_stiffness", "", lower=1.0, description="mT, stiffness factor after a 90 degree change"
        ),
        LawParameter(
            "reversal_stiffness",
            "",
            above="transverse_stiffness",
            lower=1.0,
            description="mR, factor after a reversal, exceeds mT",
        ),
        LawParameter("intergranular_growth", "", lower=0.0, description="beta_r, how fast h saturates"),
        LawParameter("intergranular_exponent", "", lower=0.0, description="chi, how fast stiffness degrades"),
    )
    variables = (
        *Hypoplastic.variables,
        *(StateVariable(f"h_{component}", 1e-4) for component in ("xx", "yy", "zz", "yz", "xz", "xy")),
    )

    def residual(self, state: Tensor, increment: Tensor, previous: Tensor, params: Values) -> Tensor:
        void_ratio = (1.0 + previous[..., 6]) * torch.exp(trace(increment)) - 1.0
        middle = 0.5 * (previous[..., :6] + state[..., :6])
        middle_void_ratio = 0.5 * (previous[..., 6] + void_ratio)
        strain = 0.5 * (previous[..., 7:13] + state[..., 7:13])
        radius = torch.as_tensor(params["intergranular_radius"])
        size = norm(strain)
        some = size > 1e-14
        direction = strain / torch.where(some, size, torch.ones_like(size)).unsqueeze(-1)
        filled = torch.where(some, size, radius * torch.ones_like(size)) / radius
        degree = torch.where(some, filled ** params["intergranular_exponent"], torch.zeros_like(size))
        growth = torch.where(some, filled ** params["intergranular_growth"], torch.zeros_like(size))
        along = dot(direction, increment)
        forward = along > 0
        by_strain = self.rate(middle, middle_void_ratio, increment, params)
        by_direction = self.rate(middle, middle_void_ratio, direction, params)
        transverse, reversal = params["transverse_stiffness"], params["reversal_stiffness"]
        base = degree * transverse + (1.0 - degree) * reversal
        share = degree * along * torch.where(forward, 1.0 - transverse, reversal - transverse)
        change = base.unsqueeze(-1) * by_strain.linear + share.unsqueeze(-1) * by_direction.linear
        flow = torch.where(forward, degree * along, torch.zeros_like(along))
        change = change + flow.unsqueeze(-1) * by_strain.nonlinear
        saturation = torch.where(forward, growth * along, torch.zeros_like(along))
        of_strain = state[..., 7:13] - previous[..., 7:13] - increment + saturation.unsqueeze(-1) * direction
        stiffness = 100.0 * mean_pressure(previous[..., :6]).unsqueeze(-1)
        of_stress = (state[..., :6] - previous[..., :6] - change) / stiffness
        return torch.cat([of_stress, (state[..., 6] - void_ratio).unsqueeze(-1), of_strain], -1)
