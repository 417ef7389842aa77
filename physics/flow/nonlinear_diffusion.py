"""Diffusion whose conductivity depends on the field itself: the flux k f(u) grad u, balanced with sources."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from bilevel.problem import Params
from physics.constitutive.flow.field_dependent import FieldDependentConduction
from physics.discretisation import Mesh
from physics.discretisation.constraints import Constraint
from physics.flow.darcy import VALUE, Source, Storage
from physics.local.density import Measure
from physics.local.residual import LocalResidual
from physics.local.term import Term


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
        law: FieldDependentConduction,
        constraints: Sequence[Constraint],
        *,
        transient: bool = False,
    ) -> None:
        self.values = mesh.operator(gradient=False, value=True)
        both = mesh.operator(value=True)
        terms = [
            Term("flow", both, law, Measure((mesh.dim + 1,))),
            Term("source", self.values, Source(), VALUE),
        ]
        if transient:
            terms.append(Term("storage", self.values, Storage("capacity"), VALUE))
        super().__init__(terms, len(mesh.coordinates), 1, constraints)

    def stage(self, params: Mapping[str, Any], anchor: Tensor, tau: Tensor) -> Params:
        """The parameters of one implicit step of length tau from the field `anchor` (nodes, 1); see `time_stepping.march`."""
        level = self.values.apply(anchor)[..., 0, 0]
        return {**params, "storage": {**params["storage"], "anchor": level, "tau": tau}}
