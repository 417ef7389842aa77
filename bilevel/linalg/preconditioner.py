"""Cheap approximate inverses of a matrix, for descents in their metric."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor

from bilevel.linalg.direct.layout import ready
from bilevel.linalg.krylov.rows import Product
from bilevel.linalg.krylov.solvers import jacobi
from bilevel.linalg.multigrid.hierarchy import set_up
from bilevel.linalg.operator import LinearOperator
from bilevel.report import InputError


class Preconditioner(ABC):
    """A way to make approximate inverses."""

    @abstractmethod
    def of(self, A: LinearOperator) -> Product:
        """P ~ A^-1 as a function of vectors (..., *batch, n), linear in them."""


@dataclass(frozen=True)
class Jacobi(Preconditioner):
    """One over the diagonal's absolute values; InputError where the operator has no diagonal, or zeros on it."""

    def of(self, A: LinearOperator) -> Product:
        diagonal = A.diagonal_entries()
        if diagonal is None or bool((diagonal == 0).any()):
            raise InputError("Jacobi scaling needs a diagonal without zeros: give a sparse or dense tangent")
        return jacobi(A)


@dataclass(frozen=True)
class Multigrid(Preconditioner):
    """One V-cycle of smoothed-aggregation multigrid, for symmetric sparse matrices; see `AMGCG`."""

    def of(self, A: LinearOperator) -> Product:
        if not A.structure.symmetric:
            raise InputError("multigrid takes symmetric matrices only; use Jacobi")
        cycle = set_up(ready(A)).cycle

        def apply(b: Tensor) -> Tensor:
            return A.structure.project(cycle(b.reshape(-1, A.n)).reshape(b.shape))

        return apply
