"""The Yeoh solid."""

from __future__ import annotations

from torch import Tensor

from bilevel.problem import Params
from physics.constitutive.elastic.hyperelastic import BULK, OfInvariants
from physics.local.parameters import LawParameter, LawParameters


class Yeoh(OfInvariants):
    """W = c1 (I1 - 3) + c2 (I1 - 3)^2 + c3 (I1 - 3)^3, with K/2 (J - 1)^2; parameters in Pa.

    Source: Yeoh 1993.
    """

    parameters = (
        LawParameters(LawParameter("c1", "Pa", lower=0.0), LawParameter("c2", "Pa"), LawParameter("c3", "Pa")) + BULK
    )

    def energy_of_invariants(self, i1: Tensor, i2: Tensor, params: Params) -> Tensor:
        return i1 * (params["c1"] + i1 * (params["c2"] + i1 * params["c3"]))
