"""Graphs: edge differences and nodal values as operators, a thin bridge to torch_geometric.data.Data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bilevel.report import InputError
from physics.discretisation.operator import FixedOperator, nodal_operator


@dataclass(frozen=True, eq=False)
class Graph:
    """nodes: how many. edges (E, 2): tail and head of each edge, each edge once; its difference is u(head) - u(tail).

    Raises InputError for an edge from a node to itself or to a node that does not exist.
    """

    nodes: int
    edges: Tensor

    def __post_init__(self) -> None:
        if self.edges.dim() != 2 or self.edges.shape[1] != 2 or self.edges.is_floating_point():
            raise InputError(
                f"edges are whole numbers of shape (edges, 2), got {tuple(self.edges.shape)} {self.edges.dtype}"
            )
        if len(self.edges) and (int(self.edges.min()) < 0 or int(self.edges.max()) >= self.nodes):
            raise InputError(f"an edge names node {int(self.edges.max())}, but there are {self.nodes}, counted from 0")
        loops = torch.nonzero(self.edges[:, 0] == self.edges[:, 1])
        if len(loops):
            raise InputError(f"edge {int(loops[0])} joins node {int(self.edges[loops[0, 0], 0])} to itself")

    @staticmethod
    def from_data(data: Any) -> Graph:
        """From torch_geometric data; an undirected graph, which lists each edge both ways, gives each edge once."""
        edge_index = data.edge_index
        if data.is_undirected():
            edge_index = edge_index[:, edge_index[0] < edge_index[1]]
        return Graph(int(data.num_nodes), edge_index.mT.contiguous())

    def to_data(self, **attributes: Any) -> Any:
        """As torch_geometric data, with each edge once and further attributes as given."""
        from torch_geometric.data import Data

        return Data(edge_index=self.edges.mT.contiguous(), num_nodes=self.nodes, **attributes)

    def difference(self, weights: Tensor | None = None) -> FixedOperator:
        """u(head) - u(tail) on each edge: B = (-1, 1), one point and one column; weights (E,), default 1."""
        return self._operator(torch.tensor([[-1.0], [1.0]], dtype=torch.float64), weights)

    def drop(self, weights: Tensor | None = None) -> FixedOperator:
        """u(tail) - u(head) on each edge, which drives the flow from tail to head; weights (E,), default 1."""
        return self._operator(torch.tensor([[1.0], [-1.0]], dtype=torch.float64), weights)

    def difference_and_mean(self, weights: Tensor | None = None) -> FixedOperator:
        """Difference and mean of the two ends of each edge, two columns; weights (E,), default 1."""
        return self._operator(torch.tensor([[-1.0, 0.5], [1.0, 0.5]], dtype=torch.float64), weights)

    def values(self, nodes: Tensor | None = None, weights: Tensor | None = None) -> FixedOperator:
        """The values at nodes (default all), one point and one column; weights (nodes,), default 1."""
        return nodal_operator(torch.arange(self.nodes) if nodes is None else nodes, weights)

    def _operator(self, columns: Tensor, weights: Tensor | None) -> FixedOperator:
        count = len(self.edges)
        weight = torch.ones(count, dtype=torch.float64) if weights is None else weights
        return FixedOperator(self.edges, columns[:, None, :].expand(count, 2, 1, columns.shape[1]), weight[:, None])
