"""What a calibration gains from remembering inner states: factorisations of a solve and processor time, memory on against off."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

import bilevel
from benchmarks.core.block import Block
from benchmarks.learned.guess_calibration import NOISE, Study, newton
from benchmarks.record import Record, at_least, at_most, stated
from bilevel.calibrate import Parameter, Settings, calibrate, problem_from_function
from bilevel.calibrate.result import CalibrationResult
from bilevel.implicit.memory import Memory, visiting
from bilevel.report import Counts, SolveReport
from bilevel.solvers import LoadStepping, Newton, Tolerance
from bilevel.solvers.steps import TrustRegion
from physics.constitutive.flow.power_law import PowerLaw
from physics.discretisation import rectangle
from physics.discretisation.constraints import Dirichlet
from physics.discretisation.graph import Graph
from physics.families.flow_setting import THRESHOLD
from physics.families.large_strain import PlaneMotion
from physics.families.networks import lattice
from physics.flow import FlowNetwork
from physics.solids import NeoHookean
from physics.solids.cellwise.nearly_incompressible import NearlyIncompressibleSolid

LINE = "calibrations with the memory of inner states on and off: factorisations a solve, seconds, the same parameters"
DURATION = "10 minutes"

Values = Mapping[str, Tensor]


@dataclass
class Work:
    """What the inner solves of a model did, the first apart: it is cold in any case."""

    solves: int = 0
    iterations: int = 0
    counts: Counts = field(default_factory=Counts)
    first: SolveReport | None = None

    def add(self, report: SolveReport) -> None:
        if self.first is None:
            self.first = report
            return
        self.solves += 1
        self.iterations += report.iterations
        self.counts.add(report.counts)

    @property
    def factorisations(self) -> float:
        return self.counts.factorisations / max(self.solves, 1)


@dataclass
class Case:
    """A model with its data; predict(values, work) tells `work` of its solves."""

    name: str
    parameters: list[Parameter]
    predict: Callable[[Values, Work], Tensor]
    data: Tensor
    weight: float | None = None

    def run(self, memory: bool) -> Calibrated:
        work = Work()
        problem = problem_from_function(self.parameters, lambda v: self.predict(v, work), self.data, self.weight)
        settings = Settings(statistics=False, verify=False, memory=memory, tolerance=1e-8)
        began = time.process_time()
        result = calibrate(problem, settings=settings)
        return Calibrated(result, work, time.process_time() - began)


@dataclass
class Calibrated:
    """A calibration, the work in it, and its processor time."""

    result: CalibrationResult
    work: Work
    seconds: float


@dataclass(frozen=True)
class Promise:
    """At most so many factorisations a solve, at least so many times faster than without memory."""

    factorisations: float = np.inf
    faster: float = 0.0


class RubberBar:
    """A bar of rubber in four zones, stretched and bent in one step; seen are displacements of nodes and the end force."""

    def __init__(self, across: int) -> None:
        length, self.motion = 3.0, PlaneMotion(3.0, stretch=1.8, angle=1.5)
        self.mesh = rectangle(round(length * across), across, (length, 1.0))
        self.body = NearlyIncompressibleSolid(
            self.mesh, NeoHookean(), [self.mesh.fixed("left"), self.mesh.fixed("right")]
        )
        self.right = self.mesh.nodes_on("right")
        cells = len(self.mesh.cells)
        middle = self.mesh.coordinates[self.mesh.cells].mean(1)[:, 0]
        self.zone = (middle / length * 4).long().clamp(max=3)
        self.seen = torch.arange(0, len(self.mesh.coordinates), max(1, cells // 60))
        inner = Newton(step=TrustRegion(), tolerance=Tolerance(relative=1e-10), max_iterations=15)
        self.solver = LoadStepping(self.path, inner, first=0.1, predict=True)

    def path(self, params: dict, fraction: float) -> dict:  # type: ignore[type-arg]
        end = self.motion.displacement(self.mesh.coordinates[self.right], fraction)
        return {**params, "boundary": {"right": end}}

    def predict(self, values: Values, work: Work) -> Tensor:
        mu = values["moduli"][self.zone]
        params = self.path({"material": {"mu": mu, "lame_lambda": mu * (2.0 * 0.48 / (1.0 - 2.0 * 0.48))}}, 1.0)
        solution = bilevel.argmin(self.body, self.body.start(), params, solver=self.solver)
        work.add(solution.report)
        shape = self.body.expand(solution.u, params)
        force = self.body.nodal_forces(shape, params)[self.right].sum(0)
        return torch.cat([shape[self.seen].reshape(-1), force])


def rubber_bar(across: int) -> Case:
    bar = RubberBar(across)
    truth = torch.tensor([0.8, 1.3, 0.6, 1.1], dtype=torch.float64)
    return noisy(f"rubber bar, {bar.body.n} unknowns, 4 parameters", "moduli", truth, bar.predict)


def power_law_grid(size: int) -> Case:
    """Sixteen zones of a thinned lattice with drop = R flux^2; heads at every tenth node and the whole flux are seen."""
    rng = np.random.default_rng(0)
    network = lattice(size, 2, rng)
    held = np.concatenate([network.side(True), network.side(False)])
    head = torch.from_numpy((network.points[held, 0] > 0.5).astype(float))
    graph = Graph(len(network.points), torch.from_numpy(network.edges))
    law = PowerLaw(1.5, THRESHOLD * network.spacing)
    flow = FlowNetwork(graph, law, (Dirichlet("sides", torch.from_numpy(held), value=head[:, None]),))
    middle = network.points[network.edges].mean(1)
    zone = torch.from_numpy((middle * 3.999).astype(int) @ np.array([1, 4]))
    inflow = torch.zeros(graph.nodes, dtype=torch.float64)
    inlet = torch.from_numpy((network.points[network.edges][..., 0] <= 0.5 * network.spacing).any(1))

    def predict(values: Values, work: Work) -> Tensor:
        params = {"flow": {"conductance": values["conductances"][zone]}, "inflow": inflow}
        solution = bilevel.argmin(flow, flow.start(), params, solver=newton())
        work.add(solution.report)
        return torch.cat([solution.u[::10], flow.flux(solution.u, params)[inlet].abs().sum().reshape(1)])

    truth = torch.from_numpy(np.exp(0.5 * rng.normal(size=16)))
    return noisy(f"power-law grid, {flow.n} unknowns, 16 parameters", "conductances", truth, predict)


def pores(nodes: int) -> Case:
    """The study of `learned/guess_calibration`, from heads that are level."""
    study = Study(nodes)

    def predict(values: Values, work: Work) -> Tensor:
        solution = bilevel.argmin(study.problem, study.rest, study.params(values["theta"]), solver=newton())
        work.add(solution.report)
        return solution.u[study.seen]

    theta = Parameter("theta", np.zeros(len(study.truth)), prior_mean=0.0, prior_std=1.0)
    return Case(f"pores, {study.problem.n} unknowns, 128 parameters", [theta], predict, study.heads, 1.0 / NOISE)


def block(n: int) -> Case:
    """Young's moduli of two halves of a block and lambda / mu, by displacements and the force on the moved face."""
    body = Block(n)
    cells = len(body.young)
    half, right = torch.arange(cells) * 2 // cells, body.mesh.nodes_on("right")

    def predict(values: Values, work: Work) -> Tensor:
        ratio = values["stiffness"][2]
        params = body.params(body.young * values["stiffness"][half], ratio / (2.0 * (1.0 + ratio)))
        solution = bilevel.argmin(body.solid, body.start, params, solver=Newton(tolerance=Tolerance(1e-8)))
        work.add(solution.report)
        forces = body.solid.nodal_forces(body.solid.expand(solution.u, params), params)
        return torch.cat([solution.u, forces[right, 0].sum().reshape(1)])

    truth = torch.tensor([1.4, 0.7, 1.5], dtype=torch.float64)
    return noisy(f"block, {body.dofs} unknowns, 3 parameters", "stiffness", truth, predict)


