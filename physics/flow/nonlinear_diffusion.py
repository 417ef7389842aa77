"""Diffusion whose conductivity depends on the field itself: the flux k f(u) grad u, balanced with sources."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bilevel.problem import Params
from physics.discretisation import Mesh
from physics.discretisation.constraints import Constraint
from physics.discretisation.matmul import matmul
from physics.flow.darcy import VALUE, Source, Storage
from physics.local.density import Cells, Measure
from physics.local.residual import Flux, LocalResidual
from physics.local.term import Term


class RelativeConductivity(ABC):
    """The factor f(u) > 0 by which the field changes the conductivity."""

    @abstractmethod
    def value(self, u: Tensor) -> Tensor:
        """f (...), for fields (...)."""

    @abstractmethod
    def slope(self, u: Tensor) -> Tensor:
        """df/du (...)."""


@dataclass(frozen=True)
class QuadraticConductivity(RelativeConductivity):
    """f = 1 + coefficient u^2."""

    coefficient: float = 1.0

    def value(self, u: Tensor) -> Tensor:
        return 1.0 + self.coefficient * u.square()

    def slope(self, u: Tensor) -> Tensor:
        return 2.0 * self.coefficient * u


class VariableConduction(Flux):
    """s = (k f(u) g, 0) of the state (g, u), gradient and value. params: conductivity k."""

    parameters = ("conductivity",)

    def __init__(self, relative: RelativeConductivity) -> None:
        self.relative = relative

    def stress(self, x: Tensor, params: Params) -> Tensor:
        factor = params["conductivity"] * self.relative.value(x[..., -1])
        return torch.nn.functional.pad(factor.unsqueeze(-1) * x[..., :-1], (0, 1))

    def tangent(self, x: Tensor, params: Params, state_dims: int) -> Tensor:
        g, u, k = x[..., :-1], x[..., -1], params["conductivity"]
        result = x.new_zeros(*x.shape, x.shape[-1])
        result[..., :-1, -1] = (k * self.relative.slope(u)).unsqueeze(-1) * g
        result[..., :-1, :-1].diagonal(dim1=-2, dim2=-1).copy_((k * self.relative.value(u)).unsqueeze(-1))
        return result

    def element_matrices(self, x: Tensor, params: Params, cells: Cells) -> Tensor:
        # Contracted by hand: the tangent has no more entries than a scalar and a vector for each point.
        g, u, scale = x[..., :-1], x[..., -1], cells.weights * params["conductivity"]
        along = (scale * self.relative.value(u))[:, None, :, None] * cells.matrix[..., :-1]
        across = ((scale * self.relative.slope(u)).unsqueeze(-1) * g).unsqueeze(1) * cells.matrix[..., -1:]
        left, right = cells.matrix[..., :-1].flatten(2), (along + across).flatten(2)
        return matmul(left, right.mT).unsqueeze(0)


class NonlinearDiffusion(LocalResidual):
    """- div(k f(u) grad u) = source on a mesh; the unknown is u at the nodes that are not fixed.

        flow = NonlinearDiffusion(mesh, QuadraticConductivity(), [mesh.fixed("left", value=1.0), mesh.fixed("right")])
        solution = bilevel.root(flow, flow.start(), {"flow": {"conductivity": k}, "source": q})

    params: "flow": {"conductivity": k} (), per cell (E,) or per point (E, Q); optional "source"; with transient=True
    "storage": {"capacity": c} for time steps (see `time_stepping.march`).
    """

    def __init__(
        self,
        mesh: Mesh,
        relative: RelativeConductivity,
        constraints: Sequence[Constraint],
        *,
        transient: bool = False,
    ) -> None:
        self.values = mesh.operator(gradient=False, value=True)
        both = mesh.operator(value=True)
        terms = [
            Term("flow", both, VariableConduction(relative), Measure((mesh.dim + 1,))),
            Term("source", self.values, Source(), VALUE),
        ]
        if transient:
            terms.append(Term("storage", self.values, Storage("capacity"), VALUE))
        super().__init__(terms, len(mesh.coordinates), 1, constraints)

    def stage(self, params: Mapping[str, Any], anchor: Tensor, tau: Tensor) -> Params:
        """The parameters of one implicit step of length tau from the field `anchor` (nodes, 1); see `time_stepping.march`."""
        level = self.values.apply(anchor)[..., 0, 0]
        return {**params, "storage": {**params["storage"], "anchor": level, "tau": tau}}
