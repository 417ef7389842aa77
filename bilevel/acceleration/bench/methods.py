"""What is compared: solvers made for an instance, in several settings to choose from by tuning."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import torch
from torch import nn

from bilevel.acceleration.family import Instance
from bilevel.acceleration.learned_guess import guess_solver
from bilevel.linalg.multigrid.amg import AMGCG
from bilevel.linalg.preconditioner import Jacobi, Multigrid, Preconditioner
from bilevel.linalg.registry import Automatic
from bilevel.linalg.solver import LinearSolver
from bilevel.report import Counts
from bilevel.solvers import (
    LBFGS,
    GradientDescent,
    LoadStepping,
    Newton,
    NonlinearCG,
    PreconditionedGradient,
    Solver,
    Tolerance,
)
from bilevel.solvers.cellwise.problem import Guess
from bilevel.solvers.load_stepping import TangentPredictor
from bilevel.solvers.steps.armijo import Armijo
from bilevel.solvers.steps.barzilai_borwein import BarzilaiBorwein
from bilevel.solvers.steps.strong_wolfe import StrongWolfe
from bilevel.solvers.steps.trust_region import TrustRegion

MANY = 100_000
"""Iterations of first-order methods, whose budget is time."""

NEWTON_ITERATIONS = 100

NEARBY = 0.95
"""Of the load: about what one iteration of a fit changes."""

Make: TypeAlias = Callable[[Instance, Tolerance], Solver]


@dataclass(frozen=True)
class BenchMethod:
    """A solver in some settings; `variants` maps a description of each to what makes the solver for an instance.

    start: where it begins, from what it is given; the start of the instance unless it says otherwise, whose time and counts
    are the method's. given: what it knows before, at no cost; a method that is given anything is no classical one.
    training_seconds: what the training of a learned method took, for the break-even number.
    """

    name: str
    variants: Mapping[str, Make]
    start: Callable[[Instance, Any], Guess] = lambda instance, given: Guess(instance.start)
    given: Callable[[Instance], Any] | None = None
    learned: bool = False
    training_seconds: float = 0.0
    applies: Callable[[Instance], bool] = lambda instance: True

    def chosen(self, variant: str) -> BenchMethod:
        """This method with one of its variants only."""
        return replace(self, variants={variant: self.variants[variant]})


def at_rest(instance: Instance, given: None) -> Guess:
    """The unloaded state."""
    return Guess(torch.zeros_like(instance.start))


def own_start(instance: Instance, given: None) -> Guess:
    """Where the problem itself begins; of bodies a start that knows how their supports moved, and nothing else."""
    assert instance.own_start is not None
    return instance.own_start()


def neighbour(instance: Instance) -> TangentPredictor:
    """What a study knows that has solved the same body at NEARBY of its load."""
    assert instance.path is not None
    params = instance.path(instance.params, NEARBY)
    start = LoadStepping(instance.path, Newton(), predict=True, from_rest=True)
    path = replace(start, path=lambda params, t: instance.path(instance.params, t * NEARBY))  # type: ignore[misc]
    found = path.solve(instance.problem, instance.start, params)
    return TangentPredictor(instance.problem, found.u, params, Automatic(), Counts())


def predicted(instance: Instance, given: TangentPredictor) -> Guess:
    """From the neighbour along the tangent there, whose factorisation the study has."""
    return Guess(given.at(instance.params), counts=Counts(products=1, back_substitutions=1))


def has_cells(instance: Instance) -> bool:
    """A quadratic model has no linear systems beside its own."""
    return instance.cellwise is not None


def classical_methods() -> list[BenchMethod]:
    """The baselines with the settings that they are tuned over."""
    return [
        BenchMethod("gradient, Armijo", {f"shrink {s}": _gradient(Armijo(shrink=s)) for s in (0.5, 0.25)}),
        BenchMethod("gradient, BB", {f"memory {m}": _gradient(BarzilaiBorwein(memory=m)) for m in (5, 10, 20)}),
        BenchMethod("gradient, Jacobi", {f"renewed after {k}": _preconditioned(Jacobi(), k) for k in (1, 10)}),
        BenchMethod("gradient, AMG", {f"renewed after {k}": _preconditioned(Multigrid(), k) for k in (1, 5)}),
        BenchMethod("nonlinear CG", {f"curvature {c}": _conjugate(c) for c in (0.01, 0.1)}),
        BenchMethod("L-BFGS(10)", {"Wolfe": _lbfgs(), "Armijo": _lbfgs(Armijo())}),
        BenchMethod("Newton, line search", {f"decrease {d}": _newton(d) for d in (1e-4, 0.1, 0.3)}),
        BenchMethod("Newton, trust region", {"radius from the state": _trust_region()}),
        BenchMethod("Newton-CG, AMG", {f"decrease {d}": _newton_cg(d) for d in (1e-4, 0.3)}),
        BenchMethod(
            "Newton, kinematic start",
            {"line search": _newton(0.3), "trust region": _trust_region()},
            start=own_start,
            applies=lambda instance: instance.own_start is not None,
        ),
        BenchMethod("linear systems, no network", {"own rule": guess_method((None,))}, applies=has_cells),
        BenchMethod(
            "Newton, tangent of a solved neighbour",
            {"line search": _newton(0.3)},
            start=predicted,
            given=neighbour,
            applies=lambda instance: instance.path is not None,
        ),
        BenchMethod("load stepping", _load_stepping(), at_rest, applies=lambda instance: instance.path is not None),
    ]


def guess_method(networks: tuple[nn.Module | None, ...]) -> Make:
    """A guess by an instance's own linear systems, with networks or by their rule alone; Newton's method after it."""

    def make(instance: Instance, tolerance: Tolerance) -> Solver:
        cellwise = instance.cellwise
        assert cellwise is not None
        return guess_solver(networks, lambda problem, params: cellwise, tolerance, False, instance.path)

    return make


def _gradient(step: Armijo | BarzilaiBorwein) -> Make:
    return lambda instance, tolerance: GradientDescent(
        step=step, tolerance=tolerance, max_iterations=MANY, check_minimum=False
    )


def _preconditioned(preconditioner: Preconditioner, renewed: int) -> Make:
    return lambda instance, tolerance: PreconditionedGradient(
        preconditioner=preconditioner,
        renewed=renewed,
        tolerance=tolerance,
        max_iterations=MANY,
        check_minimum=False,
    )


def _conjugate(curvature: float) -> Make:
    def make(instance: Instance, tolerance: Tolerance) -> Solver:
        return NonlinearCG(
            step=StrongWolfe(curvature=curvature), tolerance=tolerance, max_iterations=MANY, check_minimum=False
        )

    return make


def _lbfgs(step: Armijo | None = None) -> Make:
    if step is None:
        return lambda instance, tolerance: LBFGS(
            memory=10, tolerance=tolerance, max_iterations=MANY, check_minimum=False
        )
    return lambda instance, tolerance: LBFGS(
        memory=10, step=step, tolerance=tolerance, max_iterations=MANY, check_minimum=False
    )


def _newton(decrease: float) -> Make:
    return lambda instance, tolerance: newton(tolerance, Armijo(decrease=decrease))


def _trust_region() -> Make:
    return lambda instance, tolerance: newton(tolerance, TrustRegion())


def _newton_cg(decrease: float) -> Make:
    return lambda instance, tolerance: newton(tolerance, Armijo(decrease=decrease), linear=AMGCG())


def newton(
    tolerance: Tolerance,
    step: Armijo | TrustRegion,
    max_iterations: int = NEWTON_ITERATIONS,
    linear: LinearSolver | None = None,
) -> Newton:
    """Newton's method; like all that is compared, it does not verify that the point where it ends is a minimum."""
    return Newton(
        step=step, linear=linear or Automatic(), tolerance=tolerance, max_iterations=max_iterations, check_minimum=False
    )


def _load_stepping() -> dict[str, Make]:
    def stepping(first: float, step: Armijo | TrustRegion, iterations: int) -> Make:
        def make(instance: Instance, tolerance: Tolerance) -> Solver:
            assert instance.path is not None
            inner = newton(tolerance, step, iterations)
            return LoadStepping(instance.path, inner, first=first, predict=True)

        return make

    steps: Sequence[tuple[str, Armijo | TrustRegion]] = (("line search", Armijo()), ("trust region", TrustRegion()))
    return {
        f"{name}, first step {first:g}": stepping(first, step, 15) for name, step in steps for first in (1.0, 0.25, 0.1)
    }
