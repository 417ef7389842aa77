"""A field freed from noise by smoothed total variation."""

from __future__ import annotations

import torch

from bilevel.problem import Params
from bilevel.report import InputError
from bilevel.solvers.cellwise.problem import SplitEnergy
from physics.discretisation import Mesh
from physics.discretisation.operator import nodal_operator
from physics.local.density import Measure
from physics.local.energy import LocalEnergy
from physics.local.term import Term
from physics.local.total_variation.cells import VariationCells
from physics.local.total_variation.density import Misfit, SmoothedVariation
from physics.local.total_variation.systems import VariationSystems


class Denoising(LocalEnergy, SplitEnergy):
    """E(u) = integral of weight (sqrt(|grad u|^2 + e^2) - e) + sum over nodes of mass / 2 (u - value)^2, e = smoothing.

    params: "variation": {"weight", "smoothing"}, each () or per cell (E,); "data": {"mass", "value"} (nodes,).
    Source: Rudin, Osher & Fatemi 1992; Vogel & Oman 1996.
    """

    def __init__(self, mesh: Mesh) -> None:
        nodes = len(mesh.coordinates)
        variation = Term("variation", mesh.operator(), SmoothedVariation(), Measure((mesh.dim,)))
        data = Term("data", nodal_operator(torch.arange(nodes)), Misfit(), Measure((1, 1)))
        super().__init__([variation, data], nodes)

    def cellwise(self, params: Params) -> VariationCells | None:
        try:
            return VariationCells(VariationSystems.of(self, params))
        except InputError:  # the gradient varies within cells
            return None
