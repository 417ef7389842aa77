"""A calibration with LogMiddle in every inner solve: the same parameters as with Newton's method, sooner."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

import bilevel
from benchmarks.record import Record, at_most, stated
from bilevel.calibrate.fit.run import calibrate
from bilevel.calibrate.function_problem import problem_from_function
from bilevel.calibrate.parameter import Parameter
from bilevel.calibrate.settings import Settings
from bilevel.problem import EnergyProblem, Params, Problem
from bilevel.report import Counts
from bilevel.solvers import LogMiddle, Newton
from bilevel.solvers.evaluations import Tolerance
from bilevel.solvers.solver import Outcome, Solver
from bilevel.solvers.steps import Armijo
from physics.discretisation.constraints import Dirichlet
from physics.discretisation.graph import Graph
from physics.families.networks import pores
from physics.families.power_law import THRESHOLD
from physics.families.random_field import log_normal
from physics.flow import FlowNetwork, PowerLaw
from physics.flow.cellwise import FlowCells

LINE = "128 log-conductivities of a power-law graph of 1e4 nodes: LogMiddle against Newton in every inner solve"
DURATION = "1 minute"

EXPONENT = 1.5
"""Turbulent pipes and fractures (Darcy-Weisbach): drop = R flux^2."""
GRID = (8, 4, 4)
NOISE = 0.005
TOLERANCE = Tolerance(relative=1e-12)

ROUNDS = 5
"""Quick calibrations are over within a second: the least time of so many counts, taken in turns."""


class Study:
    """Heads observed at one node in 25; log C = rough background + bumps on a grid, weighted by theta (128,)."""

    def __init__(self, nodes: int) -> None:
        rng = np.random.default_rng(0)
        network = pores(nodes, rng)
        middles = network.points[network.edges].mean(1)
        self.background = torch.from_numpy(log_normal(middles, 0.1, 0.5, rng)).log()
        self.bumps = torch.from_numpy(_bumps(middles))
        held = np.concatenate([network.side(True), network.side(False)])
        head = torch.from_numpy((network.points[held, 0] > 0.5).astype(float))
        graph = Graph(len(network.points), torch.from_numpy(network.edges))
        self.typical = network.spacing
        law = PowerLaw(EXPONENT, THRESHOLD * self.typical)
        self.problem = FlowNetwork(graph, law, (Dirichlet("sides", torch.from_numpy(held), value=head[:, None]),))
        self.inflow = torch.zeros(graph.nodes, dtype=torch.float64)
        self.truth = torch.from_numpy(rng.normal(size=math.prod(GRID)))
        self.seen = torch.from_numpy(rng.choice(self.problem.n, self.problem.n // 25, replace=False))
        self.rest = torch.zeros(self.problem.n, dtype=torch.float64)
        start = self.split(self.problem, self.params(self.truth)).linear_start()
        solution = bilevel.argmin(self.problem, start, self.params(self.truth), solver=newton())
        self.heads = solution.u[self.seen] + NOISE * torch.from_numpy(rng.normal(size=len(self.seen)))

    def params(self, theta: Tensor) -> dict[str, Any]:
        return {"flow": {"conductance": (self.background + self.bumps @ theta).exp()}, "inflow": self.inflow}

    def split(self, problem: EnergyProblem, params: Params) -> FlowCells:
        assert isinstance(problem, FlowNetwork)
        return FlowCells(problem, params, self.typical)


@dataclass
class Started(Solver):
    """A solver from the linear problem's solution, or from where it ended the last time (`warm`); counts what it does."""

    inner: Solver
    study: Study
    warm: bool
    last: Tensor | None = None
    solves: int = 0
    seconds: float = 0.0
    counts: Counts = field(default_factory=Counts)

    @property
    def tolerance(self) -> Tolerance:  # type: ignore[override]
        return self.inner.tolerance

    def solve(self, problem: Problem, u0: Tensor, params: Params, record: bool = False) -> Outcome:
        assert isinstance(problem, EnergyProblem)
        began = time.process_time()
        start = self.study.split(problem, params).linear_start() if self.last is None else self.last
        outcome = self.inner.solve(problem, start, params, record)
        self.seconds += time.process_time() - began
        self.solves += 1
        self.counts.add(outcome.report.counts)
        if self.warm:
            self.last = outcome.u
        return outcome


