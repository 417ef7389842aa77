"""The Mooney-Rivlin solid."""

from __future__ import annotations

from torch import Tensor

from bilevel.problem import Params
from physics.constitutive.elastic.hyperelastic import BULK, OfInvariants
from physics.local.parameters import LawParameter, LawParameters


class MooneyRivlin(OfInvariants):
    """W = c10 (I1 - 3) + c01 (I2 - 3), with K/2 (J - 1)^2; parameters in Pa.

    Source: Mooney 1940; Rivlin 1948.
    """

    parameters = LawParameters(LawParameter("c10", "Pa"), LawParameter("c01", "Pa")) + BULK

    def energy_of_invariants(self, i1: Tensor, i2: Tensor, params: Params) -> Tensor:
        return params["c10"] * i1 + params["c01"] * i2
