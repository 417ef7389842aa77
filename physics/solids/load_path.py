"""A body through one increment of load, along the path of its equilibria, to the end of it or to the limit load.

Near a limit load, Newton's method at given loads fails: the tangent becomes singular, and the residual's size has minima
that are no solutions. Along the path the work of the load is prescribed, and the share of the increment that goes with
it is found (Bathe and Dvorkin 1983, Comput. Struct. 17, 871; for dead loads the constraint is linear); so the path goes
past the limit, and shows it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from bilevel.linalg.registry import factorise
from bilevel.linalg.solver import Factor
from bilevel.problem import Params
from bilevel.report import ConvergenceError, NoSolutionError
from physics.solids.solid import InelasticSolid

SHIFT = 1e-6
"""Of the tangent, of its largest diagonal entry: an iterate may have nodes among points that all flow, without stiffness."""
NEAR, EXACT = 1e-7, 1e-10
"""Relative residuals of points on the way and of the end, and how much of the load may be missing there."""
ITERATIONS, QUICK = 25, 6
"""Of a point, and of one after which the steps may grow."""
GROWTH, CUTS, POINTS = 1.5, 10, 500
FLAT = 1e-3
"""A share of the increment: a load that gained less while its work doubled does not rise any more."""


@dataclass(frozen=True)
class PathPoint:
    """An equilibrium: displacements (n,), and the share of the increment that they carry."""

    u: Tensor
    share: float


class LoadPath:
    """The equilibria of a body under shares of an increment of dead loads; part(share) gives the parameters, as numbers."""

    def __init__(self, solid: InelasticSolid, part: Callable[[float], Params], u: Tensor) -> None:
        self.solid, self.part, self.u0 = solid, part, u
        self.load = solid.residual(u, part(0.0)) - solid.residual(u, part(1.0))  # dead: the same at all u

    def end(self) -> Tensor:
        """Displacements (n,) under the whole increment; ConvergenceError that says which share of it the body carries."""
        if not bool(self.load.any()):
            raise ConvergenceError(
                "no equilibrium was found although no load changes: the stress that the step starts from is beyond what the "
                "body can carry at rest; check the initial stress, the weight and the strength"
            )
        points, start = [PathPoint(self.u0, 0.0)], self._elastic()
        step = 0.5 * self._work(start.u)
        ahead = PathPoint(self.u0 + 0.5 * (start.u - self.u0), 0.5)
        cut = 0
        while len(points) < POINTS and cut < CUTS:
            here = points[-1]
            found = self._newton(ahead, self._work(here.u) + step)
            if found is None:
                cut, step = cut + 1, 0.5 * step
            elif found[0].share >= 1.0 and (last := self._at_end(here, found[0])) is not None:
                return last
            elif found[0].share >= 1.0:
                cut, step = cut + 1, 0.5 * step
            else:
                points.append(found[0])
                self._require_rising(points)
                cut, step = 0, step * (GROWTH if found[1] <= QUICK else 1.0)
            ahead = self._ahead(points, step) or PathPoint(here.u + 0.5 * (ahead.u - here.u), 0.5 * ahead.share)
        reached = 100 * max(point.share for point in points)
        raise ConvergenceError(
            f"no equilibrium was found beyond {reached:.4g} % of the increment, which may be a limit load; take smaller "
            "steps, or a finer mesh"
        )

    def _work(self, u: Tensor) -> float:
        return float(self.load @ (u - self.u0))

    def _elastic(self) -> PathPoint:
        return PathPoint(self.u0 + self._factor(self.u0, 0.0).solve(self.load), 1.0)

    def _factor(self, u: Tensor, share: float) -> Factor:
        tangent = self.solid.tangent(u, self.part(share))
        return factorise(tangent.shifted(SHIFT * float(tangent.diagonal_entries().abs().max())), on_fail="ignore")

    def _ahead(self, points: list[PathPoint], step: float) -> PathPoint | None:
        """Straight on from the last two points, by a step of work."""
        if len(points) < 2:
            return None
        before, here = points[-2:]
        rate = step / (self._work(here.u) - self._work(before.u))
        return PathPoint(here.u + rate * (here.u - before.u), here.share + rate * (here.share - before.share))

    def _newton(self, start: PathPoint, work: float, tolerance: float = NEAR) -> tuple[PathPoint, int] | None:
        """The equilibrium at this work, and the iterations that it took.

        Full steps: the residual is smooth by pieces, and a decrease asked of every step would end at a kink (Qi & Sun 1993).
        """
        u, share = start.u, start.share
        for iteration in range(ITERATIONS):
            params = self.part(share)
            residual = self.solid.residual(u, params)
            size = torch.linalg.vector_norm(self.solid.magnitude(u, params))
            missing = work - self._work(u)
            if not bool(torch.isfinite(residual).all()):
                return None
            if float(torch.linalg.vector_norm(residual)) <= tolerance * float(size) and abs(missing) <= 1e-9 * work:
                return PathPoint(u, share), iteration
            factor = self._factor(u, share)
            step, along = factor.solve(torch.stack((-residual, self.load)))
            change = (missing - float(self.load @ step)) / float(self.load @ along)
            u, share = u + step + change * along, share + change
        return None

    def _at_end(self, before: PathPoint, after: PathPoint) -> Tensor | None:
        """The equilibrium under the whole increment, between two points of the path; None where it is not found.

        By secants in the work (the Illinois rule), since the load itself does not tell points apart where it hardly rises.
        """
        ends, gaps = [before, after], [1.0 - before.share, after.share - 1.0]
        last = -1
        for _ in range(ITERATIONS):
            weight = gaps[0] / sum(gaps)
            low, high = ends
            start = PathPoint(low.u + weight * (high.u - low.u), low.share + weight * (high.share - low.share))
            found = self._newton(start, self._work(start.u), EXACT)
            if found is None:
                return None
            point = found[0]
            if abs(point.share - 1.0) <= EXACT:
                return point.u
            side = int(point.share > 1.0)
            ends[side], gaps[side] = point, abs(point.share - 1.0)
            gaps[1 - side] *= 0.5 if side == last else 1.0
            last = side
        return None

    def _require_rising(self, points: list[PathPoint]) -> None:
        """Raise NoSolutionError where the load has stayed level, or fallen, while its work doubled."""
        work = self._work(points[-1].u)
        earlier = [point.share for point in points if self._work(point.u) <= 0.5 * work]
        highest = max(point.share for point in points)
        if len(points) > 8 and highest - max(earlier) < FLAT * highest:
            raise NoSolutionError(
                f"the limit load is reached at {100 * highest:.4g} % of the increment: beyond it, displacements grow without "
                "more load; end the loads below it"
            )
