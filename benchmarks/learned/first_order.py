"""Steps predicted by a graph network where nothing is factorised: descents on many small graphs, by their gradients alone."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import torch
from torch import Tensor, nn

from benchmarks.record import Record, at_least, median, stated
from bilevel.acceleration.family import Instance
from bilevel.acceleration.learned_step import LearnedStep
from bilevel.problem import EnergyProblem, Params, Problem
from bilevel.report import BilevelError
from bilevel.solvers import LBFGS, GradientDescent, LogMiddle, NonlinearCG, Tolerance
from bilevel.solvers.evaluations import Point
from bilevel.solvers.solver import Outcome, Solver
from bilevel.solvers.steps import BarzilaiBorwein, StrongWolfe
from physics.families.power_law import PowerLawFlow
from physics.flow.network import FlowNetwork

LINE = (
    "per-node steps and momentum by a graph network against tuned first-order methods, 24 graphs, 50 to 500 gradients"
)
DURATION = "15 minutes"

FAMILY, NODES, TUNING, FIRST_TEST = PowerLawFlow(exponent=3.0), 200, 4, 2_000_000
BUDGETS, CLOSE = (50, 100, 200, 500), 1e-6
SEGMENT, SEGMENTS, BATCH, HIDDEN, RATE = 15, 10, 16, 24, 3e-3
FLOOR = 0.1
"""Of the mean diagonal: smaller entries, which grow later, are scaled as this."""

TINY = 1e-30


Make: TypeAlias = Callable[["Case"], Solver]


class Ended(BilevelError):
    """A descent that is near enough, or out of budget."""


class Scaled(EnergyProblem):
    """An instance in unknowns scaled by `scale`, which remembers its lowest energy after each gradient.

    Raises Ended where that is below `enough`, and after the largest budget.
    """

    def __init__(self, instance: Instance, scale: Tensor, enough: float) -> None:
        self.problem, self.scale, self.enough, self.energies = instance.problem, scale, enough, [math.inf]

    def value(self, u: Tensor, params: Params) -> Tensor:
        return self.problem.value(self.scale * u, params)

    def value_and_residual(self, u: Tensor, params: Params) -> tuple[Tensor, Tensor]:
        value, residual = self.problem.value_and_residual(self.scale * u, params)
        self.energies.append(min(self.energies[-1], float(value.nan_to_num(math.inf))))
        if self.energies[-1] < self.enough or len(self.energies) > max(BUDGETS):
            raise Ended
        return value, self.scale * residual

    def magnitude(self, u: Tensor, params: Params) -> Tensor | None:
        return None


@dataclass
class Case:
    """A graph, its diagonal at the start, and energies from its start to its minimum."""

    instance: Instance
    diagonal: Tensor
    first: float
    least: float
    solution: Tensor

    @staticmethod
    def of(seed: int) -> Case:
        instance = FAMILY.instance(NODES, seed)
        found = LogMiddle().solve(instance.problem, instance.start, instance.params)
        problem, params, start = instance.problem, instance.params, instance.start
        diagonal = problem.tangent(start, params).diagonal_entries()
        assert diagonal is not None
        first, least = (float(problem.value(u, params)) for u in (start, found.u))
        return Case(instance, diagonal, first, least, found.u)

    def errors(self, energies: list[float]) -> list[float]:
        """Energies above the least, relative to the start's, after 1, 2, ... gradients."""
        return [max(energy - self.least, 0.0) / (self.first - self.least) for energy in energies[1:]]

    def run(self, make: Make) -> tuple[list[float], float]:
        """Errors, and seconds of the processor."""
        scale = self.diagonal.clamp(min=FLOOR * float(self.diagonal.mean())).rsqrt()
        problem = Scaled(self.instance, scale, self.least + 1e-3 * CLOSE * (self.first - self.least))
        began = time.process_time()
        with suppress(Ended):
            make(self).solve(problem, self.instance.start / scale, self.instance.params)
        return self.errors(problem.energies), time.process_time() - began


class Recursion(Solver):
    """u <- u + momentum (u - u before) - length times the residual there, by lengths and momenta of each iteration."""

    def __init__(self, lengths: Callable[[int], tuple[float, float]], restart: bool = False) -> None:
        self.lengths, self.restart = lengths, restart

    def solve(self, problem: Problem, u0: Tensor, params: Params, record: bool = False) -> Outcome:
        """Raises Ended, whose energies are the outcome."""
        assert isinstance(problem, EnergyProblem)
        u, before, age = u0, u0, 0
        while True:
            length, momentum = self.lengths(age)
            ahead = u + momentum * (u - before)
            residual = problem.value_and_residual(ahead, params)[1]
            u, before = ahead - length * residual, u
            upwards = self.restart and float(residual @ (u - before)) > 0.0  # O'Donoghue & Candes 2015
            age, before = (0, u) if upwards else (age + 1, before)


