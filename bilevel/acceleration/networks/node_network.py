"""The network of the learned step: from a state and a direction to a factor for every node, a damping and a momentum."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bilevel.acceleration.family import NodeGraph

FEATURE_VERSION = 1
"""Raised whenever the features below change their meaning; weights carry it."""

NODE_FEATURES, EDGE_FEATURES = 5, 4
WIDEST = 8.0
"""Logarithms of ratios are cut here."""

LARGEST_FACTOR = 8.0
"""Factors of nodes lie between 1 / LARGEST_FACTOR and LARGEST_FACTOR."""


@dataclass(frozen=True, eq=False)
class Proposal:
    """factors (nodes,) > 0, damping > 0 and momentum: the move is damping * factors * direction + momentum * last move."""

    factors: Tensor
    damping: Tensor
    momentum: Tensor


class NodeNetwork(nn.Module):
    """Messages along the edges of a node graph; before training all factors and the damping are 1, the momentum 0.

    static_nodes, static_edges: how many features the family's graphs bring along. hidden: width. rounds: of messages;
    0 leaves every node to itself.
    """

    def __init__(self, static_nodes: int, static_edges: int, hidden: int = 16, rounds: int = 2) -> None:
        super().__init__()
        from torch_geometric.nn import MeanAggregation

        self.settings = {"static_nodes": static_nodes, "static_edges": static_edges, "hidden": hidden, "rounds": rounds}
        self.mean = MeanAggregation()
        self.nodes = nn.Sequential(nn.Linear(NODE_FEATURES + static_nodes, hidden), nn.ReLU())
        self.edges = nn.Sequential(nn.Linear(EDGE_FEATURES + static_edges, hidden), nn.ReLU())
        self.listen = nn.ModuleList(nn.Linear(hidden, hidden) for _ in range(rounds))
        self.own = nn.ModuleList(nn.Linear(2 * hidden, hidden) for _ in range(rounds))
        self.factor = nn.Linear(hidden, 1)
        self.whole = nn.Linear(hidden, 2)
        for head in (self.factor, self.whole):
            nn.init.zeros_(head.weight)
            nn.init.zeros_(head.bias)
        self.to(torch.float32)

    def forward(self, nodes: Tensor, edges: Tensor, edge_index: Tensor) -> Proposal:
        """nodes (N, .), edges (2 m, .) and edge_index (2, 2 m), with each edge both ways."""
        state, message = self.nodes(nodes), self.edges(edges)
        source, target = edge_index
        for listen, own in zip(self.listen, self.own, strict=True):
            heard = self.mean(torch.relu(listen(state)[source] + message), target, dim_size=len(nodes))
            state = state + torch.relu(own(torch.cat((state, heard), 1)))
        widest = math.log(LARGEST_FACTOR)
        damping, momentum = self.whole(state.mean(0)).unbind()
        factors = (widest * torch.tanh(self.factor(state)[:, 0])).exp().double()
        return Proposal(factors, torch.tanh(damping).exp().double(), 0.9 * torch.tanh(momentum).double())


class View:
    """A problem's graph as the network reads it; what does not change from step to step is made once."""

    def __init__(self, graph: NodeGraph) -> None:
        self.graph = graph
        data = graph.to_data()
        self.edge_index = data.edge_index
        self._nodes, self._edges = data.x.float(), data.edge_attr.float()
        self._at_zero = graph.field(torch.zeros(len(graph.node_of_dof), dtype=torch.float64))

    def read(self, u: Tensor, residual: Tensor, direction: Tensor, last: Tensor | None) -> tuple[Tensor, Tensor]:
        """Features of nodes and of edges, float32: ratios of lengths and cosines alone, so that units cancel."""
        with torch.no_grad():
            way, force = self._per_node(direction), self._per_node(residual)
            before = torch.zeros_like(way) if last is None else self._per_node(last)
            size, old = _length(way), _length(before)
            known = float(last is not None)
            cosine = (way * before).sum(1) / (size * old).clamp(min=torch.finfo(size.dtype).tiny)
            nodes = torch.stack(
                (
                    _relative(size),
                    _relative(_length(force)),
                    known * cosine,
                    known * _logarithm(old, size),
                    torch.full_like(size, known),
                ),
                1,
            )
            edges = self._strains(self.graph.field(u), way)
        return torch.cat((nodes.float(), self._nodes), 1), torch.cat((edges.repeat(2, 1).float(), self._edges), 1)

    def _per_node(self, values: Tensor) -> Tensor:
        """Values (n,) of the unknowns as (nodes, components), zero where a node is held."""
        return self.graph.field(values) - self._at_zero

    def _strains(self, field: Tensor, way: Tensor) -> Tensor:
        """How the differences along edges (m, .) would change: sizes, the signed ratio, and the size of the state's own."""
        tail, head = self.graph.edges
        state, change = field[head] - field[tail], way[head] - way[tail]
        own, moved = _length(state), _length(change)
        square = (own * own).clamp(min=torch.finfo(own.dtype).tiny)
        signed = (state * change).sum(1) / square
        return torch.stack((_relative(own), _logarithm(moved, own), torch.asinh(signed), _relative(moved)), 1)


def _length(vectors: Tensor) -> Tensor:
    return torch.linalg.vector_norm(vectors, dim=1)


def _relative(lengths: Tensor) -> Tensor:
    """The logarithm of lengths over their mean; the mean over all nodes or edges makes no difference to larger problems."""
    return _logarithm(lengths, lengths.mean().expand_as(lengths))


def _logarithm(first: Tensor, second: Tensor) -> Tensor:
    tiny = torch.finfo(first.dtype).tiny
    return ((first.clamp(min=tiny) / second.clamp(min=tiny)).log()).clamp(-WIDEST, WIDEST) / 4.0
