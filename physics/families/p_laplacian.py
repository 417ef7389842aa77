"""Family a: nonlinear flow on meshes, E = integral of k/p |grad u|^p less the inflows, log-normal conductivities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from bilevel.acceleration.family import Family, Instance, NodeGraph, Variation
from physics.discretisation import Mesh
from physics.families.family import generator, neighbours, node_graph
from physics.families.flow_setting import THRESHOLD, Conductance, exponent, wells
from physics.families.triangulations import regular, shifted
from physics.flow.cellwise import FlowCells
from physics.flow.p_laplacian import PLaplacian


@dataclass(frozen=True)
class PLaplacianFlow(Family):
    """Heads fixed on two sides of the unit square, wells in between; p from 1.2 to 6.

    TRAINING: triangles of shifted nodes, log-conductivities of standard deviation 0.5 to 1.5. CONTRAST: 2 to 3. MESH:
    regular triangles, or tetrahedra of the unit cube. LOADS: heads fixed on one side only, ten times as many wells.
    head_unit, conductance_unit: the same problems in other units. exponent: p for all instances, None to draw it.
    """

    head_unit: float = 1.0
    conductance_unit: float = 1.0
    exponent: float | None = None

    name: ClassVar[str] = "p_laplacian"
    version: ClassVar[int] = 1
    training_size: ClassVar[int] = 800

    def instance(self, size: int, seed: int, variation: Variation = Variation.TRAINING) -> Instance:
        rng = generator(self.name, size, seed, variation)
        drawn = exponent(rng)
        p = drawn if self.exponent is None else self.exponent
        mesh = regular(size, int(rng.integers(2, 4))) if variation is Variation.MESH else shifted(size, rng)
        spacing = float(mesh.operator().weights().sum(1).mean()) ** (1.0 / mesh.dim)
        middles = mesh.coordinates[mesh.cells].mean(1).numpy()
        drawn_conductance = Conductance.draw(middles, spacing, variation, rng)
        conductivity = drawn_conductance.values * self.conductance_unit
        flow = float(conductivity.median()) * self.head_unit ** (p - 1.0) * spacing ** (mesh.dim - 1.0)
        inflow = wells(len(mesh.coordinates), variation, rng) * flow
        held = [mesh.fixed("left")]
        if variation is not Variation.LOADS:
            held.append(mesh.fixed("right", value=self.head_unit))
        problem = PLaplacian(mesh, p, THRESHOLD * self.head_unit, held)
        params: dict[str, Any] = {"flow": {"conductivity": conductivity}, "wells": inflow}
        split = FlowCells(problem, params, self.head_unit)
        start = split.linear_start()
        described = (
            f"{variation.value}: {split.nodes} nodes, {len(mesh.cells)} cells in {mesh.dim}-D, p = {p:.2f}, "
            f"deviation {drawn_conductance.deviation:.2f}"
        )
        graph = _graph(problem, mesh, params, p)
        return Instance(problem, params, start, graph, described, cellwise=split)


def _graph(problem: PLaplacian, mesh: Mesh, params: dict[str, Any], p: float) -> NodeGraph:
    """Nodes know the exponent and whether their head is free, edges the conductivity around them against the mean."""
    edges, nodes = neighbours(mesh.cells), len(mesh.coordinates)
    logarithm = params["flow"]["conductivity"].log()
    around = _nodal_mean(logarithm - logarithm.mean(), mesh.cells, nodes)
    free = torch.zeros(nodes, dtype=torch.float64)
    free[problem.constraints.free] = 1.0
    features = torch.stack((free, torch.full_like(free, (p - 2.0) / p)), 1)
    return node_graph(problem, params, edges, features, around[edges].mean(0)[:, None])


def _nodal_mean(values: Tensor, cells: Tensor, nodes: int) -> Tensor:
    """The mean (nodes,) over the cells around each node of values (E,)."""
    total, index = values.new_zeros(nodes), cells.reshape(-1)
    times = torch.bincount(index, minlength=nodes)
    return total.index_add(0, index, values.repeat_interleave(cells.shape[1])) / times
