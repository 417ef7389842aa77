"""The extended tube model of rubber."""

from __future__ import annotations

import torch
from torch import Tensor

from bilevel.problem import Params
from physics.constitutive.elastic.hyperelastic import BULK, Isochoric, isochoric, isochoric_invariants, isochoric_square
from physics.constitutive.powers import power_excess, power_excess_of_values
from physics.local.parameters import LawParameter, LawParameters


class ExtendedTube(Isochoric):
    """W = gc/2 [(1-d^2) (I1-3) / (1 - d^2 (I1-3)) + ln(1 - d^2 (I1-3))] + 2 ge/b^2 sum (l_i^-b - 1).

    l_i are the isochoric stretches and I1 the sum of their squares. Parameters: gc (crosslinks) and ge (tube
    constraints) in Pa, d = delta (finite extensibility), b = beta (release of constraints); bulk_modulus in Pa for
    K/2 (J - 1)^2. NaN beyond the limit of extensibility, d^2 (I1 - 3) >= 1. Source: Kaliske & Heinrich 1999, eqs.
    (44)-(46).
    """

    parameters = (
        LawParameters(
            LawParameter("gc", "Pa", lower=0.0, description="modulus of the crosslinks"),
            LawParameter("delta", lower=0.0, description="finite extensibility"),
            LawParameter("ge", "Pa", lower=0.0, description="modulus of the tube constraints"),
            LawParameter("beta", lower=0.0, description="release of constraints"),
        )
        + BULK
    )

    def distortional(self, x: Tensor, params: Params) -> Tensor:
        tubes = power_excess(isochoric_square(x), _exponent(params))
        return _chains(isochoric_invariants(x)[0], params) + _tubes(tubes, params)

    def distortion_of_stretches(self, stretches: Tensor, params: Params) -> Tensor:
        squares = isochoric(stretches) ** 2
        return _chains(squares.sum(-1) - 3.0, params) + _tubes(
            power_excess_of_values(squares, _exponent(params)), params
        )


def _exponent(params: Params) -> Tensor:
    """Of the squared stretches, (..., 1)."""
    return -0.5 * params["beta"].unsqueeze(-1)


def _chains(x: Tensor, params: Params) -> Tensor:
    square = params["delta"] ** 2
    used = square * x
    used = torch.where(used < 1.0, used, torch.nan)
    return 0.5 * params["gc"] * ((1.0 - square) * x / (1.0 - used) + torch.log1p(-used))


def _tubes(excess: Tensor, params: Params) -> Tensor:
    """2 ge/b^2 sum (l_i^-b - 1) from the power excess at p = -b/2 of the squares: sum (l_i^-b - 1) = p^2 excess."""
    return 0.5 * params["ge"] * excess.squeeze(-1)