@dataclass
class Run:
    """What a calibration found, and what it cost."""

    theta: np.ndarray
    seconds: float
    solver: Started


def calibrated(study: Study, inner: Solver, warm: bool) -> Run:
    """Maximum a posteriori parameters under a standard normal prior, by Levenberg-Marquardt with exact Jacobians."""
    solver = Started(inner, study, warm)

    def predict(given: Mapping[str, Tensor]) -> Tensor:
        params = study.params(given["theta"])
        return bilevel.argmin(study.problem, study.rest, params, solver=solver).u[study.seen]

    theta = Parameter("theta", np.zeros(math.prod(GRID)), prior_mean=0.0, prior_std=1.0)
    problem = problem_from_function([theta], predict, study.heads, 1.0 / NOISE)
    settings = Settings(tolerance=1e-8, statistics=False, verify=False, memory=False)
    began = time.process_time()
    result = calibrate(problem, settings=settings)
    return Run(result.evaluation.t, time.process_time() - began, solver)


def newton() -> Newton:
    return Newton(step=Armijo(decrease=0.3), tolerance=TOLERANCE, max_iterations=200, check_minimum=False)


def run(quick: bool) -> list[Record]:
    study = Study(600 if quick else 10_000)
    makers: dict[str, Callable[[], Solver]] = {
        "Newton": newton,
        "LogMiddle": lambda: LogMiddle(newton()),
    }
    calibrated(Study(400), newton(), warm=True)  # what a process compiles once is nobody's time
    calibrated(Study(400), LogMiddle(newton()), warm=True)
    ways = [(name, warm) for name in makers for warm in (False, True)]
    rounds = [{way: calibrated(study, makers[way[0]](), way[1]) for way in ways} for _ in range(ROUNDS if quick else 1)]
    runs = {way: min((each[way] for each in rounds), key=lambda one: one.seconds) for way in ways}
    records = []
    for (name, warm), one in runs.items():
        row, solver = f"{name}, {'from the last state' if warm else 'from the linear solution'}", one.solver
        records.append(stated(f"{row}: processor time", one.seconds, "s"))
        records.append(stated(f"{row}: of which inner solves", solver.seconds, "s"))
        records.append(stated(f"{row}: inner solves", solver.solves))
        records.append(stated(f"{row}: factorisations for each", solver.counts.factorisations / solver.solves))
        records.append(stated(f"{row}: fallbacks", solver.counts.fallbacks))
    best = {name: min((runs[name, warm] for warm in (False, True)), key=lambda one: one.seconds) for name in makers}
    reference = best["Newton"].theta
    for warm in (False, True):
        row = f"from the {'last state' if warm else 'linear solution'}"
        ours, classical = runs["LogMiddle", warm], runs["Newton", warm]
        difference = max(float(np.abs(one.theta - reference).max()) for one in (ours, classical))
        records.append(at_most(f"{row}: largest difference between parameters", difference, 1e-6))
        ratio = ours.solver.seconds / classical.solver.seconds
        records.append(stated(f"{row}: time in inner solves, LogMiddle / Newton", ratio))
    error = float(np.abs(reference - study.truth.numpy()).mean())
    return [
        *records,
        stated("mean error of the parameters against the truth", error),
        at_most(
            "processor time, LogMiddle / Newton, the better start of each",
            best["LogMiddle"].seconds / best["Newton"].seconds,
            1.0,
        ),
    ]


def _bumps(points: np.ndarray) -> np.ndarray:
    """Gaussian bumps (points, 128) around a grid's nodes, as wide as its cells, that sum to one."""
    distance = np.zeros((len(points), 1))
    for axis, count in enumerate(GRID):
        nodes = (np.arange(count) + 0.5) / count
        along = ((points[:, axis, None] - nodes) * count) ** 2
        distance = (distance[:, :, None] + along[:, None, :]).reshape(len(points), -1)
    bumps = np.exp(-0.5 * distance)
    return bumps / bumps.sum(1, keepdims=True)
