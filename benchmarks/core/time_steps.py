"""Implicit time steps of Darcy flow as a chain: what the gradient costs, and how memory grows with the steps."""

from __future__ import annotations

import time
from typing import Any

import torch

import bilevel
from benchmarks.alone import alone
from benchmarks.core.darcy import log_conductivity, mesh_of
from benchmarks.record import Record, at_most, peak_megabytes, stated
from bilevel.implicit.strategies import Exact
from physics.flow import DarcyFlow
from physics.flow.time_stepping import BACKWARD_EULER, march
from physics.flow.time_steps import TimeSteps

LINE = "50 and 200 implicit steps of Darcy flow in 2-D and 3-D: gradient against forward, memory against steps"
DURATION = "8 minutes"


def cost(cells: int, dim: int, steps: int) -> dict[str, float]:
    """Seconds of all steps and of the gradient in every log-conductivity, and the memory they took beyond the mesh."""
    mesh = mesh_of(cells, dim)
    flow = DarcyFlow(mesh, [mesh.fixed("left", value=1.0), mesh.fixed("right")], transient=True)
    log_k = log_conductivity(mesh).requires_grad_()
    storage = {"specific_storage": torch.tensor(1.0, dtype=torch.float64)}
    times = TimeSteps(torch.linspace(0.0, 0.1, steps + 1, dtype=torch.float64).numpy())
    solver = bilevel.Newton(tolerance=bilevel.Tolerance(1e-8))

    def final(steps: TimeSteps) -> torch.Tensor:
        params = {"flow": {"hydraulic_conductivity": log_k.exp()}, "storage": storage}
        observe = lambda head: head.mean()  # noqa: E731
        how: dict[str, Any] = {"scheme": BACKWARD_EULER, "solver": solver, "adjoint": Exact(certify=False)}
        return march(flow, flow.start(), params, steps, observe=observe, **how).final

    (final(TimeSteps(times.times[:3])) - 0.5).square().sum().backward()  # patterns, analysis, first calls
    before = peak_megabytes()
    started = time.perf_counter()
    head = final(times)
    solved = time.perf_counter()
    torch.autograd.grad((head - 0.5).square().sum(), log_k)
    ended = time.perf_counter()
    return {
        "unknowns": float(flow.n),
        "forward": solved - started,
        "gradient": ended - solved,
        "added_mb": peak_megabytes() - before,
    }


def case_records(cells: int, dim: int, steps: tuple[int, int]) -> list[Record]:
    """The rows of one mesh with two numbers of steps, the second a multiple of the first."""
    few, many = (alone("benchmarks.core.time_steps:cost", cells=cells, dim=dim, steps=count) for count in steps)
    if "error" in few or "error" in many:
        return [stated(f"{dim}-D: {few.get('error', many.get('error'))}", None)]
    size = f"{dim}-D, {few['unknowns'] / 1000:.0f}k unknowns"
    ratio = steps[1] / steps[0]
    return [
        stated(f"{steps[0]} steps forward, {size}", few["forward"], "s"),
        stated(f"{steps[0]} steps gradient, {size}", few["gradient"], "s"),
        at_most(
            f"gradient without certificates / forward, {steps[0]} steps, {size}", few["gradient"] / few["forward"], 2.5
        ),
        stated(f"memory beyond the first steps, {steps[0]} steps, {size}", few["added_mb"], "MB"),
        stated(f"memory beyond the first steps, {steps[1]} steps, {size}", many["added_mb"], "MB"),
        # Checkpoints are as many as the square root of the steps.
        at_most(f"memory for {ratio:g} times the steps, {size}", many["added_mb"] / few["added_mb"], ratio**0.5),
    ]


def run(quick: bool) -> list[Record]:
    if quick:
        return [*case_records(30, 2, (10, 40)), *case_records(8, 3, (10, 40))]
    return [*case_records(100, 2, (50, 200)), *case_records(14, 3, (50, 200))]
