"""Proximal gradient: ISTA, FISTA with restart, heavy momentum; the Lyapunov function of momentum is evaluated and reported.

Sources: Daubechies, Defrise, De Mol 2004 (ISTA); Beck & Teboulle 2009 (FISTA); O'Donoghue & Candes 2015 (restart);
Chambolle & Dossal 2015 (the energy F(x_k) + |x_k - x_{k-1}|^2 / 2s decreases for extrapolation factors <= 1, s <= 1/L).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum

import torch
from torch import Tensor

from bilevel.composite.problem import Composite
from bilevel.composite.solver import CompositeSolver, statuses
from bilevel.report import Counts, InputError, SolveReport, chosen


class Restart(Enum):
    """When FISTA forgets its momentum, sample by sample."""

    NEVER = "never"
    GRADIENT = "when the momentum points uphill"
    OBJECTIVE = "when the objective rose"


@dataclass
class Iterate:
    """One iteration: the new point, the one before, the extrapolated point it was made from, and the step."""

    x: Tensor
    previous: Tensor
    extrapolated: Tensor
    step: float


@dataclass
class ProximalReport(SolveReport):
    """Adds, summed over the batch and per iteration, the objective and the Lyapunov function F + |x_k - x_{k-1}|^2 / 2s."""

    objective: list[float] = field(default_factory=list)
    lyapunov: list[float] = field(default_factory=list)

    @property
    def lyapunov_decreases(self) -> bool:
        """Whether the Lyapunov function never rose by more than rounding."""
        pairs = zip(self.lyapunov, self.lyapunov[1:])
        return all(after <= before + 1e-12 * (1 + abs(before)) for before, after in pairs)


@dataclass
class ProximalGradient(CompositeSolver):
    """ISTA: x <- prox(x - s grad f(x)), with s = 1/L (found by backtracking where L is unknown).

    tolerance: on the gradient mapping |x - prox(x - s grad f(x))| / s, relative to the gradient at zero, or to the first
    mapping if that is larger. monitor: evaluate objective and Lyapunov function every iteration (costs one product with A).
    """

    step: float | None = None
    monitor: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.step is not None and not self.step > 0:
            raise InputError(f"the step of a proximal method must be positive, got {self.step:g}")

    def iterates(self, problem: Composite, x0: Tensor) -> Iterator[Iterate]:
        """The endless sequence of iterations."""
        x = previous = x0
        step = self._first_step(problem)
        age = torch.zeros_like(problem.norm(x0))
        while True:
            point, age = self.extrapolate(problem, x, previous, age)
            new, step = self._forward_backward(problem, point, step)
            age = self.restarted(problem, Iterate(new, x, point, step), age)
            previous, x = x, new
            yield Iterate(x, previous, point, step)

    def extrapolate(self, problem: Composite, x: Tensor, previous: Tensor, age: Tensor) -> tuple[Tensor, Tensor]:
        """The point that the gradient is taken at, and the new age t_k of the momentum."""
        return x, age

    def restarted(self, problem: Composite, iterate: Iterate, age: Tensor) -> Tensor:
        """The age, set back to zero for samples whose momentum is to be forgotten."""
        return age

    def minimise(self, problem: Composite, x0: Tensor) -> tuple[Tensor, SolveReport]:
        history: list[float] = []
        objective: list[float] = []
        lyapunov: list[float] = []
        for iteration, iterate in enumerate(self.iterates(problem, x0), 1):
            mapping = problem.norm(iterate.x - iterate.extrapolated) / iterate.step
            history.append(float(mapping.max()))
            if iteration == 1:
                tolerance = self.tolerance.threshold(self._scale(problem, iterate.x, mapping))
            if self.monitor:
                value = problem.objective(iterate.x)
                kinetic = problem.norm(iterate.x - iterate.previous).square() / (2 * iterate.step)
                objective.append(float(value.sum()))
                lyapunov.append(float((value + kinetic).sum()))
            ended = bool((mapping <= tolerance).all()) or not bool(torch.isfinite(mapping).all())
            if ended or iteration >= self.max_iterations:
                break
        return iterate.x, ProximalReport(
            statuses(mapping, tolerance),
            mapping,
            tolerance,
            iteration,
            Counts(residuals=iteration),
            0.0,
            history,
            objective=objective,
            lyapunov=lyapunov,
        )

    def _scale(self, problem: Composite, x: Tensor, mapping: Tensor) -> Tensor:
        return torch.maximum(problem.norm(problem.smooth.gradient(torch.zeros_like(x))), mapping)

    def _first_step(self, problem: Composite) -> float:
        if self.step is not None:
            return self.step
        lipschitz = problem.smooth.lipschitz
        return 1.0 if lipschitz is None else 1.0 / max(lipschitz, 1e-300)

    def _forward_backward(self, problem: Composite, point: Tensor, step: float) -> tuple[Tensor, float]:
        """One step, halved until f lies below its quadratic model where the Lipschitz constant is not known."""
        if self.step is not None or problem.smooth.lipschitz is not None:
            return problem.gradient_step(point, step), step
        value, gradient = problem.smooth.value(point), problem.smooth.gradient(point)
        dims = problem.event_dims
        for _ in range(60):
            new = problem.regulariser.prox(point - step * gradient, step * problem.weight)
            d = new - point
            model = value + (gradient * d).flatten(d.dim() - dims).sum(-1) + problem.norm(d).square() / (2 * step)
            if bool((problem.smooth.value(new) <= model + 1e-12 * (1 + value.abs())).all()):
                break
            step *= 0.5
        return new, step


@dataclass
class ISTA(ProximalGradient):
    """The iterative soft-thresholding algorithm: proximal gradient without momentum."""


@dataclass
class FISTA(ProximalGradient):
    """Nesterov-accelerated proximal gradient, t_{k+1} = (1 + sqrt(1 + 4 t_k^2)) / 2 from t_0 = 0, with restart."""

    restart: Restart = Restart.NEVER

    def __post_init__(self) -> None:
        super().__post_init__()
        self.restart = chosen(Restart, self.restart)

    def extrapolate(self, problem: Composite, x: Tensor, previous: Tensor, age: Tensor) -> tuple[Tensor, Tensor]:
        new_age = 0.5 * (1 + (1 + 4 * age.square()).sqrt())
        beta = (age - 1).clamp_min(0) / new_age
        return x + _per_sample(beta, x) * (x - previous), new_age

    def restarted(self, problem: Composite, iterate: Iterate, age: Tensor) -> Tensor:
        if self.restart is Restart.NEVER:
            return age
        if self.restart is Restart.GRADIENT:
            d = (iterate.extrapolated - iterate.x) * (iterate.x - iterate.previous)
            uphill = d.flatten(d.dim() - problem.event_dims).sum(-1) > 0
        else:
            uphill = problem.objective(iterate.x) > problem.objective(iterate.previous)
        return torch.where(uphill, torch.zeros_like(age), age)


@dataclass
class Inertial(ProximalGradient):
    """Proximal gradient with a constant extrapolation factor beta in [0, 1)."""

    beta: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.beta < 1:
            raise InputError(f"the extrapolation factor beta lies in [0, 1), got {self.beta:g}")

    def extrapolate(self, problem: Composite, x: Tensor, previous: Tensor, age: Tensor) -> tuple[Tensor, Tensor]:
        return x + self.beta * (x - previous), age


def _per_sample(value: Tensor, x: Tensor) -> Tensor:
    return value.reshape(value.shape + (1,) * (x.dim() - value.dim()))
