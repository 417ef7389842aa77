"""The extended tube model of rubber."""

from __future__ import annotations

import torch
from torch import Tensor

from bilevel.problem import Params
from physics.constitutive.elastic.hyperelastic import Isochoric, isochoric, isochoric_square, stretch_powers
from physics.constitutive.power_trace import power_trace


class ExtendedTube(Isochoric):
    """W = gc/2 [(1-d^2) (I1-3) / (1 - d^2 (I1-3)) + ln(1 - d^2 (I1-3))] + 2 ge/b^2 sum (l_i^-b - 1).

    l_i are the isochoric stretches and I1 the sum of their squares. Parameters: gc (crosslinks) and ge (tube
    constraints) in Pa, d = delta (finite extensibility), b = beta (release of constraints); bulk_modulus in Pa for
    K/2 (J - 1)^2. NaN beyond the limit of extensibility, d^2 (I1 - 3) >= 1. Source: Kaliske & Heinrich 1999, eqs.
    (44)-(46).
    """

    parameters = ("gc", "delta", "ge", "beta", "bulk_modulus")

    def distortional(self, x: Tensor, params: Params) -> Tensor:
        square = isochoric_square(x)
        trace = square.diagonal(dim1=-2, dim2=-1).sum(-1)
        powers = power_trace(square, -0.5 * params["beta"].unsqueeze(-1)).squeeze(-1) - 3.0
        return _chains(trace - 3.0, params) + _tubes(powers, params)

    def distortion_of_stretches(self, stretches: Tensor, params: Params) -> Tensor:
        reduced = isochoric(stretches)
        powers = stretch_powers(reduced, -params["beta"].unsqueeze(-1)).squeeze(-1)
        return _chains((reduced**2).sum(-1) - 3.0, params) + _tubes(powers, params)


def _chains(x: Tensor, params: Params) -> Tensor:
    square = params["delta"] ** 2
    room = 1.0 - square * x
    room = torch.where(room > 0.0, room, torch.nan)
    return 0.5 * params["gc"] * ((1.0 - square) * x / room + torch.log(room))


def _tubes(powers: Tensor, params: Params) -> Tensor:
    return 2.0 * params["ge"] / params["beta"] ** 2 * powers
