"""Steady Darcy flow with a log-normal conductivity in every cell: forward and gradient against bare solves."""

from __future__ import annotations

import time

import torch

import bilevel
from benchmarks.lower_bound import bound_seconds
from benchmarks.record import Record, at_most, stated
from physics.flow import DarcyFlow
from physics.mesh import rectangle

NAME = "darcy"
LINE = "2-D Darcy flow, one log-normal conductivity a cell: forward and gradient against two bare solves"
DURATION = "5 minutes"

LOG_SPREAD = 2.0


def size_records(n: int) -> list[Record]:
    """The rows of n x n cells; heads 1 and 0 on two sides."""
    mesh = rectangle(n, n)
    flow = DarcyFlow(mesh, [mesh.fixed("left", value=1.0), mesh.fixed("right")])
    log_conductivity = LOG_SPREAD * torch.randn(n * n, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    log_conductivity.requires_grad_()

    def cost() -> tuple[float, float, float]:
        started = time.perf_counter()
        solution = bilevel.argmin(flow, flow.start(), {"flow": {"hydraulic_conductivity": log_conductivity.exp()}})
        solved = time.perf_counter()
        torch.autograd.grad((solution.u - 0.5).square().sum(), log_conductivity)
        assert solution.gradient is not None
        return solved - started, time.perf_counter() - solved, solution.gradient.relative_error

    cost()  # patterns, symbolic analysis, first calls
    costs = [cost() for _ in range(3)]
    forward, gradient = min(c[0] for c in costs), min(c[1] for c in costs)
    certificate = max(c[2] for c in costs)
    params = {"flow": {"hydraulic_conductivity": log_conductivity.detach().exp()}}
    with torch.no_grad():
        system = (flow.tangent(flow.start(), params), -flow.residual(flow.start(), params), 1e-10)
    bound, method = min(bound_seconds([system], flow.n) for _ in range(3))
    size = f"{flow.n / 1000:.0f}k unknowns"
    return [
        stated(f"forward, {size}", forward, "s"),
        stated(f"gradient with certificate, {size}", gradient, "s"),
        stated(f"one bare solve ({method}), {size}", bound, "s"),
        at_most(f"forward and gradient / two bare solves, {size}", (forward + gradient) / (2 * bound), 2.5),
        stated(f"certificate: relative error of the gradient, {size}", certificate),
    ]


def run(quick: bool) -> list[Record]:
    return [row for n in ((60,) if quick else (316, 1000)) for row in size_records(n)]
