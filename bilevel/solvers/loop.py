"""The loop that all descents share: descent x step, until the residual is small and the point is a minimum."""

from __future__ import annotations

import copy
import time
from abc import abstractmethod
from dataclasses import dataclass, field
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor

from bilevel.linalg.registry import Automatic
from bilevel.linalg.solver import Factor, LinearSolver
from bilevel.problem import EnergyProblem, Params, Problem
from bilevel.report import BilevelError, Counts, SingularError, SolveReport, Status, require
from bilevel.solvers.balance import ASTRAY, unbalanced
from bilevel.solvers.descent import Descent
from bilevel.solvers.evaluations import Evaluations, Point, Tolerance
from bilevel.solvers.kept_factor import HALF, steps_by, trusted
from bilevel.solvers.saddle import leave_saddle
from bilevel.solvers.solver import Outcome, Solver, TapeEntry, require_parts
from bilevel.solvers.steps.step import Step, select

NEAR = 1e4
"""The rounding error is computed only where the residual is within this factor of its threshold."""

STALLED = 0.5
"""Residuals that keep more than this share in an iteration may have met their noise."""

SLOW, LONG = 0.1, 1e-3
"""A residual that keeps more than SLOW in an iteration longer than LONG of the whole way is no proof of a solution."""

MUCH_THE_SAME = 0.1
"""Steps that each leave at most this share of the residual meet a tangent that hardly differs from the factorised one."""

UNBOUNDED = 1e15
"""A state this many times larger than its start (or than 1) is taken to run away."""


@dataclass
class DescentSolver(Solver):
    """Descent x step.

    check_minimum: at the end of a minimisation, verify that the Hessian is positive (semi)definite and leave saddles.
    """

    step: Step = field(kw_only=True)
    tolerance: Tolerance = field(default_factory=Tolerance, kw_only=True)
    max_iterations: int = field(default=100, kw_only=True)
    linear: LinearSolver = field(default_factory=Automatic, kw_only=True)
    check_minimum: bool = field(default=True, kw_only=True)
    energies_only: ClassVar[bool] = False
    keeps_factors: bool = field(default=False, init=False, repr=False)

    def __post_init__(self) -> None:
        require(isinstance(self.step, Step), f"step must be a rule such as bilevel.Armijo(), not {self.step!r}")
        require_parts(self.tolerance, self.linear, self.max_iterations)

    @abstractmethod
    def descent(self) -> Descent:
        """A fresh descent."""

    def solve(self, problem: Problem, u0: Tensor, params: Params, record: bool = False) -> Outcome:
        if self.energies_only and not isinstance(problem, EnergyProblem):
            raise BilevelError(
                f"{type(self).__name__} minimises energies; "
                "use Newton for a residual and Anderson or Picard for a fixed point"
            )
        with torch.no_grad():
            evaluations = Evaluations(problem, params, self.linear)
            return self.go_on(evaluations, evaluations.point(u0), record)

    def go_on(self, evaluations: Evaluations, start: Point, record: bool = False) -> Outcome:
        """As `solve`, from a point that is known."""
        return _Run(self, evaluations, record).from_start(start)


