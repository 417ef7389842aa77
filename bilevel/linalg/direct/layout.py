"""Sparse matrices in the forms that direct solvers take: every diagonal entry stored, the upper triangle alone."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from bilevel.linalg.operator import LinearOperator, Sparse, SparsePattern
from bilevel.linalg.solver import NOT_FINITE
from bilevel.report import ConvergenceError, InputError


@dataclass(frozen=True)
class Selection:
    """Some entries of a pattern, themselves in compressed rows: values[source] are theirs."""

    indptr: np.ndarray
    indices: np.ndarray
    source: Tensor | None

    def entries(self, values: Tensor) -> np.ndarray:
        """The selected values as the float64 array that direct solvers take; a copy of its own."""
        chosen = values.clone() if self.source is None else values[self.source]
        return chosen.double().numpy()


def ready(A: LinearOperator) -> Sparse:
    """A for a direct solver: on the CPU, finite, without history of gradients, all diagonal entries stored."""
    if not isinstance(A, Sparse):
        raise InputError(f"sparse factorisations take a Sparse operator, got {type(A).__name__}")
    if A.values.device.type != "cpu":
        raise InputError(
            f"sparse factorisations run on the CPU, the matrix is on {A.values.device}; use CG, MINRES or GMRES"
        )
    return complete(A)


def complete(A: Sparse) -> Sparse:
    """A finite, without history of gradients, all diagonal entries stored; on any device."""
    # A finite sum has finite terms, and costs less than a look at each.
    if not bool(torch.isfinite(A.values.sum())) and not bool(torch.isfinite(A.values).all()):
        raise ConvergenceError(NOT_FINITE)
    return (replace(A, values=A.values.detach()) if A.values.requires_grad else A).with_diagonal()


def is_sparse_on_cpu(A: LinearOperator) -> bool:
    """Whether A is a matrix that sparse direct solvers can take."""
    return isinstance(A, Sparse) and A.values.device.type == "cpu"


def whole(pattern: SparsePattern) -> Selection:
    """All entries."""
    return Selection(pattern.indptr, pattern.indices, None)


def upper_triangle(pattern: SparsePattern) -> Selection:
    """The entries on and above the diagonal; made once per pattern."""
    return pattern.derive("upper triangle", lambda: _upper_triangle(pattern))


def _upper_triangle(pattern: SparsePattern) -> Selection:
    source = np.flatnonzero(pattern.indices >= pattern.rows)
    counts = np.bincount(pattern.rows[source], minlength=pattern.n)
    indptr = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    return Selection(indptr, pattern.indices[source], torch.from_numpy(source))