def noisy(name: str, parameter: str, truth: Tensor, predict: Callable[[Values, Work], Tensor]) -> Case:
    """Positive values to be found from ones, by predictions at the truth with one percent of noise."""
    with torch.no_grad():
        exact = predict({parameter: truth}, Work())
    noise = torch.from_numpy(np.random.default_rng(1).standard_normal(len(exact)))
    data = exact + 0.01 * exact.abs().median() * noise
    return Case(name, [Parameter(parameter, np.ones(len(truth)), transform="log")], predict, data)


def compared(case: Case, promise: Promise) -> list[Record]:
    on, off = case.run(memory=True), case.run(memory=False)
    name, difference = case.name, 0.0
    for parameter, value in on.result.values.items():
        other = np.asarray(off.result.values[parameter])
        difference = max(difference, float(np.abs(np.asarray(value) / other - 1.0).max()))
    return [
        stated(f"{name}: inner solves, on", on.work.solves + 1),
        stated(f"{name}: factorisations a solve, off", off.work.factorisations),
        at_most(f"{name}: factorisations a solve, on, but the first", on.work.factorisations, promise.factorisations),
        stated(f"{name}: solves that fell back to a cold start", on.work.counts.fallbacks),
        stated(f"{name}: calibration, off", off.seconds, "s"),
        stated(f"{name}: calibration, on", on.seconds, "s"),
        at_least(f"{name}: calibration, off / on", off.seconds / on.seconds, promise.faster),
        at_most(f"{name}: largest relative difference of a parameter", difference, 1e-6),
    ]


