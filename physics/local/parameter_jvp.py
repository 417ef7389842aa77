"""The derivatives of a local energy's forces in many directions of its parameters at once.

A value of a cell moves the forces of this cell alone. So one derivative for each field gives the sparse matrix that takes
any change of the field to the change of the forces.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from bilevel.problem import Params
from bilevel.torch_internals import pytree
from physics.local.pieces import Piece, SumOfTerms, pieces
from physics.local.term import Term


def jvp_by_pieces(energy: SumOfTerms, u: Tensor, params: Params, moved: Sequence[Params]) -> Tensor | None:
    """The derivatives (m, n) of the residual at u (n,) in m directions, structured like params with None for no motion.

    None where it is not only fields with one number per cell, or shared ones, that move.
    """
    terms = [term for term in energy.terms if _moves(moved[0].get(term.name))]
    if _moves(moved[0].get("boundary")) or _moves(moved[0].get("coordinates")):
        return None
    full = energy.expand(u, params)
    total = np.zeros((full.numel(), len(moved)))
    for term in terms:
        if term.density.event_dims != 0:
            return None
        fields = energy.fields(term, params)
        directions = [pytree.tree_leaves(energy.fields(term, move)) for move in moved]
        for place, field in enumerate(pytree.tree_leaves(fields)):
            if directions[0][place] is None:
                continue
            if field.dim() > 0 and field.shape[1] > 1:
                return None
            columns = torch.stack([row[place] for row in directions]).reshape(len(moved), -1)
            matrix = _derivative(term, full, fields, params.get("coordinates"), place)
            total += _applied(matrix, columns, len(term.operator.cells))
    reduced = energy.constraints.matrix.T @ total
    return torch.from_numpy(np.ascontiguousarray(reduced.T)).to(u)


def _moves(direction: Params) -> bool:
    return any(leaf is not None for leaf in pytree.tree_leaves(direction))


def _applied(matrix: sp.csc_matrix, columns: Tensor, cells: int) -> np.ndarray:
    """The change of the full forces (nodes * components, m) by changes (m, cells) or (m, 1) of a field."""
    if columns.shape[1] == cells:
        return matrix @ columns.numpy().T
    return np.asarray(matrix.sum(1)) * columns.numpy().T


def _derivative(term: Term, full: Tensor, fields: Params, coordinates: Tensor | None, place: int) -> sp.csc_matrix:
    """d forces / d field as a matrix (nodes * components, cells)."""
    changes = [_force_by(piece, place) for piece in pieces(term, full, fields, coordinates)]
    entries = torch.cat(changes).flatten(1).numpy()
    components = full.shape[1]
    rows = (term.operator.cells.numpy()[:, :, None] * components + np.arange(components)).reshape(entries.shape)
    ends = np.arange(len(rows) + 1) * (rows.size // len(rows))
    return sp.csc_matrix((entries.ravel(), rows.ravel(), ends), shape=(full.numel(), len(rows)))


def _force_by(piece: Piece, place: int) -> Tensor:
    """d forces / d one field, (e, A, C), for the value of each cell."""
    leaves, spec = pytree.tree_flatten(piece.params)

    def force(value: Tensor) -> Tensor:
        filled: list[Any] = [value if i == place else leaf for i, leaf in enumerate(leaves)]
        return piece.term.force(piece.local, piece.matrix, piece.weights, pytree.tree_unflatten(filled, spec))

    return torch.func.jvp(force, (leaves[place],), (torch.ones_like(leaves[place]),))[1]
