"""An inelastic law at the quadrature points of a mesh: a flux over the Mandel strain, from the state before the increment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from bilevel.problem import Params
from bilevel.report import InputError
from physics.constitutive.inelastic.law import InelasticLaw, Values
from physics.constitutive.kinematics import Strain
from physics.local.residual import Flux
from physics.local.term import Term


class MaterialFlux(Flux):
    """The stress (cells, points, 6) at the end of an increment, for strains x (cells, points, 6); both are Mandel vectors.

    params: {"law": the law's parameters, "state" (cells, points, size), "strain" (cells, points, 6)}, the last two at the
    beginning of the increment.
    """

    event_dims = {"state": 1, "strain": 1}  # noqa: RUF012

    def __init__(self, law: InelasticLaw) -> None:
        self.law = law
        self.parameters = law.parameters

    def check(self, params: Params) -> None:
        self.law.check(params)

    def require(self, params: Params, owner: str) -> None:
        self.law.require(params, owner)

    measured = Strain.SMALL_MANDEL
    """What x is."""

    def strain(self, x: Tensor) -> Tensor:
        """The small strain (cells, points, 6), as a Mandel vector."""
        return x

    def state(self, x: Tensor, params: Params) -> Tensor:
        """The new state (cells, points, size)."""
        increment, previous, values = _increment(x, params)
        return self.law.advance(increment, previous, values).unflatten(0, x.shape[:-1])

    def stress(self, x: Tensor, params: Params) -> Tensor:
        return self.state(x, params)[..., :6]

    def tangent(self, x: Tensor, params: Params, state_dims: int) -> Tensor:
        increment, previous, values = _increment(x, params)
        state = self.law.advance(increment, previous, values)
        return self.law.consistent_tangent(state, increment, previous, values).unflatten(0, x.shape[:-1])


@dataclass(frozen=True, eq=False)
class MaterialTerm(Term):
    """The term of a `MaterialFlux`; it depends on two entries of the parameters: the law's, and where the increment begins."""

    @property
    def names(self) -> tuple[str, ...]:
        return (self.name, "begin")

    def own(self, params: Params) -> Params:
        if self.name not in params:
            return None
        if "begin" not in params:
            raise InputError(
                "params['begin'] is missing: state and strain of the material at the beginning of the increment; a virgin "
                "body has solid.begin(), and an increment ends with solid.end(u, params)"
            )
        return {"law": params[self.name], **params["begin"]}


class _Increment(NamedTuple):
    """Strain increments (points, 6), old states (points, size), parameters () or (points,) of all points in one batch."""

    strain: Tensor
    previous: Tensor
    values: Values


def _increment(x: Tensor, params: Params) -> _Increment:
    lead = x.shape[:-1]

    def flat(value: Tensor) -> Tensor:
        return value if value.dim() == 0 else value.expand(lead).reshape(-1)

    previous = params["state"]
    return _Increment(
        (x - params["strain"]).reshape(-1, 6),
        previous.expand(*lead, previous.shape[-1]).reshape(-1, previous.shape[-1]),
        {name: flat(torch.as_tensor(value)) for name, value in params["law"].items()},
    )
