"""What the families of physical problems share: seeded generators, point clouds, random fields, graphs of local energies.

The contract (`Family`, `Instance`, `NodeGraph`, `Variation`) is in `bilevel.acceleration.family`.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from bilevel.acceleration.family import NodeGraph, Variation
from bilevel.problem import Params
from physics.local.energy import LocalEnergy


def generator(family: str, size: int, seed: int, variation: Variation) -> np.random.Generator:
    """The random numbers of one instance; other families, sizes, seeds and variations draw others."""
    key = [*family.encode(), size, seed, list(Variation).index(variation)]
    return np.random.default_rng(key)


def neighbours(cells: Tensor) -> Tensor:
    """The pairs (2, m) of nodes that share a cell (E, A), each pair once, smaller node first."""
    first, second = torch.triu_indices(cells.shape[1], cells.shape[1], 1)
    pairs = torch.stack((cells[:, first].reshape(-1), cells[:, second].reshape(-1)))
    return torch.unique(pairs.sort(0).values, dim=1)


def node_graph(
    problem: LocalEnergy, params: Params, edges: Tensor, node_features: Tensor, edge_features: Tensor
) -> NodeGraph:
    """The graph of a local energy whose unknowns are a selection of its nodal components."""
    components = problem.constraints.shape[1]
    node_of_dof = problem.constraints.free // components
    return NodeGraph(edges, node_features, edge_features, node_of_dof, lambda u: problem.expand(u, params))