def ensemble(across: int, count: int) -> list[Record]:
    """So many parameter sets of the rubber bar, each moduli within a fifth; from memory, and one by one."""
    bar = RubberBar(across)
    sets = torch.from_numpy(np.exp(np.random.default_rng(2).uniform(-0.2, 0.2, size=(count, 4))))
    seconds, predicted = [], []
    for memory in (Memory(points=count), Memory(points=0)):
        began = time.process_time()
        predicted.append(torch.stack([member(bar, memory, moduli, k % LEARNS == 0) for k, moduli in enumerate(sets)]))
        seconds.append(time.process_time() - began)
    warm, cold = predicted
    return [
        stated(f"{count} parameter sets of the rubber bar, cold", seconds[1], "s"),
        at_least(f"{count} parameter sets of the rubber bar, cold / from memory", seconds[1] / seconds[0], 4.0),
        at_most("largest difference of a prediction", float(((warm - cold).abs() / cold.abs().max()).max()), 1e-6),
    ]


LEARNS = 4
"""One in so many sets also finds the sensitivities of its state, from which those that follow are predicted."""


def member(bar: RubberBar, memory: Memory, moduli: Tensor, learns: bool) -> Tensor:
    """The predictions at one set."""

    def function(moduli: Tensor) -> Tensor:
        with visiting("bar", moduli, ("a", "b", "c", "d")):
            return bar.predict({"moduli": moduli}, Work())

    with memory.remembering():
        if not learns or memory.points == 0:
            return function(moduli)
        basis = torch.eye(len(moduli), dtype=moduli.dtype)
        return torch.vmap(lambda v: torch.func.jvp(function, (moduli,), (v,)))(basis)[0][0]


def run(quick: bool) -> list[Record]:
    across, size, nodes, n = (10, 400, 600, 6) if quick else (40, 10_000, 10_000, 25)
    cases = [
        (rubber_bar(across), Promise(1.8, 3.0)),
        (power_law_grid(size), Promise(2.7)),
        (pores(nodes), Promise(faster=2.0)),
        (block(n), Promise(faster=1.5)),
    ]
    compared(block(3), Promise())  # what a process loads and compiles once is nobody's time
    records = [record for case, promise in cases for record in compared(case, promise)]
    return [*records, *ensemble(8 if quick else 20, 16 if quick else 64)]
