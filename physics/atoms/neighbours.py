"""Neighbour lists with all periodic images, made again only where atoms or cells have moved too far.

vesin finds the pairs within the cut-off and a skin. With F the change of the cell and d_i what an atom has moved beside
it, a pair that was r apart is at least (1 - |F - 1|) r - 2 max |d_i| apart now: as long as that exceeds the cut-off for
r = cut-off + skin, no pair can be missing from the list.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bilevel.torch_internals import outside_transforms, plain
from physics.atoms.structures import times

SKIN = 0.3
"""In angstrom."""

Pairs = tuple[Tensor, Tensor, Tensor]
"""Centre (E,), neighbour (E,) and images (E, 3) of pairs of atoms."""


class Neighbours:
    """The neighbour lists of some structures; counts (S,), periodic (S, 3) as in `Structures`.

    rebuilt: how many lists were made so far.
    """

    def __init__(self, counts: Tensor, periodic: Tensor) -> None:
        self.counts, self.periodic = counts, periodic
        self.owner = torch.repeat_interleave(torch.arange(len(counts)), counts)
        self.ends = counts.cumsum(0).tolist()
        self.rebuilt = 0
        self._lists: list[Pairs] = []
        self._joined: Pairs | None = None
        self._positions = self._cells = self._reach = torch.empty(0)

    def within(self, positions: Tensor, cells: Tensor, cutoff: float) -> Pairs:
        """All pairs nearer than the cut-off at positions (N, 3) and cells (S, 3, 3), in numbers, sorted by centre."""
        with outside_transforms():  # lists are kept beyond transforms, in which unrolled solves are
            return self._within(plain(positions), plain(cells), cutoff)

    def _within(self, positions: Tensor, cells: Tensor, cutoff: float) -> Pairs:
        missing = range(len(self.counts)) if not self._lists else self._outdated(positions, cells, cutoff)
        for s in missing:
            self._find(s, positions, cells, cutoff + SKIN)
        if self._joined is None:
            self._joined = tuple(torch.cat(parts) for parts in zip(*self._lists))  # type: ignore[assignment]
        assert self._joined is not None
        centre, neighbour, images = self._joined
        shift = times(images, cells, self.owner[centre])
        lengths = torch.linalg.vector_norm(positions[neighbour] - positions[centre] + shift, dim=-1)
        near = torch.nonzero(lengths < cutoff).flatten()
        return centre[near], neighbour[near], images[near]

    def _outdated(self, positions: Tensor, cells: Tensor, cutoff: float) -> list[int]:
        """The structures whose list may lack a pair."""
        change = torch.linalg.solve(self._cells, cells)
        moved = positions - times(self._positions, change, self.owner)
        furthest = cells.new_zeros(len(cells)).scatter_reduce(0, self.owner, moved.norm(dim=-1), "amax")
        stretch = 1.0 - torch.linalg.matrix_norm(change - torch.eye(3).to(change))
        # Where something is not finite there is nothing to be found; the energy will not be finite either.
        lost = stretch * self._reach - 2 * furthest < cutoff
        return torch.nonzero(lost).flatten().tolist()

    def _find(self, s: int, positions: Tensor, cells: Tensor, reach: float) -> None:
        from vesin import NeighborList

        if not self._lists:
            self._lists = [(torch.empty(0), torch.empty(0), torch.empty(0))] * len(self.counts)
            self._positions, self._cells = positions.clone(), cells.clone()
            self._reach = cells.new_zeros(len(cells))
        self.rebuilt += 1
        start, end = ([0, *self.ends])[s], self.ends[s]
        points, box = positions[start:end].numpy(), cells[s].numpy()
        found = NeighborList(cutoff=reach, full_list=True).compute(points, box, self.periodic[s].numpy(), "ijS")
        i, j, images = (torch.from_numpy(part.astype("float64" if k == 2 else "int64")) for k, part in enumerate(found))
        order = torch.argsort(i, stable=True)
        self._lists[s] = (i[order] + start, j[order] + start, images[order].reshape(-1, 3))
        self._positions[start:end], self._cells[s], self._reach[s] = positions[start:end], cells[s], reach
        self._joined = None
