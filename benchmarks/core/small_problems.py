"""What the framework costs where there is hardly any arithmetic: three unknowns, a thousand times three."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor

import bilevel
from benchmarks.record import Record, at_most, median, stated
from benchmarks.references.plain_batch import PlainNewton
from bilevel.problem import EnergyProblem

LINE = "argmin and backward of three unknowns, one energy and a batch of 1,000, against a hand-written Newton"
DURATION = "20 seconds"


def energy(u: Tensor, p: Tensor) -> Tensor:
    """Three springs that stiffen, under forces p (..., 3)."""
    stretch = torch.stack((u[..., 0], u[..., 1] - u[..., 0], u[..., 2] - u[..., 1]), -1)
    return (0.5 * stretch**2 + 0.25 * stretch**4).sum(-1) - (p * u).sum(-1)


def outer(u: Tensor) -> Tensor:
    return (u**2).sum()


def timed(run: Callable[[], tuple[Tensor, Tensor]], repeat: int) -> tuple[float, Tensor, Tensor]:
    run()
    times = []
    for _ in range(repeat):
        started = time.perf_counter()
        state, slope = run()
        times.append(time.perf_counter() - started)
    return median(times), state, slope


def compared(name: str, problem: EnergyProblem | Callable[..., Tensor], plain: PlainNewton, p: Tensor) -> list[Record]:
    start = torch.zeros_like(p)

    def ours(adjoint: bilevel.Exact | None) -> tuple[Tensor, Tensor]:
        q = p.clone().requires_grad_()
        u = bilevel.argmin(problem, start, q, adjoint=adjoint).u
        return u.detach(), torch.autograd.grad(outer(u), q)[0]

    seconds, state, slope = timed(lambda: ours(None), 15)
    without, _, _ = timed(lambda: ours(bilevel.Exact(certify=False)), 15)
    theirs, other, derivative = timed(lambda: plain.run(start, p, outer), 15)
    return [
        stated(f"{name}: argmin and backward, with certificate", 1e3 * seconds, "ms"),
        stated(f"{name}: without certificate", 1e3 * without, "ms"),
        stated(f"{name}: hand-written", 1e3 * theirs, "ms"),
        at_most(f"{name}: ours / hand-written", seconds / theirs, 3.0),
        at_most(f"{name}: difference of the states", float((state - other).abs().max()), 1e-7),
        at_most(f"{name}: difference of the derivatives", float((slope - derivative).abs().max()), 1e-7),
    ]


def run(quick: bool) -> list[Record]:
    generator = torch.Generator().manual_seed(0)
    p = torch.randn(1000, 3, generator=generator, dtype=torch.float64)
    return [
        *compared("one", energy, PlainNewton(energy, batched=False), p[0]),
        *compared("1,000", bilevel.Energy(energy, batch_dims=1), PlainNewton(energy, batched=True), p),
    ]
