"""The Yeoh solid."""

from __future__ import annotations

from torch import Tensor

from bilevel.problem import Params
from physics.constitutive.elastic.hyperelastic import OfInvariants


class Yeoh(OfInvariants):
    """W = c1 (I1 - 3) + c2 (I1 - 3)^2 + c3 (I1 - 3)^3, with K/2 (J - 1)^2; parameters c1, c2, c3, bulk_modulus in Pa.

    Source: Yeoh 1993.
    """

    parameters = ("c1", "c2", "c3", "bulk_modulus")

    def energy_of_invariants(self, i1: Tensor, i2: Tensor, params: Params) -> Tensor:
        x = i1 - 3.0
        return x * (params["c1"] + x * (params["c2"] + x * params["c3"]))
