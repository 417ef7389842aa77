"""What the families of nonlinear flow share: log-normal conductances, exponents, and pores between two held sides."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bilevel.acceleration.family import Instance, Variation
from physics.constitutive.flow.law import FlowLaw
from physics.discretisation.constraints import Dirichlet
from physics.discretisation.graph import Graph
from physics.families.networks import Network, lattice, pores, streets
from physics.families.random_field import log_normal
from physics.flow.cellwise import FlowCells
from physics.flow.network import FlowNetwork

BELOW_TWO, ABOVE_TWO = (1.2, 1.8), (2.5, 6.0)
"""Exponents p are drawn from either range with equal odds; in between the problem is nearly linear."""

THRESHOLD = 1e-3
"""A power law's threshold as a fraction of a typical gradient."""


def exponent(rng: np.random.Generator) -> float:
    """The p of a power law."""
    return float(rng.uniform(*(BELOW_TWO if rng.uniform() < 0.5 else ABOVE_TWO)))


@dataclass(frozen=True, eq=False)
class Conductance:
    """Log-normal values (E,), and the standard deviation of their logarithms."""

    values: Tensor
    deviation: float

    @staticmethod
    def draw(middles: np.ndarray, spacing: float, variation: Variation, rng: np.random.Generator) -> Conductance:
        """At points (E, dim) in the unit square or cube whose neighbours are `spacing` apart."""
        deviation = rng.uniform(2.0, 3.0) if variation is Variation.CONTRAST else rng.uniform(0.5, 1.5)
        length = np.exp(rng.uniform(np.log(min(2.0 * spacing, 0.4)), np.log(0.5)))
        return Conductance(torch.from_numpy(log_normal(middles, length, deviation, rng)), deviation)


def wells(nodes: int, variation: Variation, rng: np.random.Generator) -> Tensor:
    """Inflows (nodes,) in units of the flow of a typical edge: each well takes or gives what ten such edges carry."""
    per_thousand = 30 if variation is Variation.LOADS else 3
    count = max(1, round(per_thousand * nodes / 1000))
    inflow = torch.zeros(nodes, dtype=torch.float64)
    inflow[torch.from_numpy(rng.choice(nodes, count, replace=False))] = torch.from_numpy(
        rng.uniform(3.0, 10.0, count) * rng.choice([-1.0, 1.0], count)
    )
    return inflow


@dataclass(frozen=True, eq=False)
class Rock:
    """Pores, a lattice or streets, with wells, and heads held on two sides, 0 and `head_unit`; LOADS hold one only."""

    network: Network
    conductance: Conductance
    inflow: Tensor
    variation: Variation
    head_unit: float

    @staticmethod
    def draw(
        size: int, variation: Variation, rng: np.random.Generator, head_unit: float, given: Network | None = None
    ) -> Rock:
        if given is not None:
            network = given
        elif variation is Variation.MESH:
            network = lattice(size, int(rng.integers(2, 4)), rng)
        else:
            network = (streets if variation is Variation.GEOMETRY else pores)(size, rng)
        conductance = Conductance.draw(network.points[network.edges].mean(1), network.spacing, variation, rng)
        inflow = wells(len(network.points), variation, rng)
        return Rock(network, conductance, inflow, variation, head_unit)

    @property
    def typical(self) -> float:
        """The head drop of a typical edge."""
        return self.network.spacing * self.head_unit

    def instance(self, law: FlowLaw, flow: dict[str, Tensor], flux: float, described: str) -> Instance:
        """Flow by a law with parameters `flow`, where a typical edge carries `flux`."""
        points, edges = self.network.points, self.network.edges
        graph = Graph(len(points), torch.from_numpy(edges))
        held = self.network.side(True)
        if self.variation is not Variation.LOADS:
            held = np.concatenate([held, self.network.side(False)])
        head = torch.from_numpy((points[held, 0] > 0.5) * self.head_unit)
        constraint = Dirichlet("sides", torch.from_numpy(held), value=head[:, None])
        problem = FlowNetwork(graph, law, (constraint,))
        params: dict[str, Any] = {"flow": flow, "inflow": self.inflow * flux}
        split = FlowCells(problem, params, self.typical)
        start = split.linear_start()
        described = (
            f"{self.variation.value}: {graph.nodes} nodes, {len(edges)} edges, {described}, "
            f"deviation {self.conductance.deviation:.2f}"
        )
        return Instance(problem, params, start, described, cellwise=split)
