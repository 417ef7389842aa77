"""Derivatives of the work of a local energy's forces on a given field, piece by piece.

Reverse mode over the whole mesh at once would keep all that was computed on the way; here each piece is differentiated
as soon as it was evaluated, and only what it was made of (the full field, the fields of parameters) is carried on to the
unknown and the parameters.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from bilevel.problem import Params
from bilevel.torch_internals import pytree
from physics.local.pieces import SumOfTerms, pieces
from physics.local.term import Term


def vjp_by_pieces(
    energy: SumOfTerms, u: Tensor, params: Params, adjoint: Tensor, wanted: Sequence[Tensor]
) -> list[Tensor]:
    """The derivatives of adjoint . residual(u, params) in the tensors `wanted`, of which u (n,) and params are made."""
    with torch.enable_grad():
        full = energy.expand(u, params)
        fields = [energy.fields(term, params) for term in energy.terms]
    moved = energy.constraints.extend(adjoint)
    coordinates = params.get("coordinates")
    sums = _Sums()
    for term, own in zip(energy.terms, fields, strict=True):
        _add_term(term, full, moved, own, coordinates, sums)
    sources, totals = sums.collected()
    if not sources:
        return [torch.zeros_like(tensor) for tensor in wanted]
    return list(torch.autograd.grad(sources, wanted, totals, allow_unused=True, materialize_grads=True))


class _Sums:
    """Derivatives in tensors that need them, added up over the pieces."""

    def __init__(self) -> None:
        self._totals: dict[int, tuple[Tensor, Tensor]] = {}

    def of(self, source: Tensor) -> Tensor:
        """The sum so far, shaped like the source."""
        return self._totals.setdefault(id(source), (source, torch.zeros_like(source, requires_grad=False)))[1]

    def collected(self) -> tuple[list[Tensor], list[Tensor]]:
        return [source for source, _ in self._totals.values()], [total for _, total in self._totals.values()]


def _add_term(term: Term, full: Tensor, moved: Tensor, own: Params, coordinates: Tensor | None, sums: _Sums) -> None:
    tensors, spec = pytree.tree_flatten(own)
    detached = pytree.tree_unflatten([_detached(leaf) for leaf in tensors], spec)
    nodes = None if coordinates is None else coordinates.detach().requires_grad_(coordinates.requires_grad)
    cells = term.operator.cells
    with torch.enable_grad():
        for piece in pieces(term, full.detach(), detached, nodes):
            local = piece.local.requires_grad_(full.requires_grad)
            leaves = [_like(leaf, source) for leaf, source in zip(pytree.tree_leaves(piece.params), tensors)]
            params = pytree.tree_unflatten(leaves, spec)
            work = term.work(local, moved[cells[piece.rows]], piece.matrix, piece.weights, params)
            parts = [(full, local), (coordinates, nodes), *zip(tensors, leaves, strict=True)]
            _add_piece(
                work,
                [(source, part) for source, part in parts if _needed(part)],
                full,
                cells[piece.rows],
                piece.rows,
                sums,
            )


def _add_piece(
    work: Tensor, parts: list[tuple[Any, Tensor]], full: Tensor, cells: Tensor, rows: slice, sums: _Sums
) -> None:
    if not parts or not work.requires_grad:
        return
    gradients = torch.autograd.grad(work, [part for _, part in parts], allow_unused=True)
    with torch.no_grad():
        for (source, _), gradient in zip(parts, gradients, strict=True):
            total = sums.of(source)
            if gradient is None:
                continue
            if source is full:
                total.index_add_(0, cells.reshape(-1), gradient.flatten(0, 1))
            elif gradient.shape == total.shape:
                total += gradient
            else:
                total[rows] += gradient


def _detached(leaf: Any) -> Any:
    return leaf.detach() if isinstance(leaf, Tensor) else leaf


def _like(leaf: Any, source: Any) -> Any:
    """The leaf, to be differentiated if its source is."""
    return leaf.requires_grad_(source.requires_grad) if isinstance(leaf, Tensor) and leaf.is_floating_point() else leaf


def _needed(part: Any) -> bool:
    return isinstance(part, Tensor) and part.requires_grad
