"""Tangents of users' functions as sparse matrices, on patterns that are given or found, and remembered by function."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, TypeAlias

import numpy as np
import scipy.sparse
import torch
from torch import Tensor

from bilevel.linalg.coloured import ColouredPattern, Products, agrees, find_pattern, on_pattern
from bilevel.linalg.operator import Sparse, Structure
from bilevel.linalg.sparse_batch import SparseBatch
from bilevel.report import InputError

Sparsity: TypeAlias = "scipy.sparse.spmatrix | scipy.sparse.sparray | Tensor"
"""A matrix (n, n) with entries where the tangent has them, or pairs of unknowns (m, 2) that see each other."""

SPARSE_FROM = 600
"""From this size on, a function is asked whether its tangent is sparse."""
PRODUCT_ENTRIES = 2**22
"""Entries of vectors that are multiplied with a tangent at once."""
REMEMBERED = 32
"""Patterns that are kept, of the functions used last."""

_patterns: OrderedDict[Hashable, ColouredPattern | None] = OrderedDict()


class FoundSparsity:
    """The sparsity of one function's tangent; what is found is remembered for all functions of the same code."""

    def __init__(self, function: Callable[..., Any], given: Sparsity | None) -> None:
        self.code: Hashable = getattr(getattr(function, "forward", function), "__code__", id(function))
        self.given = given
        self.own: ColouredPattern | None = None

    def worthwhile(self, n: int) -> bool:
        return self.given is not None or n >= SPARSE_FROM

    def at(self, residual: Callable[[Tensor], Tensor], u: Tensor, structure: Structure) -> Sparse | SparseBatch | None:
        """The tangent at u (*batch, n), or None where it is not sparse."""
        products = transposed_products(residual, u)
        for renewed in (False, True):
            coloured = self._pattern(residual, u, renewed)
            if coloured is None:
                return None
            values = coloured.values(products, u)
            if agrees(values, coloured, products, structure):
                return on_pattern(coloured.pattern, values, structure)
            if self.given is not None:
                raise InputError(
                    "the tangent has entries where the given sparsity has none: check the pattern, or leave it out"
                )
        _remember((self.code, u.shape[-1]), None)
        return None

    def _pattern(self, residual: Callable[[Tensor], Tensor], u: Tensor, renewed: bool) -> ColouredPattern | None:
        if self.given is not None:
            self.own = self.own or _from_given(self.given, u.shape[-1])
            return self.own
        key = (self.code, u.shape[-1])
        if key not in _patterns or renewed:
            found = _found_near(residual, u)
            known = _patterns.get(key)
            _remember(key, found if found is None or known is None else _union(found, known))
        _patterns.move_to_end(key)
        return _patterns[key]


def transposed_products(residual: Callable[[Tensor], Tensor], u: Tensor) -> Products:
    """Many products with the transposed tangent at u (*batch, n), in pieces that fit in memory."""
    vjp = torch.func.vjp(residual, u)[1]
    chunk = max(1, PRODUCT_ENTRIES // u.numel())
    return lambda rows: torch.vmap(lambda x: vjp(x.expand(u.shape))[0], chunk_size=chunk)(rows).detach()


def _found_near(residual: Callable[[Tensor], Tensor], u: Tensor) -> ColouredPattern | None:
    """The pattern at a point close to u in general position, where no derivative is zero by chance."""
    dice = np.random.default_rng(u.shape[-1])
    size = u.abs().mean().clamp_min(1e-3)
    near = u + 1e-3 * size * torch.from_numpy(dice.standard_normal(u.shape[-1])).to(u)
    return find_pattern(transposed_products(residual, near if bool(residual(near).isfinite().all()) else u), u)


def _from_given(given: Sparsity, n: int) -> ColouredPattern:
    if isinstance(given, Tensor):
        if given.dim() != 2 or given.shape[1] != 2:
            raise InputError(f"sparsity as pairs of unknowns has shape (m, 2), got {tuple(given.shape)}")
        first, second = given.numpy().T
        rows, columns = np.r_[first, second], np.r_[second, first]
    else:
        matrix = scipy.sparse.coo_array(given)
        if matrix.shape != (n, n):
            raise InputError(f"sparsity of {n} unknowns has shape ({n}, {n}), got {matrix.shape}")
        rows, columns = matrix.row, matrix.col
    if len(rows) and not 0 <= min(rows.min(), columns.min()) <= max(rows.max(), columns.max()) < n:
        raise InputError(f"sparsity names unknown {max(rows.max(), columns.max())}, but there are {n}, counted from 0")
    return ColouredPattern.of(rows, columns, n)


def _union(one: ColouredPattern, other: ColouredPattern) -> ColouredPattern:
    a, b = one.pattern, other.pattern
    return ColouredPattern.of(np.r_[a.rows, b.rows], np.r_[a.indices, b.indices], a.n)


def _remember(key: Hashable, pattern: ColouredPattern | None) -> None:
    _patterns[key] = pattern
    while len(_patterns) > REMEMBERED:
        _patterns.popitem(last=False)
