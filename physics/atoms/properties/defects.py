"""Energies of defects: each is built from the crystal at rest, relaxed, and compared with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from bilevel.problem import Params
from bilevel.report import InputError
from physics.atoms.potential import Potential
from physics.atoms.relaxation import Relaxed, relax
from physics.atoms.structures import Structures

Repeats = Sequence[Sequence[int]] | Sequence[int]
"""How often a cell is repeated along its vectors, or the integer combinations of them that span the supercell."""


def supercell(structures: Structures, repeats: Repeats) -> Structures:
    """One crystal repeated along its vectors, or on the lattice of integer combinations (3, 3); differentiable."""
    matrix = np.diag(repeats) if np.ndim(repeats) == 1 else np.asarray(repeats)
    offsets = torch.from_numpy(_lattice_points(matrix)).to(structures.cells)
    count, cell = len(offsets), structures.cells[0]
    if count == 0:
        raise InputError(f"{structures.names[0]}: the supercell {matrix.tolist()} has no volume")
    shifted = (structures.positions.unsqueeze(0) + (offsets @ cell).unsqueeze(1)).reshape(-1, 3)
    return replace(
        structures,
        counts=structures.counts * count,
        numbers=structures.numbers.repeat(count),
        masses=structures.masses.repeat(count),
        positions=shifted,
        cells=(torch.from_numpy(matrix).to(cell) @ cell).unsqueeze(0),
        movable=structures.movable.repeat(count, 1),
        loads=structures.loads.repeat(count, 1),
    )


def without(structures: Structures, atom: int) -> Structures:
    """One structure with a vacancy where the atom was."""
    kept = torch.arange(len(structures.numbers)) != atom
    rows = {name: getattr(structures, name)[kept] for name in ("numbers", "masses", "positions", "movable", "loads")}
    return replace(structures, counts=structures.counts - 1, **rows)


def vacancy_energy(
    bulk: Relaxed, potential: Potential, params: Params, repeats: Repeats = (3, 3, 3), *, cell: bool = False
) -> tuple[Tensor, Relaxed]:
    """The formation energy in eV of a vacancy in a supercell of one relaxed crystal, and the relaxed supercell.

    E(N - 1 atoms) - (N - 1)/N E(N atoms), at the crystal's volume unless `cell` relaxes too. Differentiable, through both
    relaxations.
    """
    crystal = bulk.structures
    holed = without(supercell(crystal, repeats), 0)
    holed = replace(holed, names=(f"vacancy in {crystal.names[0]}",))
    rest = relax(holed, potential, params, cell=cell)
    per_atom = bulk.energies[0] / crystal.counts[0]
    return rest.energies[0] - holed.counts[0] * per_atom, rest


def surface_energy(bulk: Relaxed, slab: Structures, reference: Tensor, potential: Potential, params: Params) -> Tensor:
    """The energy in eV/angstrom^2 of one of the two faces of a slab, relaxed at the crystal's in-plane size.

    slab: built from the crystal with the cell `reference` (3, 3), e.g. by ase.build; it is deformed to the cell at rest.
    """
    placed = slab.deformed(torch.linalg.solve(reference.to(bulk.structures.cells), bulk.structures.cells[0]))
    rest = relax(placed, potential, params, cell=False)
    per_atom = bulk.energies[0] / bulk.structures.counts[0]
    return (rest.energies[0] - slab.counts[0] * per_atom) / (2.0 * _area(placed.cells[0]))


def stacking_fault_energy(bulk: Relaxed, potential: Potential, params: Params, layers: int = 12) -> Tensor:
    """The energy in eV/angstrom^2 of an intrinsic stacking fault on (111) of an fcc crystal of one element.

    One fault in a cell of so many close-packed layers (a multiple of 3), displaced by a/6 <112>; the atoms relax along the
    normal, at the crystal's own spacing. Raises InputError where the crystal's primitive cell is not fcc.
    """
    crystal = bulk.structures
    if int(crystal.counts[0]) != 1 or layers % 3 or layers < 6:
        raise InputError("a stacking fault takes the primitive cell of an fcc crystal and 6, 9, 12 ... layers")
    a = crystal.cells[0]
    one, other = a[1] - a[0], a[2] - a[0]
    normal = torch.linalg.cross(one, other)
    up = (a[0] @ normal) / (normal @ normal) * normal  # from layer to layer
    step = a[0] - up
    turned = _frame(one, normal)
    positions = torch.stack([k * a[0] for k in range(layers)]) @ turned
    # Beyond the top layer the sequence goes on one place aside: ...ABC|BC... instead of ...ABC|ABC...
    faulted = torch.stack([one, other, layers * a[0] - 2.0 * step]) @ turned
    movable = torch.tensor([False, False, True]).expand(layers, 3)
    built = replace(
        crystal,
        names=(f"stacking fault in {crystal.names[0]}",),
        counts=crystal.counts * layers,
        numbers=crystal.numbers.repeat(layers),
        masses=crystal.masses.repeat(layers),
        positions=positions,
        cells=faulted.unsqueeze(0),
        movable=movable,
        loads=torch.zeros_like(positions),
    )
    rest = relax(built, potential, params, cell=False)
    return (rest.energies[0] - layers * bulk.energies[0]) / torch.linalg.cross(one, other).norm()


def _frame(along: Tensor, normal: Tensor) -> Tensor:
    """Columns x, y, z with z the normal and x along a vector in the plane."""
    x, z = along / along.norm(), normal / normal.norm()
    return torch.stack([x, torch.linalg.cross(z, x), z], 1)


def _area(cell: Tensor) -> Tensor:
    return torch.linalg.cross(cell[0], cell[1]).norm()


def _lattice_points(matrix: np.ndarray) -> np.ndarray:
    """The points of the unit lattice (K, 3) within the cell whose rows are `matrix`."""
    corners = np.array([[i, j, k] for i in (0, 1) for j in (0, 1) for k in (0, 1)]) @ matrix
    axes = [np.arange(low, high + 1) for low, high in zip(corners.min(0), corners.max(0))]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
    if abs(np.linalg.det(matrix)) < 0.5:
        return grid[:0]
    inside = np.linalg.solve(matrix.T, grid.T).T
    return grid[((inside > -1e-9) & (inside < 1 - 1e-9)).all(1)]
