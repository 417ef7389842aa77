"""The Ogden solid with any number of terms."""

from __future__ import annotations

from torch import Tensor

from bilevel.problem import Params
from physics.constitutive.elastic.hyperelastic import Isochoric, isochoric, isochoric_square, stretch_powers
from physics.constitutive.power_trace import power_trace


class Ogden(Isochoric):
    """W = sum over p of mu_p / alpha_p (l1^alpha_p + l2^alpha_p + l3^alpha_p - 3) of the isochoric stretches l_i.

    Parameters mu (N,) in Pa, alpha (N,), or fields (cells, N) and (cells, points, N); bulk_modulus in Pa for
    K/2 (J - 1)^2. The shear modulus is sum(mu alpha) / 2. Source: Ogden 1972.
    """

    parameters = ("mu", "alpha", "bulk_modulus")
    event_dims = {"mu": 1, "alpha": 1}  # noqa: RUF012

    def distortional(self, x: Tensor, params: Params) -> Tensor:
        powers = power_trace(isochoric_square(x), 0.5 * params["alpha"]) - 3.0
        return (params["mu"] / params["alpha"] * powers).sum(-1)

    def distortion_of_stretches(self, stretches: Tensor, params: Params) -> Tensor:
        powers = stretch_powers(isochoric(stretches), params["alpha"])
        return (params["mu"] / params["alpha"] * powers).sum(-1)
