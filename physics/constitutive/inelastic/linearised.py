"""The residual of an inelastic law with its derivatives, as Newton's method and sensitivities ask for them at one point."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from physics.constitutive.inelastic.local_problem import unit_cotangents

Residual = Callable[[Tensor, Tensor, Tensor, Mapping[str, Tensor]], Tensor]


class Slopes(NamedTuple):
    """Derivatives (*batch, size, ...) of a law's residual."""

    by_state: Tensor
    by_increment: Tensor
    by_previous: Tensor
    by_values: Tensor
    """One column for each parameter, in the order in which they were given."""


class LinearisedResidual(ABC):
    """A residual (*batch, size) whose derivatives are at hand; what costs more is made when it is asked for."""

    residual: Tensor

    @abstractmethod
    def by_new(self) -> tuple[Tensor, Tensor]:
        """By state (*batch, size, size) and increment (*batch, size, 6)."""

    @abstractmethod
    def slopes(self) -> Slopes:
        """All derivatives."""


class AutomaticallyLinearised(LinearisedResidual):
    """By automatic differentiation: one reverse pass over as many copies of the samples as the residual has rows."""

    def __init__(
        self, residual: Residual, state: Tensor, increment: Tensor, previous: Tensor, values: Mapping[str, Tensor]
    ) -> None:
        self._function, self._given, self._values = residual, (state, increment, previous), values
        self._cotangents = unit_cotangents(state)
        with torch.enable_grad():
            self._new = [self._copies(state), self._copies(increment)]
            self._rows = residual(self._new[0], self._new[1], previous, values)
        self.residual = self._rows[0].detach()

    def by_new(self) -> tuple[Tensor, Tensor]:
        by_state, by_increment = self._by(self._rows, self._new)
        return by_state.movedim(0, -2), by_increment.movedim(0, -2)

    def slopes(self) -> Slopes:
        batch = self.residual.shape[:-1]
        with torch.enable_grad():
            state, increment, previous = map(self._copies, self._given)
            values = {name: self._copies(value.expand(batch)) for name, value in self._values.items()}
            rows = self._function(state, increment, previous, values)
        found = self._by(rows, [state, increment, previous, *values.values()])
        none = self.residual.new_zeros(*self.residual.shape, 0)
        by_values = torch.stack([x.movedim(0, -1) for x in found[3:]], -1) if values else none
        return Slopes(found[0].movedim(0, -2), found[1].movedim(0, -2), found[2].movedim(0, -2), by_values)

    def _copies(self, x: Tensor) -> Tensor:
        return x.detach().expand(len(self._cotangents), *x.shape).clone().requires_grad_()

    def _by(self, rows: Tensor, inputs: list[Tensor]) -> tuple[Tensor, ...]:
        return torch.autograd.grad(
            rows, inputs, self._cotangents, retain_graph=True, allow_unused=True, materialize_grads=True
        )
