"""The potential of Stillinger and Weber: pairs, and the angles that they make."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bilevel.problem import Params
from physics.atoms.bond_order import BondOrder
from physics.atoms.potential import numbers
from physics.local.parameters import LawParameter, LawParameters


@dataclass(frozen=True)
class StillingerWeber(BondOrder):
    """E = sum eps [A (B (s/r)^p - (s/r)^q) e(1; r)]_ij + sum eps lambda (cos theta_jik - cos0)^2 e(gamma; r_ij) e(gamma; r_ik).

    e(g; r) = exp(g s / (r - a s)) below a s, 0 beyond it: all derivatives are continuous. Energies in eV, lengths in
    angstrom; one element. Source: Stillinger and Weber 1985, Phys. Rev. B 31, 5262, eqs. 2.1-2.5.
    """

    species: tuple[str, ...] = ("Si",)
    linear = True

    parameters = LawParameters(
        LawParameter("epsilon", "eV", lower=0.0, default=2.1683, description="depth of the pair's well"),
        LawParameter("sigma", "angstrom", lower=0.0, default=2.0951, description="length"),
        LawParameter("a", lower=0.0, default=1.8, description="cut-off over sigma"),
        LawParameter("lambda", lower=0.0, default=21.0, description="strength of the angles"),
        LawParameter("gamma", lower=0.0, default=1.2, description="range of the angles"),
        LawParameter("cos0", lower=-1.0, upper=1.0, default=-1.0 / 3.0, description="cosine of the angle at rest"),
        LawParameter("A", lower=0.0, default=7.049556277, description="size of the pair's energy"),
        LawParameter("B", lower=0.0, default=0.6022245584, description="size of the repulsion"),
        LawParameter("p", lower=0.0, default=4.0, description="exponent of the repulsion"),
        LawParameter("q", lower=0.0, closed=True, log=False, default=0.0, description="exponent of the attraction"),
    )

    def cutoff(self, params: Params) -> float:
        return float(numbers(params, "a").max() * numbers(params, "sigma").max())

    def bond(self, r: Tensor, zeta: Tensor, params: Params) -> Tensor:
        x, end = params["sigma"] / r, params["a"] * params["sigma"]
        pair = params["A"] * (params["B"] * x ** params["p"] - x ** params["q"]) * fade(r, params["sigma"], end)
        return 0.5 * params["epsilon"] * (pair + params["lambda"] * zeta)

    def angle(self, one: Tensor, other: Tensor, cosine: Tensor, params: Params) -> Tensor:
        length, end = params["gamma"] * params["sigma"], params["a"] * params["sigma"]
        return (cosine - params["cos0"]) ** 2 * fade(one, length, end) * fade(other, length, end)


def fade(r: Tensor, length: Tensor, end: Tensor) -> Tensor:
    """exp(length / (r - end)) below `end`, 0 beyond it."""
    inside = r < end
    gap = torch.where(inside, r - end, -torch.ones_like(r))  # the branch not taken must have finite derivatives too
    return torch.where(inside, torch.exp(length / gap), torch.zeros_like(r))