def nesterov(length: float) -> Recursion:
    """FISTA's momentum, restarted where it leads upwards (Beck & Teboulle 2009)."""
    return Recursion(lambda k: (length, k / (k + 3.0)), restart=True)


def chebyshev(low: float, high: float) -> Recursion:
    """The semi-iteration for curvatures between low and high, in its stationary form (Polyak's heavy ball)."""
    root_high, root_low = math.sqrt(high), math.sqrt(low)
    length, momentum = (
        4.0 / (root_high + root_low) ** 2,
        ((root_high - root_low) / (root_high + root_low)) ** 2,
    )
    return Recursion(lambda k: (length, momentum))


def classical() -> dict[str, list[Solver]]:
    """The baselines, each with the settings that it is tuned over; all of them in Jacobi's scaling, which they all gain by."""
    goal, most = Tolerance(1e-14), 10 * max(BUDGETS)
    curvatures, memories, lengths = (0.1, 0.3), (10, 30), (0.3, 0.6, 1.0)
    return {
        "BB": [GradientDescent(step=BarzilaiBorwein(memory=m), tolerance=goal, max_iterations=most) for m in memories],
        "NCG": [NonlinearCG(step=StrongWolfe(curvature=c), tolerance=goal, max_iterations=most) for c in curvatures],
        "L-BFGS": [LBFGS(memory=m, tolerance=goal, max_iterations=most) for m in memories],
        "FISTA, restarted": [nesterov(length) for length in lengths],
        "Chebyshev": [chebyshev(low, high) for low in (0.01, 0.1) for high in (4.0, 16.0, 64.0)],
    }


