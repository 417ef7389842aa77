"""Flow whose flux grows with a power of the gradient, on meshes: the p-Laplacian."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from physics.constitutive.flow.power_law import PowerLaw
from physics.discretisation import Mesh
from physics.discretisation.constraints import Constraint
from physics.flow.darcy import Diffusion


class PLaplacian(Diffusion):
    """- div(k |grad u|^(p-2) grad u) = source on a mesh; the unknown is u at the nodes that are not fixed.

        flow = PLaplacian(mesh, 1.5, 1e-3, [mesh.fixed("left", value=1.0), mesh.fixed("right")])
        solution = bilevel.argmin(flow, flow.start(), {"flow": {"conductivity": k}, "source": q})

    exponent: p. threshold: the gradient e below which the flow is linear. params: "flow": {"conductivity": k} (), per
    cell (E,) or per point (E, Q); optional "source" per volume and "wells" (nodes,). Raises InputError where no value is
    fixed, and for an exponent or threshold that `PowerLaw` refuses.
    """

    def __init__(self, mesh: Mesh, exponent: float, threshold: float, constraints: Sequence[Constraint]) -> None:
        law = PowerLaw(exponent, threshold, "conductivity")
        super().__init__(mesh, constraints, law=law, wells=torch.arange(len(mesh.coordinates)))
