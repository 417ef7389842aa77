"""The network of learned first guesses: messages from cells to the nodes that they share and back."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bilevel.solvers.cellwise.problem import Incidence


class CellNetwork(nn.Module):
    """Features (cells, F) -> outputs (cells, K) in float32, zero before training.

    pairs: how many numbers each pair of cell and node carries (`Incidence.features`). hidden: width. hops: how often
    cells hear from those that share a node with them.
    """

    def __init__(self, features: int, outputs: int, pairs: int = 0, hidden: int = 16, hops: int = 2) -> None:
        super().__init__()
        self.features, self.outputs, self.pairs, self.hidden, self.hops = features, outputs, pairs, hidden, hops
        self.encode = nn.Sequential(nn.Linear(features, hidden), nn.ReLU(), nn.Linear(hidden, hidden))
        self.own = nn.ModuleList(nn.Linear(hidden, hidden) for _ in range(hops))
        self.out = nn.ModuleList(nn.Linear(hidden, hidden, bias=False) for _ in range(hops))
        self.back = nn.ModuleList(nn.Linear(hidden, hidden, bias=False) for _ in range(hops))
        self.place_out = nn.ModuleList(nn.Linear(pairs, hidden, bias=False) for _ in range(hops if pairs else 0))
        self.place_back = nn.ModuleList(nn.Linear(pairs, hidden, bias=False) for _ in range(hops if pairs else 0))
        self.decode = nn.Sequential(nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, outputs))
        for value in self.decode[-1].parameters():
            nn.init.zeros_(value)
        self.to(torch.float32)  # whatever the default is

    def forward(self, features: Tensor, incidence: Incidence) -> Tensor:
        state = self.encode(features.to(torch.float32))
        for hop in range(self.hops):
            heard = self._placed(hop, state, incidence) if self.pairs else self._plain(hop, state, incidence)
            state = state + torch.relu(self.own[hop](state) + heard)
        return self.decode(state)

    def _placed(self, hop: int, state: Tensor, incidence: Incidence) -> Tensor:
        place = incidence.features.to(torch.float32)
        sent = self.out[hop](state)[incidence.pairs[0]]
        nodes = incidence.to_nodes(torch.relu(sent + self.place_out[hop](place)))
        heard = self.back[hop](nodes)[incidence.pairs[1]]
        return incidence.to_cells(torch.relu(heard + self.place_back[hop](place)))

    def _plain(self, hop: int, state: Tensor, incidence: Incidence) -> Tensor:
        to_nodes, to_cells = incidence.means
        nodes = to_nodes @ torch.relu(self.out[hop](state))
        return to_cells @ torch.relu(self.back[hop](nodes))
