"""A calibration with a learned first guess in every inner solve: the same parameters as with Newton's method, sooner."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

import bilevel
from benchmarks.record import Record, at_most, stated
from bilevel.problem import EnergyProblem, Params
from bilevel.solvers import Newton
from bilevel.solvers.oracle import Tolerance
from bilevel.solvers.solver import Solver
from bilevel.steps import Armijo
from bilevel.steps.learned.solver import guess_solver
from bilevel.steps.learned.weights import Kind, Weights, shipped
from physics.constraints import Dirichlet
from physics.families.edge_split import EdgeSplit
from physics.families.networks import pores
from physics.families.power_law import THRESHOLD, PowerLawFlow
from physics.families.random_field import log_normal
from physics.flow import FlowNetwork, PowerLaw
from physics.graph import Graph

NAME = "steps_calibration"
LINE = (
    "128 log-conductivities of a power-law graph of 1e4 nodes: learned first guess against Newton in every inner solve"
)
DURATION = "3 minutes"

EXPONENT = 1.5
"""Turbulent pipes and fractures (Darcy-Weisbach): drop = R flux^2."""
GRID = (8, 4, 4)
NOISE = 0.005
TOLERANCE = Tolerance(relative=1e-10)


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
        solution = bilevel.argmin(self.problem, self.linear_start(self.truth), self.params(self.truth), solver=newton())
        self.heads = solution.u[self.seen] + NOISE * torch.from_numpy(rng.normal(size=len(self.seen)))

    def params(self, theta: Tensor) -> dict[str, Any]:
        return {"flow": {"conductance": (self.background + self.bumps @ theta).exp()}, "inflow": self.inflow}

    def split(self, problem: EnergyProblem, params: Params) -> EdgeSplit:
        assert isinstance(problem, FlowNetwork)
        return EdgeSplit(problem, params, self.typical)

    def linear_start(self, theta: Tensor) -> Tensor:
        return self.split(self.problem, self.params(theta)).linear_start()


@dataclass
class Run:
    """What a calibration found, and what it cost."""

    theta: np.ndarray
    seconds: float
    evaluations: int
    factorisations: int
    fallbacks: int


def calibrate(study: Study, solver: Solver, warm: bool) -> Run:
    """Maximum a posteriori parameters under a standard normal prior, by L-BFGS-B with exact gradients.

    warm: inner solves start from the last state instead of the linear problem's solution.
    """
    last: list[Tensor] = []
    counts = {"evaluations": 0, "factorisations": 0, "fallbacks": 0}

    def objective(x: np.ndarray) -> tuple[float, np.ndarray]:
        theta = torch.from_numpy(x.copy()).requires_grad_()
        start = last[-1] if warm and last else study.linear_start(theta.detach())
        solution = bilevel.argmin(study.problem, start, study.params(theta), solver=solver)
        last[:] = [solution.u.detach()]
        counts["evaluations"] += 1
        counts["factorisations"] += solution.report.counts.factorisations
        counts["fallbacks"] += solution.report.counts.fallbacks
        misfit = ((solution.u[study.seen] - study.heads) / NOISE).square().sum() + theta.square().sum()
        (gradient,) = torch.autograd.grad(misfit, theta)
        return float(misfit.detach()), gradient.numpy()

    started = time.perf_counter()
    options = {"maxiter": 1000, "maxfun": 2000, "maxcor": 30, "ftol": 0.0, "gtol": 1e-7}
    found = minimize(objective, np.zeros(math.prod(GRID)), jac=True, method="L-BFGS-B", options=options)
    return Run(found.x, time.perf_counter() - started, **counts)


def newton() -> Newton:
    return Newton(step=Armijo(decrease=0.3), tolerance=TOLERANCE, max_iterations=200, check_minimum=False)


def run(quick: bool) -> list[Record]:
    study = Study(600 if quick else 10_000)
    weights = Weights.load(shipped(PowerLawFlow(), Kind.GUESS), PowerLawFlow())
    makers: dict[str, Callable[[], Solver]] = {
        "Newton": newton,
        "learned guess": lambda: guess_solver(weights.networks, study.split, TOLERANCE, check_minimum=False),
    }
    runs = {(name, warm): calibrate(study, make(), warm) for name, make in makers.items() for warm in (False, True)}
    records = []
    for (name, warm), one in runs.items():
        row = f"{name}, {'from the last state' if warm else 'from the linear solution'}"
        records.append(stated(f"{row}: wall time", one.seconds, "s"))
        records.append(stated(f"{row}: evaluations", one.evaluations))
        records.append(stated(f"{row}: factorisations for each evaluation", one.factorisations / one.evaluations))
        records.append(stated(f"{row}: fallbacks", one.fallbacks))
    best = {name: min((runs[name, warm] for warm in (False, True)), key=lambda one: one.seconds) for name in makers}
    difference = float(np.abs(best["learned guess"].theta - best["Newton"].theta).max())
    error = float(np.abs(best["Newton"].theta - study.truth.numpy()).mean())
    return [
        *records,
        stated("mean error of the parameters against the truth", error),
        at_most("largest difference between the parameters of both", difference, 1e-6),
        at_most(
            "wall time, learned / Newton, the better start of each",
            best["learned guess"].seconds / best["Newton"].seconds,
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
