"""Family a: inertial flow on graphs, drop = a q + b q|q| along every edge, log-normal conductances 1/a."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np

from bilevel.acceleration.family import Family, Instance, Variation
from physics.constitutive.flow.forchheimer import Forchheimer
from physics.families.family import generator
from physics.families.flow_setting import Rock
from physics.families.networks import Network, read_network

INERTIA = (1.0, 1000.0)
"""Forchheimer numbers b q / a of a typical edge: the inertial loss over the viscous one; uniform in their logarithm."""


@dataclass(frozen=True)
class ForchheimerFlow(Family):
    """Heads fixed on two sides, wells in between; nearly Darcy's law in some edges, far from it in others.

    b is in proportion to a: viscous and inertial losses of a throat both go as the inverse fourth power of its radius.
    TRAINING: pores in a block of rock, log-conductances of standard deviation 0.5 to 1.5. CONTRAST: 2 to 3. MESH: square
    and cubic lattices. LOADS: heads fixed on one side only, ten times as many wells. GEOMETRY: streets of a town.
    head_unit, conductance_unit: the same problems in other units. inertia: the Forchheimer number of a typical edge for
    all instances, None to draw it. network: in place of those drawn, whatever the size asked for.
    """

    head_unit: float = 1.0
    conductance_unit: float = 1.0
    inertia: float | None = None
    network: Network | None = None

    name: ClassVar[str] = "forchheimer"
    version: ClassVar[int] = 1
    training_size: ClassVar[int] = 800

    def on_graph(self, nodes: Path, edges: Path) -> Family:
        return replace(self, network=read_network(nodes, edges))

    def instance(self, size: int, seed: int, variation: Variation = Variation.TRAINING) -> Instance:
        rng = generator(self.name, size, seed, variation)
        drawn = float(np.exp(rng.uniform(*np.log(INERTIA))))
        number = drawn if self.inertia is None else self.inertia
        rock = Rock.draw(size, variation, rng, self.head_unit, self.network)
        conductance = rock.conductance.values * self.conductance_unit
        flux = float(conductance.median()) * rock.typical / (1.0 + number)
        flow = {"linear": 1.0 / conductance, "quadratic": number / (flux * conductance)}
        return rock.instance(Forchheimer(), flow, flux, f"b q / a = {number:.3g}")
