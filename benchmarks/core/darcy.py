"""Darcy flow with a log-normal conductivity in every cell: forward and gradient against bare solves and a plain Newton."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

import bilevel
from benchmarks.alone import alone
from benchmarks.record import Record, at_most, stated
from benchmarks.references.lower_bound import multigrid_seconds, pardiso_seconds
from benchmarks.references.plain_darcy import Pardiso, PlainDarcy
from physics.discretisation import Mesh, box, rectangle
from physics.flow import DarcyFlow, NonlinearDiffusion, QuadraticConductivity

LINE = "Darcy flow, one log-normal conductivity a cell: linear against bare solves, nonlinear against a plain Newton"
DURATION = "8 minutes"

LOG_SPREAD = 2.0
TOLERANCE = 1e-8
MEMORY = 2048.0


def mesh_of(cells: int, dim: int) -> Mesh:
    """The unit square or cube with so many cells along each side."""
    return rectangle(cells, cells) if dim == 2 else box(cells, cells, cells)


def log_conductivity(mesh: Mesh) -> Tensor:
    """Independent normal values (E,), the same on every machine."""
    generator = torch.Generator().manual_seed(0)
    return LOG_SPREAD * torch.randn(len(mesh.cells), generator=generator, dtype=torch.float64)


@dataclass
class Cost:
    """What one forward solve and one gradient took, and the gradient."""

    forward: float
    gradient: float
    by_cell: np.ndarray
    certificate: float = math.nan


class Nonlinear:
    """- div(k (1 + u^2) grad u) = 1 with u = 1 and 0 on two sides; the objective is the squared distance to 1/2."""

    def __init__(self, cells: int, dim: int) -> None:
        self.mesh = mesh = mesh_of(cells, dim)
        held = [mesh.fixed("left", value=1.0), mesh.fixed("right")]
        self.flow = NonlinearDiffusion(mesh, QuadraticConductivity(), held)
        self.log_k = log_conductivity(mesh).requires_grad_()
        self.source = torch.tensor(1.0, dtype=torch.float64)

    @property
    def params(self) -> dict[str, Any]:
        return {"flow": {"conductivity": self.log_k.exp()}, "source": self.source}

    def ours(self) -> Cost:
        started = time.perf_counter()
        solver = bilevel.Newton(tolerance=bilevel.Tolerance(TOLERANCE))
        solution = bilevel.root(self.flow, self.flow.start(), self.params, solver=solver)
        solved = time.perf_counter()
        (by_cell,) = torch.autograd.grad((solution.u - 0.5).square().sum(), self.log_k)
        ended = time.perf_counter()
        assert solution.gradient is not None
        return Cost(solved - started, ended - solved, by_cell.numpy(), solution.gradient.relative_error)

    def plain(self) -> Callable[[], Cost]:
        """The plain reference, made ready: it keeps pattern and symbolic analysis from one run to the next, as we do."""
        free = np.flatnonzero(~np.isin(np.arange(len(self.mesh.coordinates)), self._held()))
        reference = PlainDarcy(self.mesh.coordinates.numpy(), self.mesh.cells.numpy(), free, coefficient=1.0)
        linear = Pardiso(mtype=11)
        start = self.flow.expand(self.flow.start())[:, 0].numpy()

        def run() -> Cost:
            started = time.perf_counter()
            k = self.log_k.detach().exp().numpy()
            full, matrix, _ = reference.solve(start, k, 1.0, linear, TOLERANCE)
            solved = time.perf_counter()
            by_cell = reference.gradient(full, matrix, k, 2.0 * (full[free] - 0.5), linear)
            return Cost(solved - started, time.perf_counter() - solved, by_cell)

        return run

    def _held(self) -> np.ndarray:
        return torch.cat([self.mesh.nodes_on("left"), self.mesh.nodes_on("right")]).numpy()


def assembly_seconds(problem: Nonlinear) -> float:
    """Residual and matrix once; the best of three."""
    u, params, times = problem.flow.start(), problem.params, []
    with torch.no_grad():
        for _ in range(3):
            started = time.perf_counter()
            problem.flow.residual(u, params)
            problem.flow.tangent(u, params)
            times.append(time.perf_counter() - started)
    return min(times)


def forward_and_gradient(cells: int, dim: int) -> dict[str, float]:
    """Our nonlinear solve and gradient in a process of their own, cold, so that their peak memory is known."""
    problem = Nonlinear(cells, dim)
    cost = problem.ours()
    return {"forward": cost.forward, "gradient": cost.gradient}


def nonlinear_records(cells: int, dim: int, repeat: int) -> tuple[list[Record], float, dict[str, float]]:
    """The rows of one size, its unknowns, and the seconds of its phases."""
    problem = Nonlinear(cells, dim)
    plain = problem.plain()
    first, first_plain = problem.ours(), plain()
    pairs = [(problem.ours(), plain()) for _ in range(repeat)]
    ours = min((mine for mine, _ in pairs), key=lambda cost: cost.forward)
    theirs = min((other for _, other in pairs), key=lambda cost: cost.forward)
    gradient, plain_gradient = min(mine.gradient for mine, _ in pairs), min(other.gradient for _, other in pairs)
    size = f"nonlinear {dim}-D, {problem.flow.n / 1000:.0f}k unknowns"
    difference = np.linalg.norm(ours.by_cell - theirs.by_cell) / np.linalg.norm(theirs.by_cell)
    assembly = assembly_seconds(problem)
    rows = [
        stated(f"forward, {size}", ours.forward, "s"),
        stated(f"forward the first time, with pattern and analysis, {size}", first.forward, "s"),
        stated(f"gradient with certificate, {size}", gradient, "s"),
        stated(f"plain forward, {size}", theirs.forward, "s"),
        stated(f"plain forward the first time, with analysis, {size}", first_plain.forward, "s"),
        stated(f"plain gradient, {size}", plain_gradient, "s"),
        at_most(f"forward / plain, {size}", ours.forward / theirs.forward, 1.0),
        at_most(f"gradient / plain, {size}", gradient / plain_gradient, 1.0),
        at_most(f"certificate: relative error of the gradient, {size}", ours.certificate, 1e-8),
        at_most(f"gradient against the plain one, relative difference, {size}", float(difference), 1e-6),
        stated(f"assembly of residual and matrix, {size}", assembly, "s"),
    ]
    phases = {"assembly": assembly, "forward": ours.forward, "gradient": gradient}
    return rows, float(problem.flow.n), phases


def linear_records(cells: int, dim: int, repeat: int) -> list[Record]:
    """Forward and gradient of the linear problem against two bare solves with its matrix."""
    mesh = mesh_of(cells, dim)
    flow = DarcyFlow(mesh, [mesh.fixed("left", value=1.0), mesh.fixed("right")])
    log_k = log_conductivity(mesh).requires_grad_()

    def cost() -> Cost:
        started = time.perf_counter()
        solution = bilevel.argmin(flow, flow.start(), {"flow": {"hydraulic_conductivity": log_k.exp()}})
        solved = time.perf_counter()
        (by_cell,) = torch.autograd.grad((solution.u - 0.5).square().sum(), log_k)
        assert solution.gradient is not None
        ended = time.perf_counter()
        return Cost(solved - started, ended - solved, by_cell.numpy(), solution.gradient.relative_error)

    cost()  # patterns, symbolic analysis, first calls
    params = {"flow": {"hydraulic_conductivity": log_k.detach().exp()}}
    with torch.no_grad():
        system = (flow.tangent(flow.start(), params), -flow.residual(flow.start(), params), 1e-10)
    costs: list[Cost] = []
    bounds: list[dict[str, float]] = []
    for _ in range(repeat):
        costs.append(cost())
        bounds.append(
            {
                "multigrid": multigrid_seconds([system]),
                "PARDISO, analysed before": pardiso_seconds([system], with_analysis=False),
            }
        )
    forward, gradient = min(c.forward for c in costs), min(c.gradient for c in costs)
    bound, method = min((seconds, name) for bare in bounds for name, seconds in bare.items())
    size = f"linear {dim}-D, {flow.n / 1000:.0f}k unknowns"
    return [
        stated(f"forward, {size}", forward, "s"),
        stated(f"gradient with certificate, {size}", gradient, "s"),
        stated(f"one bare solve ({method}), {size}", bound, "s"),
        at_most(f"forward and gradient / two bare solves, {size}", (forward + gradient) / (2 * bound), 2.5),
        at_most(f"certificate: relative error of the gradient, {size}", costs[0].certificate, 1e-8),
    ]


def memory_record(cells: int) -> list[Record]:
    """The peak memory of a process that does nothing but one nonlinear solve and its gradient."""
    found = alone("benchmarks.core.darcy:forward_and_gradient", cells=cells, dim=2)
    row = f"peak memory of forward and gradient, nonlinear 2-D, {cells * (cells - 1) / 1000:.0f}k unknowns"
    return [at_most(row, found.get("peak_mb", math.nan), MEMORY, "MB")]


def run(quick: bool) -> list[Record]:
    records: list[Record] = []
    sizes, phases = [], []
    for cells in (50, 100) if quick else (316, 1000):
        rows, unknowns, seconds = nonlinear_records(cells, 2, repeat=3 if cells < 500 else 1)
        records += rows
        sizes.append(unknowns)
        phases.append(seconds)
    for name in phases[0]:
        slope = float(np.polyfit(np.log(sizes), np.log([phase[name] for phase in phases]), 1)[0])
        label = f"slope of {name} against size, nonlinear 2-D"
        records.append(at_most(label, slope, 1.05) if name == "assembly" else stated(label, slope))
    records += memory_record(100 if quick else 1000)
    records += nonlinear_records(12 if quick else 30, 3, repeat=2)[0]
    for cells, dim in ((60, 2), (12, 3)) if quick else ((316, 2), (1000, 2), (46, 3)):
        records += linear_records(cells, dim, repeat=3 if cells < 500 else 1)
    return records
