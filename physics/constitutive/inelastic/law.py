"""An inelastic law as a batch of local problems: the old state and a strain increment give the new state.

The unknown of the local problem is the new state itself: the stress and the internal variables, (*batch, 6 + m). Its residual
is solved by the implicit layer, so the derivative of the update and the consistent tangent are the implicit function
theorem's, whatever iterations found the state; the tangent is non-symmetric where the law is.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

import bilevel
from bilevel.problem import Params
from bilevel.report import InputError, OnFail, Solution
from physics.constitutive.inelastic.linearised import AutomaticallyLinearised, LinearisedResidual
from physics.constitutive.inelastic.local_problem import LocalProblem, local_newton
from physics.constitutive.lame import LameParameters
from physics.constitutive.law import Law

Values: TypeAlias = Mapping[str, Tensor]
"""Material parameters by name, scalars or one value per sample."""

LOCAL_NEWTON = local_newton(1e-13)
STRAIN_SIZE = 1e-3
"""A typical strain; what is measured in other units is scaled to it."""


@dataclass(frozen=True)
class StateVariable:
    """An internal variable behind the stress.

    size: its typical size, for scaling only. initial: its value in virgin material; None where the user must give it.
    """

    name: str
    size: float = STRAIN_SIZE
    initial: float | None = 0.0


class InelasticLaw(Law):
    """A law whose stress depends on the history of strain; `parameters`, `variables` and `residual` make one.

    States (*batch, size) are the stress (6), Pa, as a Mandel vector, tension positive, and then the internal variables.
    """

    variables: tuple[StateVariable, ...] = ()

    @property
    def internal(self) -> tuple[str, ...]:
        """The names of the internal variables."""
        return tuple(variable.name for variable in self.variables)

    @property
    def size(self) -> int:
        """Length of the state vector."""
        return 6 + len(self.variables)

    def position(self, name: str) -> int:
        """Where the internal variable `name` stands in the state vector."""
        return 6 + self.internal.index(name)

    def initial_state(self, stress: Tensor, **variables: Tensor) -> Tensor:
        """The state (*batch, size) of material at a stress (*batch, 6), with its internal variables by name, each (*batch,).

        Those not given are virgin. Raises InputError for names that the law does not have, and for missing ones.
        """
        unknown = sorted(set(variables) - set(self.internal))
        missing = [v.name for v in self.variables if v.initial is None and v.name not in variables]
        if unknown or missing:
            what = f"has no variable {unknown[0]}" if unknown else f"needs {' and '.join(missing)} to start from"
            raise InputError(f"{type(self).__name__} {what}; its variables are {', '.join(self.internal) or 'none'}")
        rest = [torch.as_tensor(variables.get(v.name, v.initial)).to(stress) for v in self.variables]
        return torch.cat([stress, *(value.expand(stress.shape[:-1]).unsqueeze(-1) for value in rest)], -1)

    @abstractmethod
    def residual(self, state: Tensor, increment: Tensor, previous: Tensor, params: Values) -> Tensor:
        """Dimensionless residual (*batch, size) of the new state after a strain increment (*batch, 6)."""

    def linearised(self, state: Tensor, increment: Tensor, previous: Tensor, values: Values) -> LinearisedResidual:
        """The residual with its derivatives, as numbers; values are scalars or (*batch,). A law may know a closed form."""
        return AutomaticallyLinearised(self.residual, state, increment, previous, values)

    def predict(self, increment: Tensor, previous: Tensor, params: Values) -> Tensor:
        """Where the local Newton iteration starts: the old state unless a law knows better."""
        return previous

    def advance(self, increment: Tensor, previous: Tensor, params: Values) -> Tensor:
        """The new state (batch, size), differentiable in everything; raises ConvergenceError."""
        return update(self, previous, increment, params).u

    def consistent_tangent(self, state: Tensor, increment: Tensor, previous: Tensor, params: Values) -> Tensor:
        """d stress / d strain increment (batch, 6, 6) of a solved update, by the implicit function theorem."""
        numbers = {name: torch.as_tensor(value).detach() for name, value in params.items()}
        by_state, by_strain = self.linearised(state.detach(), increment.detach(), previous.detach(), numbers).by_new()
        return -torch.linalg.solve(by_state, by_strain)[..., :6, :]

    def dissipation(self, state: Tensor, increment: Tensor, previous: Tensor, params: Values) -> Tensor:
        """Plastic work of the increment per volume (*batch,), J/m3, for the laws that split off a plastic strain."""
        return (state[..., :6] * self.plastic_increment(state, increment, previous, params)).sum(-1)

    def plastic_increment(self, state: Tensor, increment: Tensor, previous: Tensor, params: Values) -> Tensor:
        """The plastic part (*batch, 6) of the strain increment."""
        raise NotImplementedError(f"{type(self).__name__} does not split the strain into elastic and plastic parts")


class ReturnMapping(InelasticLaw):
    """Linear isotropic elasticity, and an update in closed form; the residual is the distance from it."""

    @abstractmethod
    def advance(self, increment: Tensor, previous: Tensor, params: Values) -> Tensor:
        """The new state (*batch, size)."""

    def residual(self, state: Tensor, increment: Tensor, previous: Tensor, params: Values) -> Tensor:
        distance = state - self.advance(increment, previous, params)
        of_stress = distance[..., :6] / torch.as_tensor(LameParameters.of(params).mu).unsqueeze(-1)
        sizes = distance.new_tensor([variable.size for variable in self.variables])
        return torch.cat([of_stress, distance[..., 6:] * (STRAIN_SIZE / sizes)], -1)

    def predict(self, increment: Tensor, previous: Tensor, params: Values) -> Tensor:
        return self.advance(increment, previous, params)

    def plastic_increment(self, state: Tensor, increment: Tensor, previous: Tensor, params: Values) -> Tensor:
        return increment - LameParameters.of(params).strain(state[..., :6] - previous[..., :6])


class StateUpdate(LocalProblem):
    """The local problem of a strain-controlled increment; params = (material parameters, old state, strain increment)."""

    def __init__(self, law: InelasticLaw) -> None:
        self.law = law

    def residual(self, u: Tensor, params: Params) -> Tensor:
        values, previous, increment = params
        return self.law.residual(u, increment, previous, values)


def update(
    law: InelasticLaw, previous: Tensor, increment: Tensor, params: Values, on_fail: OnFail = "raise"
) -> Solution:
    """The new state of a batch of material points after a strain increment, differentiable in everything.

    previous (batch, size), increment (batch, 6); parameters are scalars or (batch,). Raises ConvergenceError.
    """
    start = law.predict(increment, previous, params).detach()
    return bilevel.root(StateUpdate(law), start, (params, previous, increment), solver=LOCAL_NEWTON, on_fail=on_fail)
