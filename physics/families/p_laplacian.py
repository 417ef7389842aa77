"""Family a: nonlinear flow on meshes, E = integral of k/p |grad u|^p less the inflows, log-normal conductivities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from bilevel.acceleration.family import Family, Instance, Variation
from physics.families.family import generator
from physics.families.flow_setting import THRESHOLD, Conductance, exponent, wells
from physics.families.hidden import disc, without
from physics.families.triangulations import regular, shifted
from physics.flow.cellwise import FlowCells
from physics.flow.p_laplacian import PLaplacian


@dataclass(frozen=True)
class PLaplacianFlow(Family):
    """Heads fixed on two sides of the unit square, wells in between; p from 1.2 to 6.

    TRAINING: triangles of shifted nodes, log-conductivities of standard deviation 0.5 to 1.5. CONTRAST: 2 to 3. MESH:
    regular triangles, or tetrahedra of the unit cube. LOADS: heads fixed on one side only, ten times as many wells. GEOMETRY: a hole.
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
        if variation is Variation.GEOMETRY:
            mesh = without(mesh, disc(mesh, rng))
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
        return Instance(problem, params, start, described, cellwise=split)
