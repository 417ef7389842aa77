"""One solve of one instance by one method, measured by the same residual for all."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from bilevel.acceleration.bench.budget import Budgeted
from bilevel.acceleration.bench.methods import BenchMethod
from bilevel.acceleration.family import Instance
from bilevel.linalg import factorise
from bilevel.report import BilevelError, Counts
from bilevel.solvers import Tolerance
from bilevel.solvers.cellwise.problem import GuessedProblem
from bilevel.solvers.evaluations import Evaluations
from bilevel.torch_internals import pytree

SLACK = 1.01
"""A residual this factor above the threshold still counts as solved: methods scale it in different ways."""


@dataclass(frozen=True)
class BenchTrial:
    """How one solve went; seconds of the processor, all its time where it failed, `reason` says why. late: solved, but after its budget."""

    method: str
    seed: int
    solved: bool
    seconds: float
    counts: Counts
    residual: float
    reason: str = ""
    late: bool = False

    def to_record(self) -> dict[str, Any]:
        return asdict(self)


def threshold(instance: Instance, relative: float) -> float:
    """The residual norm that all methods must reach: relative to the imbalance of the load, or to the terms at the start."""
    problem, params = instance.problem, instance.params
    if instance.path is None:
        evaluations = Evaluations(problem, params)
        return relative * float(evaluations.scale(evaluations.point(instance.start)))
    unloaded, rest = instance.path(params, 0.0), torch.zeros_like(instance.start)
    change = pytree.tree_map(lambda new, old: new - old, params, unloaded)
    force = torch.func.jvp(lambda p: problem.residual(rest, p), (unloaded,), (change,))[1]
    return relative * float(torch.linalg.vector_norm(force))


def attempt(
    method: BenchMethod, instance: Instance, seed: int, relative: float, budget: float, patience: float = 1.0
) -> BenchTrial:
    """Solve `instance` by the only variant of `method`, within `patience` times `budget` seconds; after the budget it is late."""
    (make,) = method.variants.values()
    goal = threshold(instance, relative)
    solver = make(instance, Tolerance(relative=0.0, absolute=goal))
    problem = Budgeted(instance.problem, budget * patience)
    given = None if method.given is None else method.given(instance)
    started = time.process_time()
    try:
        with torch.no_grad():
            start = method.start(instance, given)
            outcome = solver.solve(problem, start.u, instance.params)
    except (BilevelError, RuntimeError, ValueError) as error:
        return BenchTrial(
            method.name, seed, False, budget * patience, Counts(), torch.nan, f"{type(error).__name__}: {error}"[:200]
        )
    seconds = time.process_time() - started
    residual = _residual(instance, outcome.u)
    solved = outcome.report.converged and residual <= SLACK * goal
    reason = "" if solved else outcome.report.sentence
    counts, late = outcome.report.counts, solved and seconds > budget
    counts.add(start.counts)
    return BenchTrial(
        method.name, seed, solved, seconds if solved else budget * patience, counts, residual, reason, late
    )


def _residual(instance: Instance, u: Tensor) -> float:
    with torch.no_grad():
        return float(torch.linalg.vector_norm(instance.problem.residual(u, instance.params)))


def warm_up(instance: Instance) -> None:
    """Make what belongs to the mesh and not to the solve: patterns, maps, symbolic analyses."""
    with torch.no_grad():
        factorise(instance.problem.tangent(torch.zeros_like(instance.start), _unloaded(instance)), on_fail="ignore")
        if instance.cellwise is not None:
            instance.cellwise.begin(instance.start)
        if isinstance(instance.cellwise, GuessedProblem) and instance.cellwise.incidence.features.numel() == 0:
            _ = instance.cellwise.incidence.means


def _unloaded(instance: Instance) -> Any:
    path: Callable[..., Any] | None = instance.path
    return instance.params if path is None else path(instance.params, 0.0)
