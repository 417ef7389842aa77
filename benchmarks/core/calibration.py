"""Whole calibrations on the block and on Darcy flow: exact Jacobians against finite differences and against L-BFGS-B."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np
import torch
from scipy.optimize import least_squares, minimize
from torch import Tensor

import bilevel
from benchmarks.core.block import Block
from benchmarks.record import Record, at_most, stated
from bilevel.calibrate.evaluation import Iteration
from bilevel.calibrate.fit.run import calibrate
from bilevel.calibrate.function_problem import problem_from_function
from bilevel.calibrate.parameter import Parameter
from bilevel.calibrate.settings import Settings
from bilevel.implicit.memory import Memory, visiting
from physics.discretisation import rectangle
from physics.flow import DarcyFlow

LINE = (
    "three and 128 parameters recovered on the block and on Darcy flow: exact Jacobians, finite differences, L-BFGS-B"
)
DURATION = "8 minutes"

PEER_SECONDS = 100.0
FAILED = 1e6
"""What peers are told of points where the inner solve fails, so that they step back."""
DIFFERENCE = 1e-4
"""Relative step of finite differences: about the square root of what the inner tolerance leaves of a prediction."""


@dataclass
class Case:
    """What is recovered: positive values (p,) from their start, by predictions that their truth was pushed through."""

    name: str
    truth: np.ndarray
    start: np.ndarray
    predict: Callable[[Tensor, bilevel.Newton], Tensor]
    tolerance: float
    goal: float

    def __post_init__(self) -> None:
        with torch.no_grad():
            self.data = self.predict(torch.from_numpy(self.truth), self.solver())

    def solver(self) -> bilevel.Newton:
        return bilevel.Newton(tolerance=bilevel.Tolerance(self.tolerance))

    def cold_seconds(self) -> float:
        """One forward solve from the cold start, at the calibration's own start values; the best of three."""
        times = []
        for _ in range(3):
            began = time.perf_counter()
            with torch.no_grad():
                self.predict(torch.from_numpy(self.start), self.solver())
            times.append(time.perf_counter() - began)
        return min(times)


class Reached(Exception):
    """Ends an optimiser at the goal, or out of patience."""


@dataclass
class Race:
    """The clock of one optimiser: how long, and after how many iterates, the goal was reached."""

    case: Case
    patience: float = math.inf
    began: float = field(default_factory=time.perf_counter)
    error: float = math.inf
    seconds: float = math.nan
    points: int = 0
    solves: int = 0

    def predict(self, values: Tensor) -> Tensor:
        """The predictions, one forward solve."""
        self.solves += 1
        return self.case.predict(values, self.case.solver())

    def see(self, t: np.ndarray) -> None:
        """Note an iterate in logarithms; raises Reached at the goal or where patience ends."""
        self.points += 1
        self.error = float(np.abs(t - np.log(self.case.truth)).max())
        spent = time.perf_counter() - self.began
        if self.error <= self.case.goal:
            self.seconds = spent
        if self.error <= self.case.goal or spent > self.patience:
            raise Reached

    def run(self, work: Callable[[], object]) -> Race:
        with suppress(Reached):
            work()
        return self


def ours(case: Case, limit: int = 40) -> Race:
    """Levenberg-Marquardt in log parameters with exact Jacobians."""
    race = Race(case)

    def predict(given: Mapping[str, Tensor]) -> Tensor:
        return race.predict(given["values"])

    problem = problem_from_function([Parameter("values", case.start, transform="log")], predict, case.data)
    settings = Settings(noptmax=limit, statistics=False, verify=False)

    def watch(iteration: Iteration) -> None:
        race.see(iteration.evaluation.t)

    race.run(lambda: calibrate(problem, settings=settings, watch=watch, on_fail="ignore"))
    return race


def finite_differences(case: Case) -> Race:
    """SciPy's least squares with two-point differences, over the same forward solver.

    Every solve starts cold: nothing is remembered.
    """
    race = Race(case, PEER_SECONDS)

    def residual(t: np.ndarray) -> np.ndarray:
        race.see(t)
        try:
            with torch.no_grad():
                return (race.predict(torch.from_numpy(np.exp(t))) - case.data).numpy()
        except bilevel.BilevelError:
            return np.full(len(case.data), FAILED)

    options = {"ftol": 1e-15, "xtol": 1e-15, "gtol": None, "x_scale": "jac", "diff_step": DIFFERENCE}
    return race.run(lambda: least_squares(residual, np.log(case.start), **options))


def quasi_newton(case: Case) -> Race:
    """SciPy's L-BFGS-B with our exact gradients, from remembered states as ours."""
    race, memory = Race(case, PEER_SECONDS), Memory()

    def value_and_gradient(t: np.ndarray) -> tuple[float, np.ndarray]:
        race.see(t)
        x = torch.from_numpy(t.copy()).requires_grad_()
        try:
            with memory.remembering(), visiting(case.name, x, (case.name,)):
                phi = (race.predict(x.exp()) - case.data).square().sum()
        except bilevel.BilevelError:
            return FAILED, np.zeros_like(t)
        (gradient,) = torch.autograd.grad(phi, x)
        return float(phi.detach()), gradient.numpy()

    options = {"ftol": 1e-30, "gtol": 1e-30, "maxiter": 10_000, "maxcor": 20}
    start = np.log(case.start)
    return race.run(lambda: minimize(value_and_gradient, start, jac=True, method="L-BFGS-B", options=options))


