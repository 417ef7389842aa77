"""Family a: nonlinear flow on graphs, E = sum over edges of C_e/p |drop|^p less the inflows, log-normal conductances."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from bilevel.acceleration.family import Family, Instance, Variation
from physics.constitutive.flow.power_law import PowerLaw
from physics.families.family import generator
from physics.families.flow_setting import THRESHOLD, Rock, exponent
from physics.families.networks import Network, read_network


@dataclass(frozen=True)
class PowerLawFlow(Family):
    """Heads fixed on two sides, wells in between; p from 1.2 to 6.

    TRAINING: pores in a block of rock, log-conductances of standard deviation 0.5 to 1.5. CONTRAST: 2 to 3. MESH: square
    and cubic lattices. LOADS: heads fixed on one side only, ten times as many wells. GEOMETRY: streets of a town.
    head_unit, conductance_unit: the same problems in other units. exponent: p for all instances, None to draw it. network: in place of those drawn, whatever the size asked for.
    """

    head_unit: float = 1.0
    conductance_unit: float = 1.0
    exponent: float | None = None
    network: Network | None = None

    name: ClassVar[str] = "power_law"
    version: ClassVar[int] = 2
    training_size: ClassVar[int] = 800

    def on_graph(self, nodes: Path, edges: Path) -> Family:
        return replace(self, network=read_network(nodes, edges))

    def instance(self, size: int, seed: int, variation: Variation = Variation.TRAINING) -> Instance:
        rng = generator(self.name, size, seed, variation)
        drawn = exponent(rng)
        p = drawn if self.exponent is None else self.exponent
        rock = Rock.draw(size, variation, rng, self.head_unit, self.network)
        conductance = rock.conductance.values * self.conductance_unit
        flux = float(conductance.median()) * rock.typical ** (p - 1.0)
        law = PowerLaw(p, THRESHOLD * rock.typical)
        return rock.instance(law, {"conductance": conductance}, flux, f"p = {p:.2f}")
