"""The Ogden solid with any number of terms."""

from __future__ import annotations

import torch
from torch import Tensor

from bilevel.problem import Params
from bilevel.report import InputError
from physics.constitutive.elastic.hyperelastic import BULK, Isochoric, isochoric, isochoric_square
from physics.constitutive.powers import power_excess, power_excess_of_values
from physics.local.parameters import LawParameter, LawParameters


class Ogden(Isochoric):
    """W = sum over p of mu_p / alpha_p (l1^alpha_p + l2^alpha_p + l3^alpha_p - 3) of the isochoric stretches l_i.

    Parameters mu_1, alpha_1, mu_2 ...; mu_p in Pa; bulk_modulus in Pa for K/2 (J - 1)^2. The shear modulus is
    sum(mu alpha) / 2. Raises InputError for less than one term. Source: Ogden 1972.
    """

    def __init__(self, terms: int = 3) -> None:
        if terms < 1:
            raise InputError(f"the Ogden law has at least one term, {terms} asked for")
        self.terms = range(1, terms + 1)
        pairs = [(LawParameter(f"mu_{k}", "Pa"), LawParameter(f"alpha_{k}")) for k in self.terms]
        self.parameters = LawParameters(*(parameter for pair in pairs for parameter in pair)) + BULK

    def distortional(self, x: Tensor, params: Params) -> Tensor:
        mu, alpha = self._terms(params)
        return (0.25 * mu * alpha * power_excess(isochoric_square(x), 0.5 * alpha)).sum(-1)

    def distortion_of_stretches(self, stretches: Tensor, params: Params) -> Tensor:
        mu, alpha = self._terms(params)
        return (0.25 * mu * alpha * power_excess_of_values(isochoric(stretches) ** 2, 0.5 * alpha)).sum(-1)

    def _terms(self, params: Params) -> tuple[Tensor, Tensor]:
        """mu and alpha (..., terms)."""
        values = [params[f"{name}_{k}"] for name in ("mu", "alpha") for k in self.terms]
        stacked = torch.stack(torch.broadcast_tensors(*values), -1)
        return stacked[..., : len(self.terms)], stacked[..., len(self.terms) :]
