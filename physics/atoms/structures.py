"""Crystals, slabs and molecules: many structures of different sizes side by side, in and out as ASE's `Atoms`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from bilevel.report import InputError

if TYPE_CHECKING:
    from ase import Atoms

TOUCHING = 0.1
"""Atoms nearer to each other than this fraction of an angstrom are on top of each other."""

THINNEST = 0.5
"""The smallest distance of opposite faces of a periodic cell, in angstrom."""


@dataclass(frozen=True)
class Structures:
    """Atoms of S structures, one after the other.

    names (S): how errors call them. counts (S,): atoms of each. numbers, masses (N,): atomic numbers and masses in u.
    positions (N, 3), cells (S, 3, 3), rows are the cell's vectors, in angstrom; both may carry gradients.
    periodic (S, 3): along which vectors. movable (N, 3): False where a coordinate is held. loads (N, 3): forces from
    outside in eV/angstrom.
    """

    names: tuple[str, ...]
    counts: Tensor
    numbers: Tensor
    masses: Tensor
    positions: Tensor
    cells: Tensor
    periodic: Tensor
    movable: Tensor
    loads: Tensor

    def __len__(self) -> int:
        return len(self.names)

    @property
    def owner(self) -> Tensor:
        """The structure (N,) of each atom."""
        return torch.repeat_interleave(torch.arange(len(self)), self.counts)

    @property
    def place(self) -> Tensor:
        """The number (N,) of each atom within its structure."""
        starts = self.counts.cumsum(0) - self.counts
        return torch.arange(len(self.numbers)) - torch.repeat_interleave(starts, self.counts)

    @property
    def volumes(self) -> Tensor:
        """The cells' volumes (S,), in angstrom^3."""
        a, b, c = self.cells.unbind(1)
        return (a * torch.linalg.cross(b, c)).sum(-1).abs()

    @property
    def symbols(self) -> list[str]:
        """The chemical symbols of all atoms."""
        from ase.data import chemical_symbols

        return [chemical_symbols[number] for number in self.numbers.tolist()]

    @staticmethod
    def of(atoms: Atoms | Sequence[Atoms], names: Sequence[str] | None = None) -> Structures:
        """From ASE's `Atoms`, with their FixAtoms and FixCartesian constraints and the array "loads" where there is one.

        names: by default the `name` in each one's info, or its formula with a number. Raises InputError, which names the
        structure, for no atoms, entries that are not finite, a flat cell, or atoms on top of each other.
        """
        given: list[Atoms] = list(atoms) if isinstance(atoms, (list, tuple)) else [atoms]  # type: ignore[list-item]
        if not given:
            raise InputError("there are no structures")
        called = names or [
            a.info.get("name", f"structure {k + 1} ({a.get_chemical_formula()})") for k, a in enumerate(given)
        ]
        for name, one in zip(called, given, strict=True):
            _check(name, one)
        stack = [np.array(a.cell.complete() if a.pbc.any() else np.eye(3)) for a in given]
        return Structures(
            tuple(called),
            torch.tensor([len(a) for a in given]),
            torch.from_numpy(np.concatenate([a.numbers for a in given]).astype(np.int64)),
            torch.from_numpy(np.concatenate([a.get_masses() for a in given])),
            torch.from_numpy(np.concatenate([a.positions for a in given])),
            torch.from_numpy(np.stack(stack)),
            torch.from_numpy(np.stack([a.pbc for a in given])),
            torch.from_numpy(np.concatenate([_movable(a) for a in given])),
            torch.from_numpy(np.concatenate([a.arrays.get("loads", np.zeros((len(a), 3))) for a in given])),
        )

    def to_ase(self) -> list[Atoms]:
        """As a list of ASE's `Atoms`, in numbers."""
        from ase import Atoms

        out = []
        for s, rows in enumerate(self.positions.detach().split(self.counts.tolist())):
            mine = self.owner == s
            cell = self.cells[s].detach().numpy() if bool(self.periodic[s].any()) else None
            atoms = Atoms(self.numbers[mine].numpy(), rows.numpy(), cell=cell, pbc=self.periodic[s].numpy())
            atoms.info["name"] = self.names[s]
            out.append(atoms)
        return out

    def select(self, chosen: Sequence[int]) -> Structures:
        """The chosen structures, in that order."""
        pieces = torch.arange(len(self.numbers)).split(self.counts.tolist())
        rows, which = torch.cat([pieces[s] for s in chosen]), torch.as_tensor(chosen)
        return Structures(
            names=tuple(self.names[s] for s in chosen),
            counts=self.counts[which],
            numbers=self.numbers[rows],
            masses=self.masses[rows],
            positions=self.positions[rows],
            cells=self.cells[which],
            periodic=self.periodic[which],
            movable=self.movable[rows],
            loads=self.loads[rows],
        )

    def deformed(self, gradient: Tensor) -> Structures:
        """All positions and cells (as rows) times a deformation (3, 3) or one for each structure (S, 3, 3)."""
        each = gradient.expand(len(self), 3, 3)
        return replace(self, positions=times(self.positions, each, self.owner), cells=self.cells @ each)


