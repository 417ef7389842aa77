"""Embedded-atom potentials in closed form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bilevel.problem import Params
from physics.atoms.bonds import Bonds
from physics.atoms.cutoff import taper
from physics.atoms.potential import PairFunctional
from physics.local.parameters import LawParameter, LawParameters


@dataclass(frozen=True)
class CaiYe(PairFunctional):
    """phi = -alpha (1 + beta (r/ra - 1)) exp(-beta (r/ra - 1)), f = exp(-chi (r/re - 1)), and
    F = -F0 (1 - n ln(rho/rho_e)) (rho/rho_e)^n + F1 rho/rho_e.

    One fcc metal; re: nearest neighbours at rest, rho_e: 12 f(re) = 12, both only scales. Brought smoothly to zero over
    the last `width` angstrom before `end`. Source: Cai and Ye 1996, Phys. Rev. B 54, 8398, eqs. 1-4.
    """

    species: tuple[str, ...]
    re: float = 2.5562
    end: float = 6.0
    width: float = 1.5
    embeds = True

    parameters = LawParameters(
        LawParameter("F0", "eV", lower=0.0, description="energy of embedding at rest"),
        LawParameter("n", lower=0.0, description="exponent of the embedding"),
        LawParameter("F1", "eV", description="linear part of the embedding"),
        LawParameter("alpha", "eV", lower=0.0, description="depth of the pair energy"),
        LawParameter("beta", lower=0.0, description="decay of the pair energy"),
        LawParameter("ra", "angstrom", lower=0.0, description="distance of the pair energy's minimum"),
        LawParameter("chi", lower=0.0, description="decay of the density"),
    )

    def cutoff(self, params: Params) -> float:
        return self.end

    def pair(self, r: Tensor, bonds: Bonds, params: Params) -> Tensor:
        x = params["beta"] * (r / params["ra"] - 1.0)
        return -params["alpha"] * (1.0 + x) * torch.exp(-x) * taper(r, self.end - self.width, self.end)

    def density(self, r: Tensor, bonds: Bonds, params: Params) -> Tensor:
        return torch.exp(-params["chi"] * (r / self.re - 1.0)) * taper(r, self.end - self.width, self.end)

    def embedding(self, rho: Tensor, bonds: Bonds, params: Params) -> Tensor:
        embedded = rho > 0
        x = torch.where(embedded, rho, 1.0) / 12.0  # ln has no derivative for an atom alone
        power = params["n"] * torch.log(x)
        energy = -params["F0"] * (1.0 - power) * torch.exp(power) + params["F1"] * x
        return torch.where(embedded, energy, 0.0)


@dataclass(frozen=True)
class FinnisSinclair(PairFunctional):
    """phi = sum_k a_k (r_k - r)^3, rho = sum_k A_k (R_k - r)^3, each for r below its knot, and F = -sqrt(rho).

    Parameters: "a" and "A", one entry for each of `pair_knots` and `density_knots` (angstrom). One element. Source: Finnis
    and Sinclair 1984; cubic splines of Ackland, Tichy, Vitek and Finnis 1987, Phil. Mag. A 56, 735.
    """

    species: tuple[str, ...]
    pair_knots: Sequence[float]
    density_knots: Sequence[float]
    embeds = True

    parameters = LawParameters(
        LawParameter("a", "eV/angstrom^3", description="coefficients of the pair energy"),
        LawParameter("A", "eV^2/angstrom^3", description="coefficients of the density"),
    )

    @property
    def sizes(self) -> Mapping[str, int]:
        return {"a": len(self.pair_knots), "A": len(self.density_knots)}

    def cutoff(self, params: Params) -> float:
        return max(*self.pair_knots, *self.density_knots)

    def pair(self, r: Tensor, bonds: Bonds, params: Params) -> Tensor:
        return _cubes(r, self.pair_knots) @ params["a"]

    def density(self, r: Tensor, bonds: Bonds, params: Params) -> Tensor:
        return _cubes(r, self.density_knots) @ params["A"]

    def embedding(self, rho: Tensor, bonds: Bonds, params: Params) -> Tensor:
        embedded = rho > 0  # the square root has no derivative for an atom alone
        return torch.where(embedded, -torch.sqrt(torch.where(embedded, rho, 1.0)), 0.0)


def _cubes(r: Tensor, knots: Sequence[float]) -> Tensor:
    return (r.new_tensor(list(knots)) - r.unsqueeze(-1)).clamp_min(0.0) ** 3
