"""A user's own energies: of one atom and its neighbours, or of a whole structure, such as a message-passing network."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from bilevel.problem import Params
from physics.atoms.bonds import Bonds
from physics.atoms.pair import NONE
from physics.atoms.potential import Potential, SiteEnergy
from physics.local.parameters import LawParameters


class UserSite(SiteEnergy):
    """A many-body energy e(vectors, centre, neighbours, params) of one atom; see `SiteEnergy.site`.

    reach: its cut-off in angstrom, where the energy and two derivatives must vanish (`physics.atoms.cutoff.taper`).
    parameters: with units and bounds, which a study needs; else those that it is called with.
    """

    def __init__(
        self, function: Callable[..., Tensor], species: Sequence[str], reach: float, parameters: LawParameters = NONE
    ) -> None:
        self.function, self.species, self.reach, self.parameters = function, tuple(species), reach, parameters

    def cutoff(self, params: Params) -> float:
        return self.reach

    def site(self, vectors: Tensor, centre: Tensor, neighbours: Tensor, params: Params) -> Tensor:
        return self.function(vectors, centre, neighbours, params)


class AnyEnergy(Potential):
    """Any model of the atoms' energies (N,) from `Bonds`: a function(bonds, params), or a module(bonds).

    A module's parameters are given as `dict(module.named_parameters())`. It may use the bonds' vectors, the positions and
    the cells, and must be twice differentiable. parameters: as in `UserSite`.
    """

    def __init__(
        self,
        model: Callable[..., Tensor] | torch.nn.Module,
        species: Sequence[str],
        reach: float,
        parameters: LawParameters = NONE,
    ) -> None:
        self.model, self.species, self.reach, self.parameters = model, tuple(species), reach, parameters

    def cutoff(self, params: Params) -> float:
        return self.reach

    def energies(self, bonds: Bonds, params: Params) -> Tensor:
        if isinstance(self.model, torch.nn.Module):
            return torch.func.functional_call(self.model, params, (bonds,))
        return self.model(bonds, params)
