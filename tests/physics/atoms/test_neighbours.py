"""Neighbour lists against all pairs counted one by one, and when they are made again."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule

from physics.atoms.neighbours import SKIN, Neighbours
from physics.atoms.structures import Structures


def brute(atoms: Atoms, cutoff: float) -> list[tuple[int, int, tuple[int, ...]]]:
    reach = [range(-6, 7) if p else range(1) for p in atoms.pbc]
    found = []
    for images in itertools.product(*reach):
        shift = np.array(images) @ np.array(atoms.cell)
        for i, j in itertools.product(range(len(atoms)), repeat=2):
            r = np.linalg.norm(atoms.positions[j] - atoms.positions[i] + shift)
            if r < cutoff and (i != j or any(images)):
                found.append((i, j, images))
    return sorted(found)


CRYSTALS = {
    "one atom": bulk("Ar", a=5.3),
    "skewed": Atoms("CuAu", [[0, 0, 0], [1.2, 1.1, 0.9]], cell=[[3, 0, 0], [1.7, 2.5, 0], [0.3, -1.2, 2.9]], pbc=True),
    "slab": Atoms("Cu2", [[0, 0, 0], [0, 0, 2.5]], cell=[2.6, 2.7, 30], pbc=[True, True, False]),
    "molecule": molecule("CH3CH2OH"),
}


@pytest.mark.parametrize("name", CRYSTALS)
def test_all_pairs_with_all_images(name: str) -> None:
    atoms, cutoff = CRYSTALS[name], 6.1
    structures = Structures.of([atoms, CRYSTALS["one atom"]])
    centre, neighbour, images = Neighbours(structures.counts, structures.periodic).within(
        structures.positions, structures.cells, cutoff
    )
    mine = structures.owner[centre] == 0
    rows = zip(centre[mine].tolist(), neighbour[mine].tolist(), map(tuple, images[mine].int().tolist()), strict=True)
    assert sorted(rows) == brute(atoms, cutoff)
    assert bool((centre.diff() >= 0).all())


def test_a_list_is_kept_until_a_pair_could_be_missing() -> None:
    structures = Structures.of(bulk("Cu", cubic=True).repeat(2))
    lists = Neighbours(structures.counts, structures.periodic)
    positions, cells, cutoff = structures.positions, structures.cells, 4.0
    lists.within(positions, cells, cutoff)
    generator = torch.Generator().manual_seed(0)
    for _ in range(5):
        shaken = positions + 0.2 * SKIN * torch.rand(positions.shape, generator=generator)
        lists.within(shaken, cells, cutoff)
    lists.within(positions * 1.01, cells * 1.01, cutoff)  # a common stretch moves no atom beside the cell
    assert lists.rebuilt == 1
    squeezed = torch.diag(torch.tensor([0.8, 1.0, 1.0]))
    found = lists.within(positions @ squeezed, cells @ squeezed, cutoff)
    fresh = Neighbours(structures.counts, structures.periodic).within(positions @ squeezed, cells @ squeezed, cutoff)
    assert lists.rebuilt == 2
    assert len(found[0]) == len(fresh[0])
    moved = positions.clone()
    moved[5] += 0.6 * SKIN
    lists.within(moved @ squeezed, cells @ squeezed, cutoff)
    assert lists.rebuilt == 3
