"""Where to start, found by an evolution strategy: CMA-ES on phi within the bounds, without derivatives.

Hansen & Ostermeier (2001, Evol. Comput. 9:159), by the package cma. A population moves through many minima that would each
catch a descent; the best points that it met, apart from each other, are then calibrated from.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bilevel.calibrate.fit.executors import Workers, run_tasks
from bilevel.calibrate.fit.problem_source import ProblemSource
from bilevel.calibrate.parameters import ParameterSet
from bilevel.calibrate.settings import Starts
from bilevel.report import BilevelError, InputError

GENERATIONS = 50
"""The strategy ends there at the latest."""
LARGER = 5
"""Times the population that suits one minimum: what many minima need (Hansen & Kern 2004)."""
SPREAD = 0.3
"""Standard deviation of the first population, in the range of each parameter."""
APART = 0.02
"""Points are different starts where a parameter differs by more than this share of its range."""


def evolved_points(
    parameters: ParameterSet, starts: Starts, workers: Workers, source: ProblemSource, keep: Path | None
) -> list[np.ndarray]:
    """The count - 1 best points (p,) that the strategy met, fewer where they lie together.

    Raises InputError without cma, BilevelError where the model fails everywhere.
    """
    try:
        import cma
    except ImportError as error:
        raise InputError(f"starts: sampling cma_es needs cma ({error}): pip install 'bilevel[evolution]'") from None
    low, high = parameters.bounds()
    population = max(LARGER * (4 + math.floor(3 * math.log(len(low)))), starts.count)
    # seed 0 would be the clock's; one parameter alone is no case of the package
    options = {"bounds": [0, 1], "seed": starts.seed + 1, "verbose": -9, "popsize": population, "maxiter": GENERATIONS}
    strategy = cma.CMAEvolutionStrategy([0.5] * max(len(low), 2), SPREAD, options)
    met: list[tuple[float, np.ndarray]] = []
    while not strategy.stop():
        shares = strategy.ask()
        points = [low + np.asarray(share)[: len(low)] * (high - low) for share in shares]
        jobs = [(source, t.tolist()) for t in points]
        keys = [f"evolution of {source.key} at {t.tobytes().hex()}" for t in points]
        found = run_tasks(_phi, jobs, workers, keep=keep, keys=keys, what="simulation")
        phi = [math.inf if not isinstance(each, dict) else each.get("phi", math.inf) for each in found]
        finite = [x for x in phi if math.isfinite(x)]
        strategy.tell(shares, [x if math.isfinite(x) else 2 * max(finite, default=1.0) for x in phi])
        met += [(x, t) for x, t in zip(phi, points) if math.isfinite(x)]
    if not met:
        reasons = [each["reason"] for each in found if isinstance(each, dict)]
        raise BilevelError(f"the model failed wherever the evolution strategy looked; it said: {(reasons or [''])[0]}")
    return _apart(sorted(met, key=lambda each: each[0]), APART * (high - low), starts.count - 1)


def _apart(met: list[tuple[float, np.ndarray]], distance: np.ndarray, count: int) -> list[np.ndarray]:
    """The best of them, none near a better one."""
    chosen: list[np.ndarray] = []
    for _, t in met:
        if len(chosen) == count:
            break
        if all((np.abs(t - other) > distance).any() for other in chosen):
            chosen.append(t)
    return chosen


def _phi(source: ProblemSource, t: list[float]) -> dict[str, Any]:
    """In a worker: phi at a point."""
    try:
        problem, point = source.problem(), np.array(t)
        prior = problem.prior_residual(torch.as_tensor(point)).numpy()
        phi = float(np.sum(problem.residual(point) ** 2) + prior @ prior)
        return {"phi": phi} if math.isfinite(phi) else {"reason": "phi is not finite"}
    except Exception as error:  # a user's own model may raise anything
        return {"reason": str(error)}
