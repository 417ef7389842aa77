"""Terms taken a few cells at a time, so that what is computed on the way stays in the cache."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from bilevel.problem import Params
from physics.discretisation.constraints import ConstraintSet
from physics.local.density import rows_of
from physics.local.term import Term

CHUNK_BYTES = 32 * 2**20
"""Cells are taken in groups whose moduli and element matrices take about this much memory: that of a last-level cache.

Smaller groups cost more in calls than they save, measured from 2 to 64 MiB.
"""


class SumOfTerms(Protocol):
    """What derivatives piece by piece need of a local energy or residual."""

    terms: tuple[Term, ...]
    constraints: ConstraintSet

    def expand(self, u: Tensor, params: Params = None) -> Tensor: ...

    def fields(self, term: Term, params: Params) -> Params: ...


@dataclass(frozen=True, eq=False)
class Piece:
    """Some cells of a term, with all that their energy needs."""

    term: Term
    rows: slice
    local: Tensor
    matrix: Tensor
    weights: Tensor
    params: Params


def pieces(term: Term, full: Tensor, fields: Params, coordinates: Tensor | None) -> Iterator[Piece]:
    """The pieces of a term at a full field (nodes, components), with its parameters as made by `fields_of`.

    There are none for a term that is optional and has no parameters.
    """
    if fields is None and term.density.optional:
        return
    operator = term.operator
    step = _cells_at_once(term, full.shape[1])
    for start in range(0, operator.cells.shape[0], step):
        rows = slice(start, start + step)
        matrix, weights = operator.evaluate(coordinates, rows)
        yield Piece(term, rows, full[operator.cells[rows]], matrix, weights, rows_of(fields, term.density, rows))


def _cells_at_once(term: Term, components: int) -> int:
    operator = term.operator
    state = components * operator.width
    per_cell = 2 * operator.points * state * state + (operator.cells.shape[1] * components) ** 2
    return max(1, CHUNK_BYTES // (8 * per_cell))
