"""What a learned guess could save at most: solves from solutions that were disturbed, where a network might yet win."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from benchmarks.record import Record, median, stated
from bilevel.acceleration.bench.trial import warm_up
from bilevel.acceleration.family import Family, Instance, Variation
from bilevel.report import BilevelError
from bilevel.solvers import LoadStepping, LogMiddle, Newton, Tolerance
from bilevel.solvers.cellwise import vectors
from bilevel.solvers.cellwise.split import SplitProblem
from bilevel.solvers.solver import Outcome
from physics.families.large_strain import LargeStrain, PlaneMotion
from physics.families.p_laplacian import PLaplacianFlow
from physics.families.power_law import PowerLawFlow
from physics.families.random_field import smooth
from physics.solids.cellwise.nearly_incompressible import NearlyIncompressibleSolid

LINE = "solves from disturbed solutions against the best classical solve: how good a guess must be"
DURATION = "20 minutes"
TOLERANCE = Tolerance(1e-8)


@dataclass(frozen=True)
class Compressed(LargeStrain):
    """Bars pushed together by 15 to 30 % of their length, which buckle."""

    def motion(self, length: float, variation: Variation, rng: np.random.Generator) -> PlaneMotion:
        return PlaneMotion(length, stretch=rng.uniform(0.7, 0.85), shear=rng.uniform(-0.1, 0.1))


@dataclass(frozen=True)
class Setting:
    """Where a network may win: problems, the classical ways to solve them, and the errors that a guess may have."""

    family: Family
    size: int
    variation: Variation
    ways: tuple[Callable[[Instance], Outcome], ...]
    shares: tuple[float, ...]


def newton(instance: Instance, start: Tensor) -> Outcome:
    return Newton(tolerance=TOLERANCE, max_iterations=60).solve(instance.problem, start, instance.params)


def own_start(instance: Instance) -> Outcome:
    assert instance.own_start is not None
    start = instance.own_start()
    outcome = newton(instance, start.u)
    outcome.report.counts.add(start.counts)
    return outcome


def load_steps(instance: Instance) -> Outcome:
    assert instance.path is not None
    solver = LoadStepping(instance.path, Newton(tolerance=TOLERANCE, max_iterations=25), predict=True, from_rest=True)
    return solver.solve(instance.problem, torch.zeros_like(instance.start), instance.params)


def log_middle(instance: Instance) -> Outcome:
    solver = LogMiddle(Newton(tolerance=TOLERANCE))
    return solver.solve(instance.problem, torch.zeros_like(instance.start), instance.params)


BODIES = ((own_start, load_steps), (0.1, 0.03, 0.01))
FLOW = ((log_middle,), (1.0, 0.3, 0.1))
SETTINGS = {
    "inclusions, holes and notches": Setting(LargeStrain(), 2400, Variation.GEOMETRY, *BODIES),
    "buckled bars": Setting(Compressed(), 1200, Variation.TRAINING, *BODIES),
    "microstructures, p-Laplacian": Setting(PLaplacianFlow(), 2400, Variation.CONTRAST, *FLOW),
    "networks, p = 1.2": Setting(PowerLawFlow(exponent=1.2), 3200, Variation.CONTRAST, *FLOW),
}


def disturbed(instance: Instance, solution: Tensor, share: float, rng: np.random.Generator) -> Tensor:
    """The solution with an error of a share of its size, smooth in bodies.

    Of flow it is an error of the logarithms of the cells' drops: the linear system about these makes the heads.
    """
    problem, cellwise = instance.problem, instance.cellwise
    if isinstance(problem, NearlyIncompressibleSolid):
        points = problem.mesh.coordinates.numpy()
        noise = torch.from_numpy(np.stack([smooth(points, 0.3, rng) for _ in range(points.shape[1])], 1))
        error = noise.reshape(-1)[problem.constraints.free]
        return solution + share * solution.norm() / error.norm() * error
    assert isinstance(cellwise, SplitProblem)
    gradients = cellwise.gradients(solution)
    size = vectors.size(gradients)
    direction = vectors.scaled(1.0 / size.clamp(min=1e-300), gradients)
    length = size * torch.from_numpy(np.exp(share * rng.normal(size=len(size))))
    secant, slope = cellwise.law.secant_and_slope(length)
    about = vectors.slope_about(direction, slope, secant)
    return cellwise.linear_solution(about, vectors.scaled(length * (secant - slope), direction))


def measured(run: Callable[[], Outcome]) -> tuple[float, float, Outcome | None]:
    """Processor time, factorisations, and what was found if that is a solution."""
    began = time.process_time()
    try:
        outcome = run()
    except BilevelError:
        return float("inf"), float("inf"), None
    spent = time.process_time() - began
    if not outcome.report.converged:
        return float("inf"), float("inf"), None
    return spent, outcome.report.counts.factorisations, outcome


def run(quick: bool) -> list[Record]:
    records = []
    for name, setting in SETTINGS.items():
        seconds: dict[str, list[float]] = {"classical": [], **{f"{100 * share:g} %": [] for share in setting.shares}}
        systems: dict[str, list[float]] = {key: [] for key in seconds}
        failed = 0
        for seed in range(6 if quick else 24):
            instance = setting.family.instance(setting.size // (4 if quick else 1), seed, setting.variation)
            warm_up(instance)
            tried = [measured(partial(way, instance)) for way in setting.ways]
            best = min(tried, key=lambda found: found[0])
            if best[2] is None:
                failed += 1
                continue
            seconds["classical"].append(best[0])
            systems["classical"].append(best[1])
            rng = np.random.default_rng(seed)
            for share in setting.shares:
                start = disturbed(instance, best[2].u, share, rng)
                found = measured(partial(newton, instance, start))
                seconds[f"{100 * share:g} %"].append(found[0])
                systems[f"{100 * share:g} %"].append(found[1])
        for key in seconds:
            records.append(stated(f"{name}, {key}: factorisations, median", median(systems[key])))
            records.append(stated(f"{name}, {key}: processor time, median", median(seconds[key]), "s"))
            if key != "classical":
                saved = median(seconds["classical"]) / median(seconds[key])
                records.append(stated(f"{name}, {key}: classical / guess, the network's own time left out", saved))
        records.append(stated(f"{name}: not solved by any classical way", failed))
    return records
