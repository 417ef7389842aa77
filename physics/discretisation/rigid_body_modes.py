"""Rigid-body and constant modes, and which of them the constraints leave free."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.sparse as sp
import torch
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from physics.discretisation.constraints import ConstraintSet


def rigid_body_modes(coordinates: Tensor, axisymmetric: bool = False) -> Tensor:
    """Translations and rotations (nodes, dim, 3 or 6) of nodes (nodes, dim); only along the axis if axisymmetric."""
    nodes, dim = coordinates.shape
    x = coordinates.detach() - coordinates.detach().mean(0)
    x = x / x.abs().max()
    if axisymmetric:
        axial = torch.zeros((nodes, dim, 1), dtype=x.dtype)
        axial[:, 1, 0] = 1.0
        return axial
    translations = torch.eye(dim, dtype=x.dtype).expand(nodes, dim, dim)
    planes = [(0, 1)] if dim == 2 else [(0, 1), (1, 2), (2, 0)]
    rotations = torch.zeros((nodes, dim, len(planes)), dtype=x.dtype)
    for k, (i, j) in enumerate(planes):
        rotations[:, i, k] = -x[:, j]
        rotations[:, j, k] = x[:, i]
    return torch.cat((translations, rotations), -1)


def constant_modes(nodes: int, components: int = 1) -> Tensor:
    """The constant fields (nodes, components, components)."""
    return torch.eye(components, dtype=torch.float64).expand(nodes, components, components)


def unconstrained_modes(
    constraints: ConstraintSet, groups: Sequence[Tensor], kernel: Tensor, tolerance: float = 1e-9
) -> Tensor:
    """Orthonormal columns (n, k): the modes of each connected body that obey the homogeneous constraints."""
    nodes, components = constraints.shape
    modes = kernel.numpy().reshape(nodes * components, -1)
    free = constraints.free.numpy()
    gap = modes - constraints.matrix @ modes[free]
    body = _bodies(constraints, groups)
    found = []
    for b in range(body.max() + 1):
        own = np.repeat(body == b, components)
        basis, scale = np.linalg.svd(modes[own], full_matrices=False)[2], np.abs(modes[own]).max()
        left = _null(gap[own] @ basis.T, tolerance * scale) @ basis
        motion = np.where(own[:, None], modes @ left.T, 0.0)[free]
        if motion.size and np.abs(motion).max() > 0:
            found.append(motion)
    if not found:
        return torch.zeros((len(free), 0), dtype=torch.float64)
    return torch.from_numpy(np.linalg.qr(np.concatenate(found, axis=1))[0])


def _null(gap: np.ndarray, tolerance: float) -> np.ndarray:
    """Rows that span the null space of a tall matrix."""
    gram = gap.T @ gap
    size, vectors = np.linalg.eigh(gram)
    return vectors[:, size <= tolerance**2].T


def _bodies(constraints: ConstraintSet, groups: Sequence[Tensor]) -> np.ndarray:
    """The number of the connected body of each node; ties connect."""
    nodes, components = constraints.shape
    links = constraints.links.tocoo()
    rows, columns = [links.row // components], [links.col // components]
    for cells in groups:
        array = cells.numpy()
        rows.append(np.repeat(array[:, 0], array.shape[1]))
        columns.append(array.ravel())
    row, column = np.concatenate(rows), np.concatenate(columns)
    return connected_components(
        sp.coo_matrix((np.ones(len(row)), (row, column)), shape=(nodes, nodes)), directed=False
    )[1]
