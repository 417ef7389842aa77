"""Tersoff's bond-order potential."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from bilevel.problem import Params
from physics.atoms.cutoff import taper
from physics.atoms.potential import SiteEnergy, numbers
from physics.constitutive.parameters import Parameter, ParameterSet


@dataclass(frozen=True)
class Tersoff(SiteEnergy):
    """E = 1/2 sum fc(r_ij) (A exp(-lambda1 r) - b_ij B exp(-lambda2 r)), b = (1 + (beta zeta)^n)^(-1/2n).

    zeta_ij = sum_k fc(r_ik) g(theta_ijk) exp((lambda3 (r_ij - r_ik))^m), g = gamma (1 + c^2/d^2 - c^2/(d^2 + (h - cos)^2)).
    Defaults are silicon. cut: how fc goes from 1 at R - D to 0 at R + D; `taper` by default, `physics.atoms.cutoff.cosine`
    as published (whose second derivative jumps). Energies in eV, lengths in angstrom; one element.
    Source: Tersoff 1989, Phys. Rev. B 39, 5566; names as in LAMMPS.
    """

    species: tuple[str, ...] = ("Si",)
    cut: Callable[[Tensor, Tensor, Tensor], Tensor] = taper
    m: int = 3

    parameters = ParameterSet(
        Parameter("A", "eV", lower=0.0, default=1830.8, description="size of the repulsion"),
        Parameter("B", "eV", lower=0.0, default=471.18, description="size of the attraction"),
        Parameter("lambda1", "1/angstrom", lower=0.0, default=2.4799, description="decay of the repulsion"),
        Parameter("lambda2", "1/angstrom", lower=0.0, default=1.7322, description="decay of the attraction"),
        Parameter("lambda3", "1/angstrom", default=0.0, description="how distance weighs in the coordination"),
        Parameter("beta", lower=0.0, default=1.1e-6, description="how coordination weakens bonds"),
        Parameter("n", lower=0.0, default=0.78734, description="exponent of the coordination"),
        Parameter("c", lower=0.0, default=1.0039e5, description="strength of the angles"),
        Parameter("d", lower=0.0, default=16.217, description="sharpness of the angles"),
        Parameter("h", lower=-1.0, upper=1.0, default=-0.59825, description="cosine of the angle at rest"),
        Parameter("gamma", lower=0.0, default=1.0, description="size of the angles' function"),
        Parameter("R", "angstrom", lower=0.0, default=2.85, description="middle of the cut-off"),
        Parameter("D", "angstrom", lower=0.0, default=0.15, description="half its width"),
    )

    def cutoff(self, params: Params) -> float:
        return float(numbers(params, "R") + numbers(params, "D"))

    def site(self, vectors: Tensor, centre: Tensor, neighbours: Tensor, params: Params) -> Tensor:
        r = torch.linalg.vector_norm(vectors, dim=-1)
        near = self.cut(r, params["R"] - params["D"], params["R"] + params["D"])
        unit = vectors / r.unsqueeze(-1)
        c2, d2 = params["c"] ** 2, params["d"] ** 2
        g = params["gamma"] * (1.0 + c2 / d2 - c2 / (d2 + (params["h"] - unit @ unit.mT) ** 2))
        # The fillers beyond the cut-off would overflow the exponential; they carry no weight anyway.
        apart = torch.where(near.unsqueeze(0) * near.unsqueeze(1) > 0, r.unsqueeze(1) - r.unsqueeze(0), 0.0)
        others = 1.0 - torch.eye(len(r)).to(r)
        zeta = (others * near.unsqueeze(0) * g * torch.exp((params["lambda3"] * apart) ** self.m)).sum(1)
        bonded = zeta > 0
        crowd = torch.where(bonded, params["beta"] * torch.where(bonded, zeta, 1.0), 0.0)
        # (beta zeta)^n has no derivative at zeta = 0, a bond without other neighbours.
        power = torch.where(bonded, torch.where(bonded, crowd, 1.0) ** params["n"], 0.0)
        order = (1.0 + power) ** (-0.5 / params["n"])
        repulsion, attraction = (
            params["A"] * torch.exp(-params["lambda1"] * r),
            params["B"] * torch.exp(-params["lambda2"] * r),
        )
        return 0.5 * (near * (repulsion - order * attraction)).sum()