def block_case(n: int, groups: int, goal: float, tolerance: float) -> Case:
    """Young's moduli of so many groups of cells, and lambda / mu behind them where there are two groups.

    Seen are all displacements and the force on the moved face, without which no modulus is known but for a factor.
    """
    block = Block(n)
    cells = len(block.young)
    group = torch.arange(cells) * groups // cells
    right = block.mesh.nodes_on("right")

    def predict(values: Tensor, solver: bilevel.Newton) -> Tensor:
        young = block.young * values[group]
        ratio = values[groups] if len(values) > groups else torch.tensor(1.5, dtype=torch.float64)
        poisson = ratio / (2.0 * (1.0 + ratio))
        params = block.params(young, poisson)
        u = bilevel.argmin(block.solid, block.start, params, solver=solver).u
        forces = block.solid.nodal_forces(block.solid.expand(u, params), params)
        return torch.cat([u, forces[right, 0].sum().reshape(1)])

    truth, start = drawn(groups)
    if groups == 2:
        truth, start = np.append(truth, 1.5), np.append(start, 0.7)
    return Case(f"block, {block.dofs / 1000:.0f}k dofs", truth, start, predict, tolerance, goal)


def darcy_case(n: int, zones: int, goal: float, tolerance: float) -> Case:
    """The conductivities of so many zones of the unit square, from all heads under known recharge."""
    mesh = rectangle(n, n)
    flow = DarcyFlow(mesh, [mesh.fixed("left", value=1.0), mesh.fixed("right")])
    zone = torch.arange(n * n) * zones // (n * n)
    recharge = torch.tensor(1.0, dtype=torch.float64)

    def predict(values: Tensor, solver: bilevel.Newton) -> Tensor:
        params = {"flow": {"hydraulic_conductivity": values[zone]}, "source": recharge}
        return bilevel.argmin(flow, flow.start(), params, solver=solver).u

    truth, start = drawn(zones)
    return Case(f"Darcy, {flow.n / 1000:.0f}k unknowns", truth, start, predict, tolerance, goal)


def drawn(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Log-normal values with a standard deviation of 1/2, to be found from ones."""
    return np.exp(0.5 * np.random.default_rng(count).normal(size=count)), np.ones(count)


def at_most_twice(row: str, value: float) -> Record:
    """What is asked of the block."""
    return at_most(row, value, 2.0)


def three_records(case: Case, promised: Callable[[str, float], Record]) -> list[Record]:
    """Ours against both peers, with three parameters."""
    one = torch.ones(1, dtype=torch.float64)
    torch.func.grad(lambda x: torch.func.jvp(torch.square, (x,), (x,))[1].sum())(one)  # PyTorch loads transforms late
    case.cold_seconds()  # patterns, analyses, first calls
    cold = case.cold_seconds()
    race = ours(case)
    name = f"3 parameters to {case.goal:g}, {case.name}"
    iterations = race.points
    rows = [
        stated(f"one cold forward solve, {case.name}", cold, "s"),
        stated(f"exact Jacobians, {name}", race.seconds, "s"),
        stated(f"exact Jacobians: outer iterations, {name}", iterations),
        stated(f"exact Jacobians: forward solves, {name}", race.solves),
        promised(f"total / (outer iterations x one cold forward solve), {name}", race.seconds / (iterations * cold)),
    ]
    for label, run in (("finite differences", finite_differences), ("L-BFGS-B with exact gradients", quasi_newton)):
        other = run(case)
        reached = (
            "" if not math.isnan(other.seconds) else f"not reached: error {other.error:.1e} after {PEER_SECONDS:.0f} s"
        )
        rows += [
            stated(f"{label}, {name}", other.seconds, "s", target=reached),
            stated(f"{label}: forward solves, {name}", other.solves),
            stated(f"{label} / ours, {name}", other.seconds / race.seconds),
        ]
    return rows


def field_records(case: Case, most: int) -> list[Record]:
    """How many outer iterations a field takes."""
    race = ours(case)
    name = f"{len(case.truth)} unknowns to {case.goal:g}, {case.name}"
    iterations = float(race.points - 1) if race.error <= case.goal else math.nan
    return [
        at_most(f"outer iterations, {name}", iterations, most),
        stated(f"largest error of a logarithm, {name}", race.error),
        stated(f"seconds, {name}", race.seconds, "s"),
        stated(f"forward solves, {name}", race.solves),
    ]


def run(quick: bool) -> list[Record]:
    block, darcy, unknowns = (6, 30, 16) if quick else (14, 100, 128)
    return [
        *three_records(block_case(block, 2, goal=1e-6, tolerance=1e-8), at_most_twice),
        *three_records(darcy_case(darcy, 3, goal=1e-6, tolerance=1e-10), stated),
        *field_records(block_case(block, unknowns, goal=1e-10, tolerance=1e-12), 15),
        *field_records(darcy_case(darcy, unknowns, goal=1e-10, tolerance=1e-13), 15),
    ]
