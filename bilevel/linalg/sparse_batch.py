"""Many sparse matrices on one pattern, one for each sample of a batch, and their factorisations, one by one."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from bilevel.linalg.operator import LinearOperator, Sparse, SparsePattern, Structure
from bilevel.linalg.solver import Factor, LinearSolver
from bilevel.report import InputError, OnFail


@dataclass
class SparseBatch(LinearOperator):
    """Sparse matrices: values (*batch, nnz) on one pattern, whose symbolic analysis they share.

    wanted (*batch): the samples that are to be factorised at once, None for all; the others are when they are asked to solve.
    """

    pattern: SparsePattern
    values: Tensor
    structure: Structure = field(default_factory=Structure)
    wanted: Tensor | None = None

    def __post_init__(self) -> None:
        self.n = self.pattern.n
        self.batch = tuple(self.values.shape[:-1])
        if self.structure.null_space is not None:
            raise InputError(
                "batches of sparse matrices have no declared null space; hold the free unknowns, or solve one by one"
            )

    def sample(self, i: int) -> Sparse:
        """The matrix of one sample, counted through all batch dimensions."""
        return Sparse(self.pattern, self.values.reshape(-1, self.pattern.nnz)[i], self.structure)

    def matmul(self, x: Tensor) -> Tensor:
        return self._each(x, lambda A, rows: A.matmul(rows))

    def matmul_transposed(self, x: Tensor) -> Tensor:
        return self._each(x, lambda A, rows: A.matmul_transposed(rows))

    def absolute(self, x: Tensor, transposed: bool = False) -> Tensor:
        return self._each(x, lambda A, rows: A.absolute(rows, transposed))

    def shifted(self, shift: float) -> SparseBatch:
        place = self.pattern.diagonal_positions().to(self.values.device)
        more = self.values.new_full((), shift).expand(*self.batch, self.n)
        return replace(self, values=self.values.index_add(-1, place, more), structure=self.structure.shifted())

    def diagonal_entries(self) -> Tensor:
        return self.values.detach()[..., self.pattern.diagonal_positions().to(self.values.device)]

    def example(self) -> Tensor:
        return self.values.new_empty(0)

    def _each(self, x: Tensor, product) -> Tensor:  # type: ignore[no-untyped-def]
        rows = x.reshape(-1, math.prod(self.batch), self.n)
        return torch.stack([product(self.sample(i), rows[:, i]) for i in range(rows.shape[1])], 1).reshape(x.shape)


@dataclass(frozen=True)
class SampleBySample(LinearSolver):
    """Factorises each matrix of a batch by `solver`."""

    solver: LinearSolver

    def suits(self, A: LinearOperator, right_hand_sides: int) -> bool:
        return isinstance(A, SparseBatch)

    def factor(self, A: LinearOperator, on_fail: OnFail = "raise") -> Factor:
        if not isinstance(A, SparseBatch):
            raise InputError(f"a batch of sparse matrices is asked for, got {type(A).__name__}")
        return SampleFactors(A, self.solver, on_fail)


class SampleFactors(Factor):
    """One factor for each sample that was asked for; what is not known of a sample counts as sound until it is."""

    def __init__(self, A: SparseBatch, solver: LinearSolver, on_fail: OnFail) -> None:
        super().__init__(A)
        self.samples, self.solver, self.on_fail = A, solver, on_fail
        self.counts.factorisations = 0
        self.positive_definite = torch.ones(A.batch, dtype=torch.bool) if A.structure.symmetric else None
        self.singular = torch.zeros(A.batch, dtype=torch.bool)
        self.factors: list[Factor | None] = [None] * math.prod(A.batch)
        wanted = [True] * len(self.factors) if A.wanted is None else A.wanted.reshape(-1).tolist()
        for i, now in enumerate(wanted):
            if now:
                self._of(i)

    def _of(self, i: int) -> Factor:
        factor = self.factors[i]
        if factor is None:
            self.factors[i] = factor = self.solver.factor(self.samples.sample(i), self.on_fail)
            self.counts.factorisations += factor.counts.factorisations
            assert isinstance(self.singular, Tensor)
            self.singular.view(-1)[i] = bool(factor.singular)
            if isinstance(self.positive_definite, Tensor):
                self.positive_definite.view(-1)[i] = bool(factor.positive_definite)
        return factor

    def _back_substitute(self, rows: Tensor, transposed: bool) -> Tensor:
        wide = rows.reshape(len(rows), -1, self.A.n)
        solved = torch.zeros_like(wide)
        for i in range(wide.shape[1]):
            if bool(wide[:, i].any()):  # the solution for zeros is zero, whatever the matrix
                factor = self._of(i)
                solved[:, i] = factor.solve_transposed(wide[:, i]) if transposed else factor.solve(wide[:, i])
        return solved.reshape(rows.shape)
