"""The directed graph of atoms within the cut-off, as potentials see it, and as torch_geometric's `Data`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from torch_geometric.data import Data


@dataclass(frozen=True)
class Bonds:
    """Bonds i -> j of N atoms, both ways, sorted by centre, with every periodic image its own.

    vectors (E, 3): from i to the image of j, in angstrom. centre, neighbour (E,): i and j. images (E, 3): the cells
    between i and j. kinds (N,): the place of each atom's element among the potential's `species`. owner (N,): the
    structure of each atom. numbers (N,): atomic numbers. positions (N, 3), cells (S, 3, 3): where the atoms are.
    """

    vectors: Tensor
    centre: Tensor
    neighbour: Tensor
    images: Tensor
    kinds: Tensor
    owner: Tensor
    numbers: Tensor
    positions: Tensor
    cells: Tensor

    @property
    def atoms(self) -> int:
        return len(self.kinds)

    @property
    def lengths(self) -> Tensor:
        """Their lengths (E,)."""
        return torch.linalg.vector_norm(self.vectors, dim=-1)

    @property
    def ends(self) -> tuple[Tensor, Tensor]:
        """The kinds (E,) at the centre and at the neighbour."""
        return self.kinds[self.centre], self.kinds[self.neighbour]

    def slots(self) -> tuple[Tensor, int]:
        """The place (E,) of each bond among those of its centre, and the largest number of bonds of an atom."""
        counts = torch.bincount(self.centre, minlength=self.atoms)
        starts = counts.cumsum(0) - counts
        return torch.arange(len(self.centre)) - starts[self.centre], int(counts.max()) if len(counts) else 0

    def sum_at_centres(self, values: Tensor) -> Tensor:
        """Sums (N,) of one value per bond (E,) over the bonds of each atom."""
        return values.new_zeros(self.atoms).index_add(0, self.centre, values)

    def to_pyg(self) -> Data:
        """As a torch_geometric graph: z, pos, cell, edge_index, edge_attr (the vectors), shifts and batch."""
        from torch_geometric.data import Data

        edges = torch.stack([self.centre, self.neighbour])
        return Data(
            z=self.numbers, pos=self.positions, cell=self.cells, edge_index=edges, edge_attr=self.vectors, shifts=self.images,
            batch=self.owner,
        )  # fmt: skip
