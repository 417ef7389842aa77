"""Linear flow: the law of Darcy and of Fourier."""

from __future__ import annotations

from torch import Tensor

from bilevel.problem import Params
from physics.constitutive.flow.law import FlowLaw
from physics.local.parameters import LawParameter, LawParameters


class Linear(FlowLaw):
    """flux = k drop (Darcy 1856; Fourier 1822). params: the coefficient k > 0 by its name.

    coefficient, units: how the problem at hand calls k: the conductance [m2/d] of an edge, a hydraulic or thermal
    conductivity.
    """

    parameters = LawParameters(LawParameter("conductance", "m2/d", lower=0.0))

    def __init__(self, coefficient: str = "conductance", units: str = "m2/d") -> None:
        self.coefficient = coefficient
        self.parameters = LawParameters(LawParameter(coefficient, units, lower=0.0))

    def potential(self, drop: Tensor, params: Params) -> Tensor:
        return 0.5 * params[self.coefficient] * drop.square()

    def flux(self, drop: Tensor, params: Params) -> Tensor:
        return params[self.coefficient] * drop

    def secant_and_slope(self, size: Tensor, params: Params) -> tuple[Tensor, Tensor]:
        conductance = params[self.coefficient].expand(size.shape)
        return conductance, conductance
