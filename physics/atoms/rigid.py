"""Rigid motions: translations of crystals are declared as null space, those of molecules are held.

A crystal's energy does not see translations wherever its atoms are, so they are a null space of every Hessian. Rotations
of a molecule are one at rest only, and curve: as many coordinates as it has rigid motions are held instead, chosen so
that they determine all of them best (QR with column pivoting). The relaxed shape is the same.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from bilevel.report import InputError
from physics.atoms.hessian import STRAIN_NODES, NodeLayout
from physics.atoms.structures import Structures


def held_and_null(structures: Structures, strained: Tensor, layout: NodeLayout) -> tuple[Tensor, Tensor | None]:
    """Which unknowns are free (S, 3 W), and an orthonormal null space (S, 3 W, 3), or None where there is none.

    Raises InputError, which names the structure, where loads push a floating one away.
    """
    width, count = layout.width, layout.count
    free = torch.zeros(count * width, 3, dtype=torch.bool).index_put((layout.nodes,), structures.movable)
    free = free.reshape(count, 3 * width)
    free[:, : 3 * STRAIN_NODES] = strained & structures.periodic.any(-1, keepdim=True)
    null = torch.zeros(count, 3 * width, 3, dtype=torch.float64)
    for s, nodes in enumerate(layout.nodes.split(structures.counts.tolist())):
        mine, name = structures.owner == s, structures.names[s]
        entries = 3 * (nodes % width)
        loads = structures.loads[mine].detach()
        whole = structures.movable[mine].all(0)  # directions in which nothing is held
        pushed = loads.sum(0).abs() > 1e-9 * max(1.0, float(loads.abs().max()))
        if bool((whole & pushed).any()):
            raise InputError(f"{name}: the loads do not balance and nothing is held, so there is no rest; hold an atom")
        turning = _rotations(structures, s) if bool(whole.all()) and not bool(loads.any()) else np.zeros((0, 3))
        if len(turning):
            free[s, _rigid_coordinates(structures.positions[mine].detach().numpy(), turning, entries)] = False
        else:
            for axis in torch.nonzero(whole).flatten().tolist():
                null[s, entries + axis, axis] = len(nodes) ** -0.5
    return free, null if bool(null.any()) else None


def _rotations(structures: Structures, s: int) -> np.ndarray:
    """The axes (k, 3) about which the structure may turn: all of a molecule's, the one of a wire, none of a crystal's."""
    periodic = structures.periodic[s].numpy()
    if periodic.sum() == 0:
        return np.eye(3)
    vectors = structures.cells[s].detach().numpy()[periodic]
    return vectors / np.linalg.norm(vectors) if len(vectors) == 1 else np.zeros((0, 3))


def _rigid_coordinates(positions: np.ndarray, axes: np.ndarray, entries: Tensor) -> Tensor:
    """The unknowns that determine translations and rotations about `axes`."""
    from scipy.linalg import qr

    arms = positions - positions.mean(0)
    motions = [np.tile(axis, (len(arms), 1)) for axis in np.eye(3)] + [np.cross(axis, arms) for axis in axes]
    matrix = np.stack([motion.reshape(-1) for motion in motions])
    triangle, order = qr(matrix, mode="r", pivoting=True)
    rank = int((np.abs(np.diag(triangle)) > 1e-8 * abs(triangle[0, 0])).sum())  # five for atoms in a row
    chosen = torch.from_numpy(order[:rank].copy())
    return entries[chosen // 3] + chosen % 3
