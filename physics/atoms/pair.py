"""Pair potentials: Lennard-Jones, Morse, Buckingham, and a user's own function of the distance.

Parameters are numbers (one for all pairs of elements), or one entry for each pair of `species` in the order
(1,1), (1,2), ..., (2,2), ... Energies are brought smoothly to zero over the last `width` angstrom before the cut-off.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from bilevel.problem import Params
from bilevel.report import InputError
from physics.atoms.bonds import Bonds
from physics.atoms.cutoff import taper
from physics.atoms.potential import PairFunctional
from physics.local.parameters import LawParameter, LawParameters

NONE = LawParameters()


class PairPotential(PairFunctional):
    """E = 1/2 sum phi(r_ij) S(r_ij), S the taper from end - width to end (both in angstrom)."""

    def __init__(self, species: Sequence[str], end: float = 10.0, width: float = 1.0) -> None:
        if not 0.0 < width <= end:
            raise InputError(f"the taper's width must lie between 0 and the cut-off {end} angstrom, got {width}")
        self.species, self.end, self.width = tuple(species), end, width

    def cutoff(self, params: Params) -> float:
        return self.end

    @abstractmethod
    def bare(self, r: Tensor, params: Params) -> Tensor:
        """phi (E,) without cut-off at distances (E,); the parameters have a value for each bond, or one for all."""

    def pair(self, r: Tensor, bonds: Bonds, params: Params) -> Tensor:
        each = {name: of_pairs(value, bonds, len(self.species)) for name, value in params.items()}
        return self.bare(r, each) * taper(r, self.end - self.width, self.end)


class LennardJones(PairPotential):
    """phi = 4 epsilon ((sigma/r)^12 - (sigma/r)^6); epsilon in eV, sigma in angstrom (Lennard-Jones 1931)."""

    parameters = LawParameters(
        LawParameter("epsilon", "eV", lower=0.0, description="depth of the well"),
        LawParameter("sigma", "angstrom", lower=0.0, description="distance at which the energy is zero"),
    )

    def bare(self, r: Tensor, params: Params) -> Tensor:
        sixth = (params["sigma"] / r) ** 6
        return 4.0 * params["epsilon"] * sixth * (sixth - 1.0)


class Morse(PairPotential):
    """phi = depth (exp(-2 alpha (r - r0)) - 2 exp(-alpha (r - r0))) (Morse 1929)."""

    parameters = LawParameters(
        LawParameter("depth", "eV", lower=0.0, description="depth of the well"),
        LawParameter("alpha", "1/angstrom", lower=0.0, description="inverse width of the well"),
        LawParameter("r0", "angstrom", lower=0.0, description="distance of the minimum"),
    )

    def bare(self, r: Tensor, params: Params) -> Tensor:
        x = torch.exp(-params["alpha"] * (r - params["r0"]))
        return params["depth"] * x * (x - 2.0)


class Buckingham(PairPotential):
    """phi = a exp(-r/rho) - c/r^6 (Buckingham 1938)."""

    parameters = LawParameters(
        LawParameter("a", "eV", lower=0.0, description="size of the repulsion"),
        LawParameter("rho", "angstrom", lower=0.0, description="length of the repulsion"),
        LawParameter("c", "eV angstrom^6", lower=0.0, closed=True, log=False, description="dispersion"),
    )

    def bare(self, r: Tensor, params: Params) -> Tensor:
        return params["a"] * torch.exp(-r / params["rho"]) - params["c"] / r**6


class UserPair(PairPotential):
    """A user's own phi(r, params) in PyTorch, entry by entry.

    parameters: with units and bounds, which a study needs; else those that it is called with.
    """

    def __init__(
        self,
        function: Callable[[Tensor, Params], Tensor],
        species: Sequence[str],
        end: float = 10.0,
        width: float = 1.0,
        parameters: LawParameters = NONE,
    ) -> None:
        super().__init__(species, end, width)
        self.function, self.parameters = function, parameters

    def bare(self, r: Tensor, params: Params) -> Tensor:
        return self.function(r, params)


def of_pairs(value: Tensor, bonds: Bonds, species: int) -> Tensor:
    """A number as it is; a parameter with one entry per pair of species as one entry (E,) per bond."""
    if value.dim() == 0:
        return value
    if value.shape != (species * (species + 1) // 2,):
        raise InputError(
            f"a parameter of {species} species has 1 or {species * (species + 1) // 2} entries, got {tuple(value.shape)}"
        )
    centre, neighbour = bonds.ends
    low, high = torch.minimum(centre, neighbour), torch.maximum(centre, neighbour)
    return value[low * species - low * (low - 1) // 2 + high - low]