class _Run:
    """One solve in progress; samples stop one by one."""

    def __init__(self, solver: DescentSolver, evaluations: Evaluations, record: bool) -> None:
        self.solver, self.evaluations, self.record = solver, evaluations, record
        self.descent = solver.descent()
        self.step = copy.deepcopy(solver.step)  # rules remember lengths and radii, which belong to this solve alone
        self.tape: list[TapeEntry] = []
        self.history: list[float] = []
        self.notes: list[str] = []
        self.started = time.perf_counter()

    def from_start(self, point: Point) -> Outcome:
        self.status: list[Status | None] = [None] * max(1, point.merit.numel())
        self._moving: Tensor | None = None  # the samples without a status, as long as that is known
        if not bool(point.finite.all()):
            self._mark(~point.finite, Status.NOT_FINITE)
        if self.descent.linearises:
            self.evaluations.tangent(point.u)  # the first direction needs it, so the scale may use it
        self.scale = self.evaluations.scale(point)
        self.start = point.u
        self.rounded = torch.zeros_like(point.finite)  # samples that no step moves, whose residual is noise
        self.last: Point | None = None
        self._aim_at(self.solver.tolerance.threshold(self.scale))
        self.bound = UNBOUNDED * torch.linalg.vector_norm(point.u, dim=-1).clamp(min=1.0)
        keeps = self.solver.keeps_factors and not self.record
        if keeps and bool((point.norm < self.scale).all()):  # else no terms cancel yet
            point = self._by_factor(self.evaluations.factor(point.u), [point])
        iterations = 0  # of the descent's own; the steps between them have a limit for each factorisation
        while True:
            point = self._settle_converged(point)
            if self._all_ended() or iterations >= self.solver.max_iterations:
                break
            iterations += 1
            before, point = point, self._iterate(point)
            factor = self.evaluations.known_factor(before.u)
            if keeps and factor is not None and bool((point.norm <= HALF * before.norm).all()):
                point = self._by_factor(factor, [before, point])
        self._mark(self._active(point), Status.MAX_ITERATIONS)
        return self._outcome(point)

    def _iterate(self, point: Point) -> Point:
        active = self.evaluations.active = self._active(point)
        self.history.append(float(point.norm.max()))
        try:
            move = self.step.advance(self.evaluations, self.descent, point, active)
        except SingularError as error:
            self.notes.append(str(error))
            self._mark(active, Status.SINGULAR)
            return point
        if self.record:
            self._remember(move.length)
        failed = active & ~move.accepted
        if bool(failed.any()):
            level = self.evaluations.at_rounding_level(point)
            if self.descent.singular is not None:
                self._mark(failed & ~level & self.descent.singular, Status.SINGULAR)
            self.rounded = failed & level
            self._mark(failed & ~level, Status.STAGNATED)
            if bool((failed & level).any()):
                self.notes.append("ended at rounding level: no step reduces the residual further in this precision")
        self._mark(active & (torch.linalg.vector_norm(move.point.u, dim=-1) > self.bound), Status.UNBOUNDED)
        self.descent.moved(point, move.point)
        self.last = point
        return move.point

    def _by_factor(self, factor: Factor, way: list[Point]) -> Point:
        """Where steps by the factorisation of the tangent at the first of some points lead from the last one."""
        self.descent.factor, point = factor, way[-1]
        if not trusted(factor, self.evaluations.is_energy):
            return point
        walked = steps_by(factor, self.evaluations, point, self.threshold, self._active(point))
        if not walked:
            return point
        way = [*way, *walked]
        self.history += [float(one.norm.max()) for one in way[-len(walked) - 1 : -1]]
        self.last, self.descent.safe = way[-2], False
        if self._must_check() and self._fell(way):  # much the same tangent: that one is asked, not the one here
            definite = factor.detect_negative_curvature()
            self.descent.safe = definite is not None and bool(torch.as_tensor(definite).all())
        return way[-1]

    def _fell(self, way: list[Point]) -> bool:
        """Whether each step, down to the noise, took off nearly all of the residual."""
        steps = pairwise(way)
        return all(bool(((b.norm <= MUCH_THE_SAME * a.norm) | (a.norm <= self.threshold)).all()) for a, b in steps)

    def _aim_at(self, threshold: Tensor) -> None:
        self.threshold = threshold
        self.evaluations.goal = None if self.record else threshold

    def _settle_converged(self, point: Point) -> Point:
        """Mark the samples whose residual is small; those on a saddle are moved off it instead, perhaps onto the next."""
        while bool((done := self._small(point, self._active(point))).any()):
            self._mark(done & self._runs_away(point), Status.UNBOUNDED)
            done = done & self._active(point)
            left = None
            if bool(done.any()) and self._must_check():
                left = leave_saddle(self.evaluations, self.descent, point, done, self.notes)
            if left is None:
                self._mark(done, Status.CONVERGED)
                break
            self._mark(done & left.stuck, Status.INDEFINITE)
            self._mark(done & ~left.escaped & ~left.stuck, Status.CONVERGED)
            self.scale = torch.maximum(self.scale, left.point.norm)
            self._aim_at(self.solver.tolerance.threshold(self.scale))
            self.rounded = self.rounded & ~left.escaped
            point = select(left.escaped, left.point, point)
        return point

    def _small(self, point: Point, active: Tensor) -> Tensor:
        """Which active samples have a residual that is small beside the terms that cancel in it, or is no more than noise.

        The threshold in use comes from the start; the terms are measured again at the point that is about to pass, for
        a start far away (or one where a power law is infinitely stiff) would let pass almost anything.
        """
        tolerance = self.solver.tolerance
        candidates = active & (point.norm <= self.threshold)
        if bool((candidates & (point.norm > tolerance.absolute)).any()):  # below it, the terms do not matter
            if self.descent.linearises and self._must_check():
                self.evaluations.tangent(point.u)  # the check needs it, so the scale may use it
            here = self.evaluations.scale(point)
            aim = tolerance.threshold(here)
            passed = candidates & ((point.norm <= aim) | self._vanished(point, here))
            self._mark(candidates & ~passed & self._runs_away(point), Status.UNBOUNDED)
            self._aim_at(torch.where(candidates & ~passed, torch.minimum(aim, self.threshold), self.threshold))
            candidates = passed
        return candidates | self.rounded & active | self._lost_in_rounding(point, active & ~candidates & ~self.rounded)

    def _vanished(self, point: Point, scale: Tensor) -> Tensor:
        """Which samples come to rest at u = 0, where all terms are zero: only the start can tell what is small there."""
        u, before = (torch.linalg.vector_norm(x, dim=-1) for x in (point.u, self.start))
        return (scale <= self.solver.tolerance.threshold(self.scale)) & (u <= self.solver.tolerance.relative * before)

    def _lost_in_rounding(self, point: Point, open: Tensor) -> Tensor:
        """Which of the samples have a residual near the threshold that does not fall any more because it is noise."""
        tangent = self.descent.tangent
        if tangent is None or not bool(open.any()):
            return torch.zeros_like(open)
        near = open & (point.norm < NEAR * self.threshold)
        if not bool(near.any()):
            return near
        eps = torch.finfo(point.u.dtype).eps
        lost = near & (point.norm <= 2 * eps * torch.linalg.vector_norm(tangent.absolute(point.u), dim=-1))
        stalled = near & ~lost if self.last is None else near & ~lost & (point.norm > STALLED * self.last.norm)
        if bool(stalled.any()):
            lost = lost | (stalled & self.evaluations.at_rounding_level(point))
        if bool(lost.any()):
            self.notes.append("ended at rounding level: the residual cannot be known better in this precision")
        return lost

    def _runs_away(self, point: Point) -> Tensor:
        """Which samples fall for ever: exp(-u) has a residual as small as one likes, and no minimum.

        Where the last step was still long and gained little, as many steps again must not lead to a lower energy with
        a smaller residual.
        """
        if self.last is None:
            return torch.zeros_like(point.finite)
        move = point.u - self.last.u
        length, way = (torch.linalg.vector_norm(x, dim=-1) for x in (move, point.u - self.start))
        slow = (point.norm > SLOW * self.last.norm) & (length > LONG * way)
        if not bool(slow.any()):
            return slow
        farther = self.evaluations.point(point.u + (way / length.clamp(min=1e-300)).unsqueeze(-1) * move)
        return slow & farther.finite & (farther.merit < point.merit) & (farther.norm < point.norm)

    def _must_check(self) -> bool:
        known = self.evaluations.problem.structure.positive_definite
        return self.evaluations.is_energy and self.solver.check_minimum and not known and not self.descent.safe

    def _remember(self, length: Tensor) -> None:
        metric = self.descent.metric()
        if metric is None:
            raise BilevelError(
                "an unrolled adjoint needs iterations of the form u - a P r(u); this solve met negative "
                "curvature or used a trust region, use the exact adjoint"
            )
        self.tape.append(TapeEntry(length, metric))

    def _mark(self, mask: Tensor, status: Status) -> None:
        if not bool(mask.any()):
            return
        for i, hit in enumerate(mask.reshape(-1).tolist()):
            if hit and self.status[i] is None:
                self.status[i] = status
        self._moving = None

    def _active(self, point: Point) -> Tensor:
        if self._moving is None:
            flags = [status is None for status in self.status]
            self._moving = torch.tensor(flags, device=point.u.device).reshape(point.merit.shape)
        return self._moving

    def _all_ended(self) -> bool:
        return None not in self.status

    def _outcome(self, point: Point) -> Outcome:
        if any(status in ASTRAY for status in self.status):
            lost = unbalanced(self.evaluations, self.descent, point).reshape(-1).tolist()
            self.status = [
                Status.UNBALANCED if hit and status in ASTRAY else status for hit, status in zip(lost, self.status)
            ]
        tangent = self.evaluations.known_tangent(point.u)
        counts: Counts = self.evaluations.counts
        report = SolveReport(
            status=[status for status in self.status if status is not None],
            residual=point.norm,
            tolerance=self.threshold,
            iterations=len(self.history),
            counts=counts,
            seconds=time.perf_counter() - self.started,
            history=self.history,
            notes=self.notes,
        )
        return Outcome(point.u, report, self.descent.factor, self.tape, tangent, point)