def times(rows: Tensor, matrices: Tensor, owner: Tensor) -> Tensor:
    """Each row (N, 3) times the matrix of its owner (N,) among (S, 3, 3)."""
    if len(matrices) == 1:
        return rows @ matrices[0]
    # Three sums of vectors: many small products of matrices are several times slower.
    x, y, z = rows.unbind(-1)
    a, b, c = matrices.unbind(-2)
    return x.unsqueeze(-1) * a[owner] + y.unsqueeze(-1) * b[owner] + z.unsqueeze(-1) * c[owner]


def _movable(atoms: Atoms) -> np.ndarray:
    from ase.constraints import FixAtoms, FixCartesian

    free = np.ones((len(atoms), 3), dtype=bool)
    for constraint in atoms.constraints:
        if isinstance(constraint, FixAtoms):
            free[constraint.index] = False
        elif isinstance(constraint, FixCartesian):
            free[constraint.index] &= ~np.asarray(constraint.mask)
        else:
            raise InputError(f"the constraint {type(constraint).__name__} is not known; use FixAtoms or FixCartesian")
    return free


def _check(name: str, atoms: Atoms) -> None:
    from vesin import NeighborList

    if len(atoms) == 0:
        raise InputError(f"{name}: has no atoms")
    if not (np.isfinite(atoms.positions).all() and np.isfinite(atoms.cell).all()):
        raise InputError(f"{name}: has positions or cell vectors that are NaN or infinite")
    cell = np.array(atoms.cell.complete())
    if atoms.pbc.any():
        area = np.linalg.norm(np.cross(np.roll(cell, -1, 0), np.roll(cell, -2, 0)), axis=1)
        volume = abs(np.linalg.det(cell))
        thickness = (volume / np.maximum(area, 1e-300))[atoms.pbc]
        if thickness.min() < THINNEST or not np.linalg.norm(atoms.cell, axis=1)[atoms.pbc].all():
            raise InputError(
                f"{name}: its periodic cell is {thickness.min():.3g} angstrom thick, less than {THINNEST} angstrom; "
                "check the cell's vectors and their unit"
            )
    # A longer cut-off than is asked about: the search is slow in cells of many times its size.
    pairs = NeighborList(cutoff=1.0, full_list=False)
    i, j, r = pairs.compute(atoms.positions, cell if atoms.pbc.any() else np.eye(3), atoms.pbc, "ijd")
    touching = np.flatnonzero(r < TOUCHING)
    if len(touching):
        first = touching[0]
        raise InputError(
            f"{name}: atoms {i[first]} and {j[first]} are on top of each other (nearer than {TOUCHING} angstrom); check "
            "positions, cell and periodicity"
        )
