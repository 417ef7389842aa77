"""The linear solvers that are installed, ours and others', and which of them is picked for an operator."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from bilevel.extensions import installed, load
from bilevel.linalg.operator import LinearOperator
from bilevel.linalg.solver import Factor, LinearSolver
from bilevel.linalg.sparse_batch import SampleBySample, SparseBatch
from bilevel.report import BilevelError, InputError, OnFail

GROUP = "bilevel.linear_solvers"
"""Entry points of this group name subclasses of `LinearSolver` that can be made without arguments."""


@dataclass(frozen=True)
class Automatic(LinearSolver):
    """For each operator the first of the installed solvers that suits it."""

    def resolve(self, A: LinearOperator, right_hand_sides: int = 1) -> LinearSolver:
        return pick(A, right_hand_sides)

    def factor(self, A: LinearOperator, on_fail: OnFail = "raise") -> Factor:
        return pick(A).factor(A, on_fail)

    def reuses(self, A: LinearOperator, earlier: Factor | None) -> bool:
        return pick(A).reuses(A, earlier)

    def follow(self, A: LinearOperator, earlier: Factor | None, on_fail: OnFail = "raise") -> Factor:
        return pick(A).follow(A, earlier, on_fail)


def pick(A: LinearOperator, right_hand_sides: int = 1) -> LinearSolver:
    """The linear solver for A; many right-hand sides pay for a factorisation where few do not."""
    if isinstance(A, SparseBatch):
        return SampleBySample(Automatic())
    for solver in _table():
        if solver.suits(A, right_hand_sides):
            return solver
    raise TypeError(f"no installed linear solver suits {type(A).__name__} of size {A.n} on {A.example().device}")


def linear_solver(name: str) -> LinearSolver:
    """The installed linear solver of this name, with its default settings; InputError where there is none."""
    entries = installed(GROUP)
    if name not in entries:
        raise InputError(f"no linear solver is called {name!r}; installed are {', '.join(entries)}")
    return load(entries[name])()


def factorise(A: LinearOperator, method: LinearSolver | None = None, *, on_fail: OnFail = "raise") -> Factor:
    """A made ready for solves by `method`, or by the solver that is picked for it.

    Raises SingularError where A is singular and no null space is declared; see `LinearSolver.factor` for `on_fail`.
    """
    return (method or Automatic()).factor(A, on_fail)


@lru_cache(maxsize=1)
def _table() -> tuple[LinearSolver, ...]:
    """All installed solvers in the order in which they are asked."""
    solvers = [load(entry)() for entry in installed(GROUP).values()]
    if not solvers:
        raise BilevelError("no linear solver is installed, not even bilevel's own: install bilevel again")
    return tuple(sorted(solvers, key=lambda solver: -solver.precedence))
