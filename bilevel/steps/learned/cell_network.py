"""The network of the learned first guess: messages from cells to their nodes and back."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bilevel.steps.learned.split import SplitProblem

FEATURES = 8
FEATURE_VERSION = 1
"""Raised whenever the features below change their meaning; weights carry it."""

WIDEST = 12.0
"""Logarithms of ratios are cut here: a factor of 1.6e5 is as good as zero or infinity."""


class Incidence:
    """Means over the cells of each node, and over the nodes of each cell, of features (., F)."""

    def __init__(self, cells: Tensor, nodes: int) -> None:
        self.cells, self.nodes = cells, nodes
        degree = torch.bincount(cells.reshape(-1), minlength=nodes).clamp(min=1)
        self.share = (1.0 / degree).to(torch.float32)[:, None]

    def to_nodes(self, values: Tensor) -> Tensor:
        total = values.new_zeros(self.nodes, values.shape[1])
        for column in self.cells.unbind(1):
            total = total.index_add(0, column, values)
        return total * self.share

    def to_cells(self, values: Tensor) -> Tensor:
        first, *others = self.cells.unbind(1)
        total = values.index_select(0, first)
        for column in others:
            total = total + values.index_select(0, column)
        return total / self.cells.shape[1]


class CellNetwork(nn.Module):
    """Features (E, FEATURES) -> three numbers (E, 3) for each cell, zero before training.

    hidden: width. rounds: how often cells hear from the cells that share a node with them.
    """

    def __init__(self, hidden: int = 16, rounds: int = 2) -> None:
        super().__init__()
        self.hidden, self.rounds = hidden, rounds
        self.encode = nn.Sequential(nn.Linear(FEATURES, hidden), nn.ReLU(), nn.Linear(hidden, hidden))
        self.own = nn.ModuleList(nn.Linear(hidden, hidden) for _ in range(rounds))
        self.heard = nn.ModuleList(nn.Linear(hidden, hidden, bias=False) for _ in range(rounds))
        self.decode = nn.Sequential(nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, 3))
        nn.init.zeros_(self.decode[-1].weight)
        nn.init.zeros_(self.decode[-1].bias)

    def forward(self, features: Tensor, incidence: Incidence) -> Tensor:
        state = self.encode(features)
        for own, heard in zip(self.own, self.heard, strict=True):
            nodes = incidence.to_nodes(torch.relu(heard(state)))
            state = state + torch.relu(own(state) + incidence.to_cells(nodes))
        return self.decode(state)


def features(split: SplitProblem, primal: Tensor, dual: Tensor, aligned: Tensor) -> Tensor:
    """What the network reads of each cell (E, FEATURES), float32.

    primal, dual (E,): log |g| and the logarithm of the gradient that belongs to the flux. aligned (E,): whether gradient
    and flux have one sign. Only differences of logarithms and the exponent are used, so units do not matter.
    """
    ratio = dual - primal
    p = split.law.exponent
    logarithm = split.law.conductance.log()
    columns = (
        _squashed(ratio),
        _squashed(primal - split.mean(primal)),
        _squashed(dual - split.mean(dual)),
        _squashed(primal - split.law.threshold.log()),
        _squashed(logarithm - split.mean(logarithm)),
        aligned.to(primal),
        (p - 2.0) / p,
        split.mean(ratio.clamp(-WIDEST, WIDEST).abs()) / 4.0,
    )
    return torch.stack(columns, 1).to(torch.float32)


def _squashed(logarithm: Tensor) -> Tensor:
    return logarithm.clamp(-WIDEST, WIDEST) / 4.0
