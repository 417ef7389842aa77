"""Fixed points u = T(u): Picard iteration and Anderson acceleration."""

from __future__ import annotations

import time
from abc import abstractmethod
from dataclasses import dataclass, field

import torch
from torch import Tensor

from bilevel.linalg.registry import Automatic
from bilevel.linalg.solver import LinearSolver
from bilevel.problem import FixedPoint, Params, Problem
from bilevel.report import BilevelError, SolveReport, Status, require
from bilevel.solvers.evaluations import Evaluations, Tolerance
from bilevel.solvers.solver import Outcome, Solver, TapeEntry, require_parts


@dataclass
class FixedPointSolver(Solver):
    """The loop shared by fixed-point iterations; each sample of a batch stops by itself."""

    tolerance: Tolerance = field(default_factory=Tolerance, kw_only=True)
    max_iterations: int = field(default=10_000, kw_only=True)
    linear: LinearSolver = field(default_factory=Automatic, kw_only=True)

    def __post_init__(self) -> None:
        require_parts(self.tolerance, self.linear, self.max_iterations)

    @abstractmethod
    def begin(self) -> FixedPointUpdate:
        """A fresh update rule."""

    def solve(self, problem: Problem, u0: Tensor, params: Params, record: bool = False) -> Outcome:
        if not isinstance(problem, FixedPoint):
            raise BilevelError(f"{type(self).__name__} iterates a map u = T(u); use Newton for a residual or an energy")
        with torch.no_grad():
            return self._iterate(Evaluations(problem, params), u0, record)

    def _iterate(self, evaluations: Evaluations, u0: Tensor, record: bool) -> Outcome:
        started, update = time.perf_counter(), self.begin()
        tape: list[TapeEntry] = []
        u, defect = u0, evaluations.point(u0).residual
        norm = torch.linalg.vector_norm(defect, dim=-1)
        scale = torch.maximum(norm, torch.linalg.vector_norm(u0, dim=-1))
        threshold = self.tolerance.threshold(scale)
        history, iterations = [], 0
        finite = torch.isfinite(norm)
        while bool((finite & (norm > threshold)).any()) and iterations < self.max_iterations:
            history.append(float(norm.max()))
            active = (finite & (norm > threshold)).unsqueeze(-1)
            if record:
                tape.append(update.tape_entry(norm))
            u = torch.where(active, update.next(u, defect), u)
            defect = torch.where(active, evaluations.point(u).residual, defect)
            norm = torch.linalg.vector_norm(defect, dim=-1)
            finite = torch.isfinite(norm)
            iterations += 1
        status = [
            Status.CONVERGED if small else (Status.MAX_ITERATIONS if good else Status.NOT_FINITE)
            for small, good in zip((norm <= threshold).reshape(-1).tolist(), finite.reshape(-1).tolist(), strict=True)
        ]
        report = SolveReport(
            status,
            norm,
            threshold,
            iterations,
            evaluations.counts,
            time.perf_counter() - started,
            history,
            update.notes(),
        )
        return Outcome(u, report, None, tape)


class FixedPointUpdate:
    """One rule for the next iterate from u and its defect f = u - T(u)."""

    def next(self, u: Tensor, defect: Tensor) -> Tensor:
        raise BilevelError("abstract update")

    def tape_entry(self, norm: Tensor) -> TapeEntry:
        raise BilevelError(
            "this iteration mixes several earlier iterates and cannot be unrolled; use Picard or the exact adjoint"
        )

    def notes(self) -> list[str]:
        return []


class _Relaxed(FixedPointUpdate):
    def __init__(self, relaxation: float) -> None:
        self.relaxation = relaxation

    def next(self, u: Tensor, defect: Tensor) -> Tensor:
        return u - self.relaxation * defect

    def tape_entry(self, norm: Tensor) -> TapeEntry:
        return TapeEntry(torch.full_like(norm, self.relaxation), lambda r: r)


@dataclass
class Picard(FixedPointSolver):
    """u <- (1 - relaxation) u + relaxation T(u)."""

    relaxation: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.relaxation > 0, f"relaxation must be positive, not {self.relaxation}")

    def begin(self) -> FixedPointUpdate:
        return _Relaxed(self.relaxation)


class _Mixed(FixedPointUpdate):
    """Type-II mixing over a window of differences (Walker & Ni 2011, eq. 2.4), safeguarded by restart."""

    def __init__(self, memory: int, relaxation: float, growth: float) -> None:
        self.memory, self.relaxation, self.growth = memory, relaxation, growth
        self.states: list[Tensor] = []
        self.defects: list[Tensor] = []
        self.best: Tensor | None = None
        self.restarts = 0

    def next(self, u: Tensor, defect: Tensor) -> Tensor:
        norm = torch.linalg.vector_norm(defect, dim=-1)
        if self.best is not None and bool((norm > self.growth * self.best).any()):
            self.states, self.defects = [], []
            self.restarts += 1
        self.best = norm if self.best is None else torch.minimum(norm, self.best)
        self.states = [*self.states, u][-self.memory - 1 :]
        self.defects = [*self.defects, defect][-self.memory - 1 :]
        if len(self.states) == 1:
            return u - self.relaxation * defect
        du = torch.stack([b - a for a, b in zip(self.states, self.states[1:], strict=False)], dim=-1)
        df = torch.stack([b - a for a, b in zip(self.defects, self.defects[1:], strict=False)], dim=-1)
        weights = _least_squares(df, defect)
        mixed = ((du - self.relaxation * df) @ weights.unsqueeze(-1)).squeeze(-1)
        return u - self.relaxation * defect - mixed

    def notes(self) -> list[str]:
        return [f"Anderson mixing restarted {self.restarts} times"] if self.restarts else []


def _least_squares(columns: Tensor, target: Tensor) -> Tensor:
    """min ||columns w - target||, batched, columns scaled, small singular values cut; failed samples get zero."""
    columns, target = torch.nan_to_num(columns), torch.nan_to_num(target)
    size = torch.linalg.vector_norm(columns, dim=-2, keepdim=True).clamp(min=torch.finfo(columns.dtype).tiny)
    inverse = torch.linalg.pinv(columns / size, rtol=1e3 * torch.finfo(columns.dtype).eps)
    return (inverse @ target.unsqueeze(-1) / size.mT).squeeze(-1)


@dataclass
class Anderson(FixedPointSolver):
    """Anderson acceleration (Anderson 1965; Walker & Ni 2011) over `memory` differences.

    Restarts when the defect grows past `growth` times the best one seen.
    """

    memory: int = 5
    relaxation: float = 1.0
    growth: float = 1e3

    def __post_init__(self) -> None:
        super().__post_init__()
        usable = self.memory >= 1 and self.relaxation > 0 and self.growth > 1
        require(usable, "Anderson acceleration needs memory >= 1, relaxation > 0 and growth > 1")

    def begin(self) -> FixedPointUpdate:
        return _Mixed(self.memory, self.relaxation, self.growth)
