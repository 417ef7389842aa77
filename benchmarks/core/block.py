"""A 3-D neo-Hookean block: forward solve and gradient against the bare solvers, a plain reference and peers."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

import bilevel
from benchmarks.alone import alone
from benchmarks.record import Record, at_most, median, stated
from benchmarks.references.lower_bound import Systems, bound_seconds, multigrid_iterations
from benchmarks.references.plain_newton import Linear, Multigrid, Pardiso, PlainBlock
from bilevel.linalg.operator import Sparse
from bilevel.problem import Params
from bilevel.solvers.newton import NewtonDirection
from physics.constitutive.elastic.neo_hookean import NeoHookean
from physics.discretisation import box
from physics.solids.solid import Solid

LINE = "3-D neo-Hookean block up to 3e5 unknowns: forward, gradient, Jacobian against bare solvers and a plain Newton"
DURATION = "6 minutes"

STRETCH = 0.2
TOLERANCE = 1e-8
POISSON = 0.3
MULTIGRID_FROM = 40_000
DIRECT_UP_TO = 60_000
"""PARDISO takes a minute at 150 k unknowns."""


@dataclass
class Block:
    """n x n x n bricks, the face x = 0 clamped, the opposite one moved by the stretch; started from affine stretch."""

    n: int

    def __post_init__(self) -> None:
        mesh = self.mesh = box(self.n, self.n, self.n)
        axis = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
        supports = [mesh.fixed("left"), mesh.fixed("right", value=STRETCH * axis)]
        self.solid = Solid(mesh, NeoHookean(), constraints=supports)
        free = self.solid.constraints.free
        self.full = (STRETCH * mesh.coordinates[:, :1] * axis).reshape(-1)
        self.start = self.full[free]
        self.young = 0.5 + torch.rand(len(mesh.cells), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        faces = torch.cat([mesh.nodes_on(name) for name in ("bottom", "top", "front", "back")]).unique()
        seen = torch.zeros(len(mesh.coordinates), 3, dtype=torch.float64)
        seen[faces] = 1.0
        self.seen = seen.reshape(-1)[free]

    @property
    def dofs(self) -> int:
        return self.solid.n

    def params(self, young: Tensor | None = None, poisson: Tensor | None = None) -> Params:
        poisson = torch.tensor(POISSON, dtype=torch.float64) if poisson is None else poisson
        return {"material": {"youngs_modulus": self.young if young is None else young, "poissons_ratio": poisson}}

    def solve(self, params: Params) -> bilevel.Solution:
        return bilevel.argmin(
            self.solid, self.start, params, solver=bilevel.Newton(tolerance=bilevel.Tolerance(TOLERANCE))
        )

    def misfit(self, u: Tensor) -> Tensor:
        """Squared distance of the free surface to the affine stretch."""
        return (self.seen * (u - self.start)).square().sum()


@dataclass
class Cost:
    """What one forward solve and one gradient took, and the gradient."""

    forward: float
    gradient: float
    by_young: np.ndarray
    by_poisson: float
    certificate: float = math.nan


def ours(block: Block) -> Cost:
    young = block.young.clone().requires_grad_()
    poisson = torch.tensor(POISSON, dtype=torch.float64, requires_grad=True)
    started = time.perf_counter()
    solution = block.solve(block.params(young, poisson))
    solved = time.perf_counter()
    by_young, by_poisson = torch.autograd.grad(block.misfit(solution.u), (young, poisson))
    ended = time.perf_counter()
    assert solution.gradient is not None
    return Cost(solved - started, ended - solved, by_young.numpy(), float(by_poisson), solution.gradient.relative_error)


def plain(block: Block, reference: PlainBlock, modes: np.ndarray) -> Cost:
    linear: Linear = Multigrid(modes) if block.dofs > MULTIGRID_FROM else Pardiso()
    started = time.perf_counter()
    full, _ = reference.solve(block.full.numpy(), block.young.numpy(), POISSON, linear, TOLERANCE)
    solved = time.perf_counter()
    u = torch.from_numpy(full[reference.free])
    cotangent = (2.0 * block.seen * (u - block.start)).numpy()
    by_young, by_poisson = reference.gradient(full, block.young.numpy(), POISSON, cotangent, linear)
    return Cost(solved - started, time.perf_counter() - solved, by_young, by_poisson)


def systems_met(block: Block) -> Systems:
    """The linear systems of one solve, with the residuals that its Newton directions asked for."""
    met: Systems = []

    class Noting(NewtonDirection):
        def direction(self, evaluations: Any, point: Any) -> Tensor:
            found = super().direction(evaluations, point)
            assert isinstance(self.tangent, Sparse)
            reached = torch.linalg.vector_norm(self.tangent.matmul(found) + point.residual) / point.norm
            met.append((self.tangent, point.residual, max(float(reached), 1e-10)))
            return found

    class NotingNewton(bilevel.Newton):
        def descent(self) -> NewtonDirection:
            return Noting()

    bilevel.argmin(
        block.solid, block.start, block.params(), solver=NotingNewton(tolerance=bilevel.Tolerance(TOLERANCE))
    )
    return met


def best(repeat: int, run: Callable[[], Cost]) -> Cost:
    """The shortest times of some runs."""
    costs = [run() for _ in range(repeat)]
    return replace(costs[0], forward=min(c.forward for c in costs), gradient=min(c.gradient for c in costs))


def assembly_seconds(block: Block) -> float:
    """Residual and matrix once; the median of five."""
    params, times = block.params(), []
    with torch.no_grad():
        for _ in range(5):
            started = time.perf_counter()
            block.solid.value_and_residual(block.start, params)
            block.solid.tangent(block.start, params)
            times.append(time.perf_counter() - started)
    return median(times)


def size_records(block: Block, repeat: int) -> tuple[list[Record], dict[str, float]]:
    """The rows of one size, and the seconds of its phases."""
    n = block.dofs
    near, small = f"{n / 1000:.0f}k dofs", n < MULTIGRID_FROM
    limit = 2.0 if small else 1.5
    started = time.perf_counter()
    block.solve(block.params())  # patterns, symbolic analysis, first calls
    first = time.perf_counter() - started
    mine = best(repeat, lambda: ours(block))
    reference = PlainBlock(
        block.mesh.coordinates.numpy(), block.mesh.cells.numpy(), block.solid.constraints.free.numpy()
    )
    modes = block.solid.structure.near_null_space
    assert modes is not None
    theirs = best(repeat, lambda: plain(block, reference, modes.numpy()))
    found = systems_met(block)
    bounds = [bound_seconds(found, DIRECT_UP_TO) for _ in range(repeat)]
    times = {name: min(b[name] for b in bounds) for name in bounds[0]}
    libraries = min(seconds for name, seconds in times.items() if name != "our multigrid")
    bound = min(times.values())
    assembly = assembly_seconds(block)
    agreement = np.linalg.norm(mine.by_young - theirs.by_young) / np.linalg.norm(theirs.by_young)
    rows = [
        stated(f"forward, {near}", mine.forward, "s"),
        stated(f"forward the first time, with pattern and analysis, {near}", first, "s"),
        stated(f"gradient with certificate, {near}", mine.gradient, "s"),
        stated(f"plain forward, {near}", theirs.forward, "s"),
        stated(f"plain gradient, {near}", theirs.gradient, "s"),
        *(stated(f"bare {name}, {len(found)} systems, {near}", seconds, "s") for name, seconds in times.items()),
        at_most(f"forward / least of bare PARDISO and pyamg, {near}", mine.forward / libraries, limit),
        at_most(f"forward / least of all bare solvers, {near}", mine.forward / bound, limit),
        at_most(f"forward / plain, {near}", mine.forward / theirs.forward, 1.3 if small else 1.0),
        at_most(f"gradient / plain, {near}", mine.gradient / theirs.gradient, 1.0),
        at_most(f"gradient / forward, {near}", mine.gradient / mine.forward, 0.15),
        at_most(f"certificate: relative error of the gradient, {near}", mine.certificate, 1e-8),
        at_most(f"gradient against the plain one, relative difference, {near}", float(agreement), 1e-6),
        stated(f"assembly of residual and matrix, {near}", assembly, "s"),
    ]
    phases = {"assembly": assembly, "forward": mine.forward, "gradient": mine.gradient, "lower bound": bound}
    return rows, phases


def jacobian_records(block: Block, parameters: int, forward: float) -> list[Record]:
    """The Jacobian of all displacements in the stiffness of some groups of cells, in one batched call."""
    groups = torch.arange(len(block.young)) * parameters // len(block.young)

    def state(scales: Tensor) -> Tensor:
        return block.solve(block.params(block.young * scales[groups])).u

    scales = torch.ones(parameters, dtype=torch.float64)
    torch.func.jacfwd(state)(scales)  # symbolic analysis, first calls
    started = time.perf_counter()
    jacobian = torch.func.jacfwd(state)(scales)
    seconds = time.perf_counter() - started - forward
    assert jacobian.shape == (block.dofs, parameters)
    row = f"Jacobian of {parameters} parameters / forward, {block.dofs / 1000:.0f}k dofs"
    return [at_most(row, seconds / forward, 2.5, seconds=seconds)]


def slope_records(dofs: list[int], phases: list[dict[str, float]]) -> list[Record]:
    """Log-log slopes of each phase against size."""
    rows = []
    for name in phases[0]:
        slope = float(np.polyfit(np.log(dofs), np.log([phase[name] for phase in phases]), 1)[0])
        label = f"slope of {name} against size"
        rows.append(at_most(label, slope, 1.05) if name == "assembly" else stated(label, slope))
    return rows


def large(n: int) -> dict[str, float]:
    """Forward and gradient at a size where memory counts, and the iterations of multigrid; run in its own process."""
    block = Block(n)
    cost = ours(block)
    return {
        "dofs": block.dofs,
        "forward": cost.forward,
        "gradient": cost.gradient,
        "certificate": cost.certificate,
        "iterations": multigrid_iterations(systems_met(block), TOLERANCE),
    }


def large_records(n: int, reference: Block) -> list[Record]:
    """Memory at the largest size, and how the iterations grow up to it."""
    found = alone("benchmarks.core.block:large", n=n)
    if "error" in found:
        return [stated(f"block of {n} x {n} x {n}", None, target=found["error"])]
    near = f"{found['dofs'] / 1000:.0f}k dofs"
    few = multigrid_iterations(systems_met(reference), TOLERANCE)
    growth = f"multigrid iterations, {near} / {reference.dofs / 1000:.0f}k dofs ({found['iterations']} / {few})"
    return [
        stated(f"forward, {near}", found["forward"], "s"),
        stated(f"gradient with certificate, {near}", found["gradient"], "s"),
        at_most(f"gradient / forward, {near}", found["gradient"] / found["forward"], 0.15),
        at_most(f"certificate: relative error of the gradient, {near}", found["certificate"], 1e-8),
        at_most(f"peak memory of forward and gradient, {near}", found["peak_mb"] / 1024, 16.0, "GiB"),
        at_most(growth, found["iterations"] / few, 1.5),
    ]


def run(quick: bool) -> list[Record]:
    records, sizes, phases = [], [], []
    for n in (6, 10) if quick else (14, 25, 37):
        block = Block(n)
        rows, times = size_records(block, repeat=3 if n < 30 else 1)
        records += rows
        sizes.append(block.dofs)
        phases.append(times)
        if n in (10, 25):
            records += jacobian_records(block, 100, times["forward"])
            records += large_records(12 if quick else 47, block)
    return [*records, *slope_records(sizes, phases)]
