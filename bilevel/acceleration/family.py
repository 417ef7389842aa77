"""Families of problems on which learned steps are trained and measured, and the graph through which networks see them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any, ClassVar

import torch
from torch import Tensor

from bilevel.problem import EnergyProblem, Params
from bilevel.report import InputError
from bilevel.solvers.cellwise.problem import CellwiseProblem
from bilevel.solvers.load_stepping import Path


class Variation(str, Enum):
    """What an instance changes against the training set; sizes are changed apart from these."""

    TRAINING = "training"
    CONTRAST = "contrast"
    MESH = "mesh"
    LOADS = "loads"


@dataclass(frozen=True, eq=False)
class NodeGraph:
    """A problem's nodes and who is whose neighbour; nothing in it depends on the units of the unknown or the energy.

    edges (2, m): each pair of neighbours once. node_features (nodes, F), edge_features (m, K): pure numbers that stay
    the same in other units and for any order of the nodes; F and K may be 0 and are the same for a whole family.
    node_of_dof (n,): the node of each unknown. field: u (n,) -> the full nodal field (nodes, components), with
    boundary values; its differences along edges are invariant to rigid translations.
    """

    edges: Tensor
    node_features: Tensor
    edge_features: Tensor
    node_of_dof: Tensor
    field: Callable[[Tensor], Tensor]

    def __post_init__(self) -> None:
        if self.edges.dim() != 2 or self.edges.shape[0] != 2 or self.edges.dtype != torch.int64:
            raise InputError(f"edges are int64 of shape (2, m), got {tuple(self.edges.shape)} {self.edges.dtype}")
        if self.edge_features.shape[0] != self.edges.shape[1]:
            raise InputError(f"{self.edges.shape[1]} edges but {self.edge_features.shape[0]} rows of edge features")

    @property
    def nodes(self) -> int:
        return self.node_features.shape[0]

    @property
    def free(self) -> Tensor:
        """Which nodes (nodes,) carry at least one unknown."""
        mask = torch.zeros(self.nodes, dtype=torch.bool)
        mask[self.node_of_dof] = True
        return mask

    def to_data(self) -> Any:
        """As torch_geometric data: x, edge_index with each edge both ways, edge_attr likewise, free."""
        from torch_geometric.data import Data

        both = torch.cat((self.edges, self.edges.flip(0)), 1)
        features = torch.cat((self.edge_features, self.edge_features))
        return Data(x=self.node_features, edge_index=both, edge_attr=features, free=self.free, num_nodes=self.nodes)


@dataclass(frozen=True, eq=False)
class Instance:
    """One problem of a family: what is solved, from where, and its graph.

    start (n,): the classical start that all methods, learned or not, are given; it satisfies the boundary conditions.
    cellwise: the problem as linear systems from local states that need not fit together, where the family has that form;
    the learned first guess needs it. graph: what a learned step reads; None of problems that only guesses are trained on.
    path: the parameters at a fraction of the load, where classical solvers step through it.
    """

    problem: EnergyProblem
    params: Params
    start: Tensor
    graph: NodeGraph | None
    description: str
    cellwise: CellwiseProblem | None = None
    path: Path | None = None

    @property
    def nodes(self) -> int:
        return self.read_by_steps.nodes

    @property
    def read_by_steps(self) -> NodeGraph:
        """The graph; InputError where there is none."""
        if self.graph is None:
            raise InputError("these problems have no graph for a learned step to read")
        return self.graph


class Family(ABC):
    """A generator of similar problems of any size.

    name: as in the model card. version: raised whenever features or instances change; weights carry it.
    training_size: nodes of a training instance; tests are at 4, 16 and 64 times as many.
    """

    name: ClassVar[str]
    version: ClassVar[int]
    training_size: ClassVar[int]

    @abstractmethod
    def instance(self, size: int, seed: int, variation: Variation = Variation.TRAINING) -> Instance:
        """The instance of about `size` nodes that belongs to a seed; the same arguments give the same instance."""
