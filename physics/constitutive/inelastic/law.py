"""A constitutive model as a batch of local problems: the old state and a strain increment give the new state.

The unknown of the local problem is the new state itself: the stress and the internal variables, (*batch, 6 + m). Its residual
is solved by the implicit layer, so the derivative of the update and the consistent tangent are the implicit function
theorem's, whatever iterations found the state; the tangent is non-symmetric where the model is.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, TypeAlias

import torch
from torch import Tensor

import bilevel
from bilevel.problem import Params
from physics.constitutive.inelastic.local_problem import LocalProblem, local_newton, unit_cotangents
from physics.constitutive.parameters import ParameterSet

if TYPE_CHECKING:
    from bilevel.report import OnFail, Solution

Values: TypeAlias = Mapping[str, Tensor]
"""Material parameters by name, scalars or one value per sample."""

LOCAL_NEWTON = local_newton(1e-13)


class Material(ABC):
    """A rate-independent or rate-type constitutive model.

    parameters: what it needs and within which physical bounds. internal: names of the internal variables behind the stress; units: their typical sizes, for scaling only.
    """

    parameters: ClassVar[ParameterSet]
    internal: ClassVar[tuple[str, ...]] = ()
    units: ClassVar[tuple[float, ...]] = ()

    @property
    def size(self) -> int:
        """Length of the state vector."""
        return 6 + len(self.internal)

    @abstractmethod
    def residual(self, state: Tensor, increment: Tensor, previous: Tensor, params: Values) -> Tensor:
        """Dimensionless residual (*batch, size) of the new state after a strain increment (*batch, 6)."""

    def predict(self, increment: Tensor, previous: Tensor, params: Values) -> Tensor:
        """Where the local Newton iteration starts: the old state unless a model knows better."""
        return previous

    def check(self, params: Values) -> None:
        """Raise InputError if a parameter is outside its physical bounds."""
        self.parameters.check(params, type(self).__name__)

    def position(self, name: str) -> int:
        """Where the internal variable `name` stands in the state vector."""
        return 6 + self.internal.index(name)

    def dissipation(self, state: Tensor, increment: Tensor, previous: Tensor, params: Values) -> Tensor:
        """Plastic work of the increment per volume (*batch,), J/m3, for the models that split off a plastic strain."""
        return (state[..., :6] * self.plastic_increment(state, increment, previous, params)).sum(-1)

    def plastic_increment(self, state: Tensor, increment: Tensor, previous: Tensor, params: Values) -> Tensor:
        """The plastic part (*batch, 6) of the strain increment."""
        raise NotImplementedError(f"{type(self).__name__} does not split the strain into elastic and plastic parts")


class ReturnMapping(Material):
    """A model whose update has a closed form; its residual is the distance from it."""

    @abstractmethod
    def advance(self, increment: Tensor, previous: Tensor, params: Values) -> Tensor:
        """The new state."""

    @abstractmethod
    def modulus(self, params: Values) -> Tensor:
        """A stiffness, Pa, that makes the residual dimensionless like a strain."""

    def residual(self, state: Tensor, increment: Tensor, previous: Tensor, params: Values) -> Tensor:
        return (state - self.advance(increment, previous, params)) / torch.as_tensor(self.modulus(params)).unsqueeze(-1)

    def predict(self, increment: Tensor, previous: Tensor, params: Values) -> Tensor:
        return self.advance(increment, previous, params)


class StateUpdate(LocalProblem):
    """The local problem of a strain-controlled increment; params = (material parameters, old state, strain increment)."""

    def __init__(self, material: Material) -> None:
        self.material = material

    def residual(self, u: Tensor, params: Params) -> Tensor:
        values, previous, increment = params
        return self.material.residual(u, increment, previous, values)


def update(
    material: Material, previous: Tensor, increment: Tensor, params: Values, on_fail: OnFail = "raise"
) -> Solution:
    """The new state of a batch of material points after a strain increment, differentiable in everything.

    previous (batch, size), increment (batch, 6); parameters are scalars or (batch,). Raises ConvergenceError.
    """
    start = material.predict(increment, previous, params).detach()
    return bilevel.root(
        StateUpdate(material), start, (params, previous, increment), solver=LOCAL_NEWTON, on_fail=on_fail
    )


def consistent_tangent(
    material: Material, state: Tensor, increment: Tensor, previous: Tensor, params: Values
) -> Tensor:
    """d stress / d strain increment (batch, 6, 6) of a solved update, by the implicit function theorem."""
    with torch.enable_grad():
        new, strain = (
            x.detach().expand(state.shape[-1], *x.shape).clone().requires_grad_() for x in (state, increment)
        )
        constants = {name: value.detach() for name, value in params.items()}
        residual = material.residual(new, strain, previous.detach(), constants)
        by_state, by_strain = torch.autograd.grad(residual, (new, strain), unit_cotangents(state))
    return -torch.linalg.solve(by_state.movedim(0, -2), by_strain.movedim(0, -2))[..., :6, :]
