"""Family a: nonlinear flow on graphs, E = sum over edges of C_e/p |drop|^p less the inflows, log-normal conductances."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from bilevel.steps.family import Family, Instance, NodeGraph, Variation
from physics.constraints import Dirichlet
from physics.families.edge_split import EdgeSplit
from physics.families.family import generator, node_graph
from physics.families.networks import Network, lattice, pores
from physics.families.random_field import log_normal
from physics.flow.edge_laws import PowerLaw
from physics.flow.network import FlowNetwork
from physics.graph import Graph

BELOW_TWO, ABOVE_TWO = (1.2, 1.8), (2.5, 6.0)
"""Exponents p are drawn from either range with equal odds; in between the problem is nearly linear."""

THRESHOLD = 1e-3
"""The law's threshold drop as a fraction of the drop of a typical edge."""


@dataclass(frozen=True)
class PowerLawFlow(Family):
    """Heads fixed on two sides, wells in between; p from 1.2 to 6.

    TRAINING: pores in a block of rock, log-conductances of standard deviation 0.5 to 1.5. CONTRAST: 2 to 3. MESH: square
    and cubic lattices. LOADS: heads fixed on one side only, ten times as many wells.
    head_unit, conductance_unit: the same problems in other units. exponent: p for all instances, None to draw it.
    """

    head_unit: float = 1.0
    conductance_unit: float = 1.0
    exponent: float | None = None

    name: ClassVar[str] = "power_law"
    version: ClassVar[int] = 2
    training_size: ClassVar[int] = 800

    def instance(self, size: int, seed: int, variation: Variation = Variation.TRAINING) -> Instance:
        rng = generator(self.name, size, seed, variation)
        p = self._exponent(rng)
        network = self._network(size, variation, rng)
        deviation = rng.uniform(2.0, 3.0) if variation is Variation.CONTRAST else rng.uniform(0.5, 1.5)
        length = np.exp(rng.uniform(np.log(min(2.0 * network.spacing, 0.4)), np.log(0.5)))
        middles = network.points[network.edges].mean(1)
        conductance = torch.from_numpy(log_normal(middles, length, deviation, rng)) * self.conductance_unit
        typical = network.spacing * self.head_unit
        sides = variation is not Variation.LOADS
        inflow = _wells(network, 30 if variation is Variation.LOADS else 3, rng)
        inflow = inflow * float(conductance.median()) * typical ** (p - 1.0)
        graph = Graph(len(network.points), torch.from_numpy(network.edges))
        held = np.concatenate([network.side(True), network.side(False)]) if sides else network.side(True)
        head = torch.from_numpy((network.points[held, 0] > 0.5) * self.head_unit)
        constraint = Dirichlet("sides", torch.from_numpy(held), value=head[:, None])
        problem = FlowNetwork(graph, PowerLaw(p, THRESHOLD * typical), (constraint,))
        params = {"flow": {"conductance": conductance}, "inflow": inflow}
        split = EdgeSplit(problem, params, typical)
        start = split.linear_start()
        described = (
            f"{variation.value}: {graph.nodes} nodes, {len(graph.edges)} edges, p = {p:.2f}, deviation {deviation:.2f}"
        )
        return Instance(problem, params, start, _graph(problem, params, p), described, states=split)

    def _exponent(self, rng: np.random.Generator) -> float:
        drawn = rng.uniform(*(BELOW_TWO if rng.uniform() < 0.5 else ABOVE_TWO))
        return drawn if self.exponent is None else self.exponent

    @staticmethod
    def _network(size: int, variation: Variation, rng: np.random.Generator) -> Network:
        if variation is Variation.MESH:
            return lattice(size, int(rng.integers(2, 4)), rng)
        return pores(size, rng)


def _wells(network: Network, per_thousand: int, rng: np.random.Generator) -> Tensor:
    """Inflows (nodes,) in units of the flow of a typical edge: each well takes or gives what ten such edges carry."""
    count = max(1, round(per_thousand * len(network.points) / 1000))
    inflow = torch.zeros(len(network.points), dtype=torch.float64)
    inflow[torch.from_numpy(rng.choice(len(inflow), count, replace=False))] = torch.from_numpy(
        rng.uniform(3.0, 10.0, count) * rng.choice([-1.0, 1.0], count)
    )
    return inflow


def _graph(problem: FlowNetwork, params: dict[str, Any], p: float) -> NodeGraph:
    """Nodes know the exponent and whether their head is free, edges their conductance against the mean."""
    edges = problem.graph.edges
    logarithm = params["flow"]["conductance"].log()
    free = torch.zeros(problem.graph.nodes, dtype=torch.float64)
    free[problem.constraints.free] = 1.0
    nodes = torch.stack((free, torch.full_like(free, (p - 2.0) / p)), 1)
    return node_graph(problem, params, edges.mT, nodes, (logarithm - logarithm.mean())[:, None])
