"""The same problems on a GPU: block, Darcy flow, material points, a batch of small energies, and their gradients."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

import bilevel
from benchmarks.core.block import STRETCH, Block
from benchmarks.core.darcy import log_conductivity, mesh_of
from benchmarks.core.material_points import increments, parameters
from benchmarks.record import Record, at_most, stated
from bilevel.linalg import AMGCG, CG, Automatic, LinearSolver
from physics.constitutive.inelastic.point_history import point_history
from physics.flow import DarcyFlow

LINE = "On a GPU, where there is one: block, Darcy flow, material points, small energies, with their gradients"
DURATION = "4 minutes"

TOLERANCE = bilevel.Tolerance(1e-8)
AGREEMENT = 1e-6
Forward = Callable[[], tuple[Tensor, list[Tensor]]]
"""Makes a scalar to differentiate, and the leaves."""


def block(n: int, device: torch.device, linear: LinearSolver) -> Forward:
    """The stretched block of `core/block`, its gradient in the stiffness of every cell."""
    case = Block(n)
    solid, start, seen = case.solid.to(device), case.start.to(device), case.seen.to(device)
    young = case.young.to(device).requires_grad_()
    params = {"material": {"youngs_modulus": young, "poissons_ratio": 0.3}}
    solver = bilevel.Newton(tolerance=TOLERANCE, linear=linear)

    def forward() -> tuple[Tensor, list[Tensor]]:
        u = bilevel.argmin(solid, start, params, solver=solver).u
        return (seen * (u - start)).square().sum() / STRETCH**2, [young]

    return forward


def darcy(cells: int, device: torch.device, linear: LinearSolver) -> Forward:
    """Linear flow through a square with one log-normal conductivity a cell, its gradient in all of them."""
    mesh = mesh_of(cells, 2)
    flow = DarcyFlow(mesh, [mesh.fixed("left", value=1.0), mesh.fixed("right")]).to(device)
    log_k = log_conductivity(mesh).to(device).requires_grad_()

    def forward() -> tuple[Tensor, list[Tensor]]:
        params = {"flow": {"hydraulic_conductivity": log_k.exp()}}
        solver = bilevel.Newton(tolerance=TOLERANCE, linear=linear)
        return (bilevel.argmin(flow, flow.start(), params, solver=solver).u - 0.5).square().sum(), [log_k]

    return forward


def points(count: int, device: torch.device) -> Forward:
    """J2 points over 20 load steps, their gradient in four parameters of each."""
    strain = increments(20, count).to(device)
    given = {name: value.to(device).requires_grad_() for name, value in parameters(count).items()}

    def forward() -> tuple[Tensor, list[Tensor]]:
        return (point_history(strain, given).stress * 1e-9).square().sum(), list(given.values())

    return forward


def energies(count: int, device: torch.device) -> Forward:
    """Energies of three unknowns each, solved as one batch."""
    p = torch.linspace(0.5, 2.0, count, dtype=torch.float64).to(device).requires_grad_()
    energy = bilevel.Energy(lambda u, p: ((u - p[..., None]).square() + u**4).sum(-1), batch_dims=1)
    start = torch.zeros(count, 3, dtype=torch.float64, device=device)

    def forward() -> tuple[Tensor, list[Tensor]]:
        return bilevel.argmin(energy, start, p).u.square().sum(), [p]

    return forward


def timed(forward: Forward, device: torch.device, repeat: int = 2) -> tuple[float, float, float, list[Tensor]]:
    """Seconds of forward and gradient, the best of some runs; the value and the gradients."""
    best = [float("inf"), float("inf")]
    for _ in range(repeat):
        started = _now(device)
        value, leaves = forward()
        solved = _now(device)
        gradients = torch.autograd.grad(value, leaves)
        best = [min(best[0], solved - started), min(best[1], _now(device) - solved)]
    return best[0], best[1], float(value), [g.cpu() for g in gradients]


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def rows(name: str, make: Callable[[torch.device], Forward], device: torch.device, cpu: bool = True) -> list[Record]:
    """Forward and gradient of one case, on the GPU and on the processor of the same machine."""
    torch.cuda.reset_peak_memory_stats()
    forward, gradient, _, found = timed(make(device), device)
    records = [
        stated(f"{name}: forward", forward, "s"),
        stated(f"{name}: gradient with certificate", gradient, "s"),
        stated(f"{name}: peak memory of the GPU", torch.cuda.max_memory_allocated() / 2**20, "MiB"),
    ]
    if cpu:
        host = torch.device("cpu")
        forward_here, gradient_here, _, expected = timed(make(host), host, 1)
        gap = max(float((a - b).norm() / a.norm()) for a, b in zip(expected, found, strict=True))
        faster = (forward_here + gradient_here) / (forward + gradient)
        records += [
            stated(f"{name}: the same on the processor, forward and gradient", forward_here + gradient_here, "s"),
            stated(f"{name}: times as fast as on the processor", faster),
            at_most(f"{name}: gradient against the processor's, relative difference", gap, AGREEMENT),
        ]
    return records


def jacobian(n: int, count: int, device: torch.device) -> list[Record]:
    """All displacements of the block in the stiffness of some groups of cells, in one batched call."""
    case = Block(n)
    solid, start, young = case.solid.to(device), case.start.to(device), case.young.to(device)
    groups = (torch.arange(len(young)) * count // len(young)).to(device)

    def state(scales: Tensor) -> Tensor:
        params = {"material": {"youngs_modulus": young * scales[groups], "poissons_ratio": 0.3}}
        return bilevel.argmin(solid, start, params, solver=bilevel.Newton(tolerance=TOLERANCE)).u

    started = _now(device)
    found = torch.func.jacfwd(state)(torch.ones(count, dtype=torch.float64, device=device))
    name = f"Jacobian in {count} parameters with its forward, block of {case.dofs / 1000:.0f}k unknowns"
    return [stated(name, _now(device) - started, "s", f"{tuple(found.shape)}")]


def run(quick: bool) -> list[Record]:
    if not torch.cuda.is_available():
        return [stated("no GPU is to be seen here; nothing was measured", None, target="absent")]
    device = torch.device("cuda")
    timed(block(4, device, Automatic()), device)  # libraries are loaded at the first call
    small, large, cells, many = (6, 10, 60, 2_000) if quick else (25, 47, 1_000, 100_000)
    solvers: list[tuple[str, LinearSolver]] = [("", Automatic()), (", Jacobi", CG()), (", multigrid", AMGCG())]
    records = []
    for label, linear in solvers:
        first = not label
        records += rows(f"block, n = {small}{label}", partial(block, small, linear=linear), device, cpu=first)
        records += rows(f"block, n = {large}{label}", partial(block, large, linear=linear), device, cpu=False)
        records += rows(f"Darcy, {cells} x {cells}{label}", partial(darcy, cells, linear=linear), device, cpu=False)
    records += rows(f"{many} J2 points, 20 steps", partial(points, many), device)
    records += rows(f"{many} energies of 3 unknowns", partial(energies, many), device)
    return records + jacobian(small, 100, device)