@dataclass
class Union:
    """Many graphs as one without edges between them, so that they are trained on together."""

    cases: list[Case]

    @cached_property
    def sizes(self) -> Tensor:
        return torch.tensor([len(case.diagonal) for case in self.cases])

    @cached_property
    def graph_of(self) -> Tensor:
        return torch.arange(len(self.cases)).repeat_interleave(self.sizes)

    @cached_property
    def matrix(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Tails and heads of all edges as unknowns (-1: held), held heads (E, 2), conductances, and inflows (n,)."""
        columns, heads, conductances, inflows, first = [], [], [], [], 0
        for case in self.cases:
            problem, params = case.instance.problem, case.instance.params
            assert isinstance(problem, FlowNetwork)
            free, edges = problem.constraints.free, problem.graph.edges
            number = torch.full((problem.graph.nodes,), -1)
            number[free] = torch.arange(len(free)) + first
            full = problem.expand(problem.start(), params)[:, 0]
            columns.append(number[edges])
            heads.append(full[edges])
            conductances.append(params["flow"]["conductance"])
            inflows.append(params["inflow"][free])
            first += len(free)
        return torch.cat(columns), torch.cat(heads), torch.cat(conductances), torch.cat(inflows), torch.tensor(first)

    @cached_property
    def threshold(self) -> Tensor:
        each = [case.instance.problem.law.threshold for case in self.cases]  # type: ignore[attr-defined]
        edges = [len(case.instance.problem.graph.edges) for case in self.cases]  # type: ignore[attr-defined]
        return torch.tensor(each, dtype=torch.float64).repeat_interleave(torch.tensor(edges))

    def evaluate(self, u: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Energies of the graphs, residual and diagonal (n,), stiffness of the edges (E,)."""
        ends, held, conductance, inflow, _ = self.matrix
        free = ends >= 0
        at = torch.where(free, u[ends.clamp(min=0)], held)
        drop, p = at[:, 1] - at[:, 0], float(FAMILY.exponent or 2.0)
        square = drop.square() + self.threshold**2
        secant = conductance * square ** (0.5 * p - 1.0)
        stiffness = secant * (1.0 + (p - 2.0) * drop.square() / square)
        energy = conductance / p * (square ** (0.5 * p) - self.threshold**p)
        which, ones = ends.clamp(min=0), free.to(u)
        residual = torch.zeros_like(u)
        for side, sign in ((0, -1.0), (1, 1.0)):
            residual = residual.index_add(0, which[:, side], sign * secant * drop * ones[:, side])
        diagonal = torch.zeros_like(u).index_add(0, which[:, 0], stiffness * ones[:, 0])
        diagonal = diagonal.index_add(0, which[:, 1], stiffness * ones[:, 1])
        of_edge = self.graph_of[which.amax(1)]
        total = u.new_zeros(len(self.cases)).index_add(0, of_edge, energy).index_add(0, self.graph_of, -inflow * u)
        return total, residual - inflow, diagonal, stiffness

    def sums(self, values: Tensor) -> Tensor:
        return values.new_zeros(len(self.cases)).index_add(0, self.graph_of, values)[self.graph_of]


class StepNetwork(nn.Module):
    """Logarithms of step factors and shares of the last move (n, 2) from what each node and its neighbours see."""

    def __init__(self, hops: int) -> None:
        super().__init__()
        self.encode = nn.Sequential(nn.Linear(10, HIDDEN), nn.SiLU(), nn.Linear(HIDDEN, HIDDEN))
        self.hops = nn.ModuleList(nn.Linear(2 * HIDDEN, HIDDEN) for _ in range(hops))
        self.decode = nn.Sequential(nn.SiLU(), nn.Linear(HIDDEN, 2))
        for value in self.decode[-1].parameters():
            nn.init.zeros_(value)
        self.double()

    def forward(self, union: Union, features: Tensor, stiffness: Tensor) -> Tensor:
        state, ends = self.encode(features), union.matrix[0]
        inside = (ends >= 0).all(1)
        a, b = ends[inside].unbind(1)
        weight = stiffness[inside]
        total = state.new_zeros(len(state)).index_add(0, a, weight).index_add(0, b, weight).clamp(min=TINY)
        for hop in self.hops:
            heard = torch.zeros_like(state).index_add(0, a, weight[:, None] * state[b])
            heard = heard.index_add(0, b, weight[:, None] * state[a]) / total[:, None]
            state = state + nn.functional.silu(hop(torch.cat((state, heard), 1)))
        return self.decode(state)


def move_of(network: StepNetwork, union: Union, u: Tensor, last: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
    """The network's move from u, and the residual there; before: the residual one step ago, zero at first."""
    _, residual, diagonal, stiffness = union.evaluate(u)
    with torch.no_grad():
        diagonal = diagonal.clamp(min=1e-3 * union.sums(diagonal) / union.sums(torch.ones_like(diagonal)))
        scaled = residual / diagonal

        def size(x: Tensor) -> Tensor:
            return union.sums(diagonal * x * x).sqrt().clamp(min=TINY)

        def cosine(x: Tensor, y: Tensor) -> Tensor:
            return union.sums(diagonal * x * y) / (size(x) * size(y))

        old, count = before / diagonal, union.sums(torch.ones_like(u)).sqrt()
        moved = union.sums(last * (residual - before)) / union.sums(diagonal * last * last).clamp(min=TINY)
        columns = (
            torch.tanh(count * scaled / size(scaled)),
            torch.tanh(count * last / size(last)),
            torch.tanh(count * old / size(old)),
            cosine(scaled, last),
            cosine(scaled, old),
            torch.log(size(scaled) / size(old)).clamp(-4.0, 4.0) * (before != 0),
            torch.log(size(last) / size(scaled)).clamp(-6.0, 6.0) / 3.0,
            torch.log(moved.abs().clamp(min=1e-3)),  # the curvature along the last move
            (residual * last).sign() * (last != 0),
            torch.log(diagonal * union.sums(torch.ones_like(u)) / union.sums(diagonal)) / 3.0,
        )
        features = torch.stack(columns, 1)
    factor, share = network(union, features, stiffness.detach()).unbind(1)
    return (share + 0.5).clamp(-0.3, 1.2) * last - 0.5 * torch.exp(2.0 * torch.tanh(factor)) * scaled, residual


def trained(hops: int, updates: int, cases: list[Case]) -> StepNetwork:
    """By unrolled segments of one descent after another; the loss is what the logarithm of each graph's energy error loses."""
    torch.manual_seed(0)
    network = StepNetwork(hops)
    optimiser = torch.optim.Adam(network.parameters(), RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, updates)
    generator = torch.Generator().manual_seed(1)
    for update in range(updates):
        if update % SEGMENTS == 0:
            union = Union([cases[k] for k in torch.randperm(len(cases), generator=generator)[:BATCH].tolist()])
            u = torch.cat([case.instance.start for case in union.cases])
            least = torch.tensor([case.least for case in union.cases], dtype=torch.float64)
            span = torch.tensor([case.first - case.least for case in union.cases], dtype=torch.float64)
            last, before = torch.zeros_like(u), torch.zeros_like(u)
        errors = []
        for _ in range(SEGMENT):
            move, residual = move_of(network, union, u, last, before)
            u, last, before = u + move, move, residual.detach()
            errors.append(((union.evaluate(u)[0] - least) / span).clamp(min=1e-12).log())
        loss = torch.stack(errors).mean()
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        u, last = u.detach(), last.detach()
        if not bool(u.isfinite().all()):
            raise BilevelError("the descents that the network is trained on diverged")
    return network.requires_grad_(False)


def learned(network: StepNetwork) -> Make:
    """Gradient descent with the network's moves, guarded by Armijo's test and Barzilai and Borwein's lengths."""

    def make(case: Case) -> Solver:
        union, before = Union([case]), torch.zeros_like(case.diagonal)

        def propose(point: Point, direction: Tensor, last: Tensor | None) -> Tensor:
            nonlocal before
            move, before = move_of(network, union, point.u, torch.zeros_like(point.u) if last is None else last, before)
            return move

        step = LearnedStep(propose, fallback=BarzilaiBorwein())
        return GradientDescent(step=step, tolerance=Tolerance(1e-12), max_iterations=max(BUDGETS))

    return make


def after(errors: list[float], gradients: int) -> float:
    return errors[min(gradients, len(errors)) - 1]


def needed(errors: list[float]) -> float:
    """Gradients until the error is CLOSE; twice the largest budget where it never is."""
    return next((k + 1.0 for k, error in enumerate(errors[: max(BUDGETS)]) if error <= CLOSE), 2.0 * max(BUDGETS))


def bound(case: Case) -> list[float]:
    """Conjugate gradients with Jacobi's scaling on the quadratic model at the solution, from the start: no method whose lengths
    and momenta are the same for all nodes does better on that model."""
    matrix = case.instance.problem.tangent(case.solution, case.instance.params)
    diagonal = matrix.diagonal_entries()
    assert diagonal is not None
    inverse = 1.0 / diagonal
    error = case.instance.start - case.solution
    r, energies = matrix.matmul(error), []
    z, first = inverse * r, float(0.5 * error @ r)
    d, u = -z, error
    for _ in range(max(BUDGETS)):
        energies.append(float(0.5 * u @ matrix.matmul(u)) / first)
        image = matrix.matmul(d)
        length = (r @ z) / (d @ image).clamp(min=TINY)
        u, new = u + length * d, r + length * image
        w = inverse * new
        d, r, z = -w + (new @ w) / (r @ z).clamp(min=TINY) * d, new, w
    return energies


def run(quick: bool) -> list[Record]:
    tests = [Case.of(FIRST_TEST + k) for k in range(4 if quick else 24)]
    tuning = [Case.of(1_000_000 + k) for k in range(2 if quick else TUNING)]
    lessons = [Case.of(k) for k in range(BATCH if quick else 4 * BATCH)]
    methods: dict[str, Make] = {}
    for name, solvers in classical().items():
        tried: list[Make] = [lambda case, solver=solver: solver for solver in solvers]  # type: ignore[misc]
        methods[name] = min(tried, key=lambda way: sum(needed(case.run(way)[0]) for case in tuning))
    began = time.process_time()
    for hops in (2, 0):
        methods[f"learned step, {hops} hops"] = learned(trained(hops, 20 if quick else 400, lessons))
    records = [stated("training of both, processor time", time.process_time() - began, "s")]
    gradients, seconds = {}, {}
    for name, way in methods.items():
        runs = [case.run(way) for case in tests]
        errors = [errors for errors, _ in runs]
        gradients[name] = median([needed(one) for one in errors])
        seconds[name] = median([spent * min(needed(one) / len(one), 1.0) for one, spent in runs])
        records += [
            stated(f"{name}: error after {budget} gradients, median", median([after(one, budget) for one in errors]))
            for budget in BUDGETS
        ]
        records.append(stated(f"{name}: gradients to {CLOSE:g}, median", gradients[name]))
        records.append(stated(f"{name}: seconds to {CLOSE:g}, median", seconds[name], "s"))
    records.append(stated(f"bound: gradients to {CLOSE:g}, median", median([needed(bound(case)) for case in tests])))
    best = min((name for name in methods if "learned" not in name), key=lambda name: gradients[name])
    ours = gradients["learned step, 2 hops"]
    return [
        *records,
        at_least(f"gradients, {best} / learned step", gradients[best] / ours, 1.5),
        stated(f"seconds, {best} / learned step", seconds[best] / seconds["learned step, 2 hops"]),
    ]
