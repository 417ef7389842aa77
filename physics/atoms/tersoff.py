"""Tersoff's bond-order potential."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from bilevel.problem import Params
from physics.atoms.bond_order import BondOrder
from physics.atoms.cutoff import taper
from physics.atoms.potential import numbers
from physics.local.parameters import LawParameter, LawParameters


@dataclass(frozen=True)
class Tersoff(BondOrder):
    """E = 1/2 sum fc(r_ij) (A exp(-lambda1 r) - b_ij B exp(-lambda2 r)), b = (1 + (beta zeta)^n)^(-1/2n).

    zeta_ij = sum_k fc(r_ik) g(theta_ijk) exp((lambda3 (r_ij - r_ik))^m), g = gamma (1 + c^2/d^2 - c^2/(d^2 + (h - cos)^2)).
    Defaults are silicon. cut: how fc goes from 1 at R - D to 0 at R + D; `taper` by default, `physics.atoms.cutoff.cosine`
    as published (whose second derivative jumps). Energies in eV, lengths in angstrom; one element.
    Source: Tersoff 1989, Phys. Rev. B 39, 5566; names as in LAMMPS.
    """

    species: tuple[str, ...] = ("Si",)
    cut: Callable[[Tensor, Tensor, Tensor], Tensor] = taper
    m: int = 3

    parameters = LawParameters(
        LawParameter("A", "eV", lower=0.0, default=1830.8, description="size of the repulsion"),
        LawParameter("B", "eV", lower=0.0, default=471.18, description="size of the attraction"),
        LawParameter("lambda1", "1/angstrom", lower=0.0, default=2.4799, description="decay of the repulsion"),
        LawParameter("lambda2", "1/angstrom", lower=0.0, default=1.7322, description="decay of the attraction"),
        LawParameter("lambda3", "1/angstrom", default=0.0, description="how distance weighs in the coordination"),
        LawParameter("beta", lower=0.0, default=1.1e-6, description="how coordination weakens bonds"),
        LawParameter("n", lower=0.0, default=0.78734, description="exponent of the coordination"),
        LawParameter("c", lower=0.0, default=1.0039e5, description="strength of the angles"),
        LawParameter("d", lower=0.0, default=16.217, description="sharpness of the angles"),
        LawParameter("h", lower=-1.0, upper=1.0, default=-0.59825, description="cosine of the angle at rest"),
        LawParameter("gamma", lower=0.0, default=1.0, description="size of the angles' function"),
        LawParameter("R", "angstrom", lower=0.0, default=2.85, description="middle of the cut-off"),
        LawParameter("D", "angstrom", lower=0.0, default=0.15, description="half its width"),
    )

    def cutoff(self, params: Params) -> float:
        return float(numbers(params, "R") + numbers(params, "D"))

    def bond(self, r: Tensor, zeta: Tensor, params: Params) -> Tensor:
        crowded = zeta > 0
        # (beta zeta)^n has no derivative at zeta = 0, a bond without other neighbours.
        power = torch.where(crowded, (params["beta"] * torch.where(crowded, zeta, 1.0)) ** params["n"], 0.0)
        order = (1.0 + power) ** (-0.5 / params["n"])
        repulsion = params["A"] * torch.exp(-params["lambda1"] * r)
        return 0.5 * self._near(r, params) * (repulsion - order * params["B"] * torch.exp(-params["lambda2"] * r))

    def angle(self, one: Tensor, other: Tensor, cosine: Tensor, params: Params) -> Tensor:
        c2, d2 = params["c"] ** 2, params["d"] ** 2
        g = params["gamma"] * (1.0 + c2 / d2 - c2 / (d2 + (params["h"] - cosine) ** 2))
        return self._near(other, params) * g * torch.exp((params["lambda3"] * (one - other)) ** self.m)

    def _near(self, r: Tensor, params: Params) -> Tensor:
        return self.cut(r, params["R"] - params["D"], params["R"] + params["D"])
