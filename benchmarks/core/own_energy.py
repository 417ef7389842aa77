"""A user's own energy: Allen and Cahn's on a grid, by the default call and by a hand-written SciPy Newton."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

import bilevel
from benchmarks.record import Record, at_most, median, stated
from benchmarks.references.coloured_newton import ColouredNewton
from bilevel.linalg import found_sparsity

LINE = "Allen-Cahn energy of 4,096 to 65,536 unknowns: argmin and backward against a hand-written coloured SciPy Newton; a batch"
DURATION = "3 minutes"


def energy(u: Tensor, p: dict[str, Tensor]) -> Tensor:
    rough = (u.diff(dim=0) ** 2).sum() + (u.diff(dim=1) ** 2).sum()
    return 0.5 * p["width"] ** 2 * rough + p["cell"] * (0.25 * ((u**2 - 1.0) ** 2).sum() - (p["force"] * u).sum())


def problem(side: int) -> tuple[Tensor, dict[str, Tensor]]:
    """A bent wall between two phases, and a field that holds it in the middle."""
    x = torch.linspace(0.0, 1.0, side, dtype=torch.float64)
    start = torch.tanh(4.0 * (x.unsqueeze(1) - 0.5)) + 0.1 * torch.sin(6.0 * x)
    force = -0.1 * torch.sin(2.0 * torch.pi * x).unsqueeze(1).expand(side, side)
    width, cell = (torch.tensor(value, dtype=torch.float64) for value in (0.05, 1.0 / side**2))
    return start, {"width": width, "cell": cell, "force": force}


def timed(run: Callable[[], tuple[Tensor, Tensor]], repeat: int) -> tuple[float, Tensor, Tensor]:
    times = []
    for _ in range(repeat):
        started = time.process_time()
        state, slope = run()
        times.append(time.process_time() - started)
    return median(times), state, slope


def ours(start: Tensor, params: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    width = params["width"].clone().requires_grad_()
    u = bilevel.argmin(energy, start, {**params, "width": width}).u
    return u.detach(), torch.autograd.grad((u**2).mean(), width)[0]


BATCH = 16


def batch_energy(u: Tensor, p: dict[str, Tensor]) -> Tensor:
    """The energy of each sample, whose width and force are its own."""
    own = lambda v, width, force: energy(v, {"width": width, "cell": p["cell"], "force": force})  # noqa: E731
    return torch.vmap(own)(u, p["width"], p["force"])


def batch(side: int, repeat: int) -> list[Record]:
    """Sixteen walls of different widths in different fields, at once and one by one."""
    start, params = problem(side)
    numbers = torch.arange(BATCH, dtype=torch.float64)
    starts = start * (1.0 + 0.02 * numbers.reshape(-1, 1, 1))
    force, widths = params["force"] * (1.0 + 0.1 * numbers.reshape(-1, 1, 1)), 0.03 + 0.003 * numbers

    def together() -> tuple[Tensor, Tensor]:
        width, samples = widths.clone().requires_grad_(), bilevel.Energy(batch_energy, batch_dims=1)
        u = bilevel.argmin(samples, starts, {**params, "width": width, "force": force}).u
        return u.detach(), torch.autograd.grad((u**2).mean((1, 2)).sum(), width)[0]

    def apart() -> tuple[Tensor, Tensor]:
        each = [ours(starts[k], {**params, "width": widths[k], "force": force[k]}) for k in range(BATCH)]
        return torch.stack([u for u, _ in each]), torch.stack([slope for _, slope in each])

    together(), apart()
    one, state, slope = timed(together, repeat)
    many, other, derivative = timed(apart, repeat)
    return [
        stated(f"{side**2}: {BATCH} samples one by one", many, "s"),
        at_most(f"{side**2}: batch of {BATCH} / one by one", one / many, 1.0),
        at_most(f"{side**2}: difference of the batch's states", float((state - other).abs().max()), 1e-6),
        at_most(f"{side**2}: difference of its derivatives", float((slope / derivative - 1.0).abs().max()), 1e-6),
    ]


def run(quick: bool) -> list[Record]:
    rows: list[Record] = []
    for side in (32,) if quick else (64, 128, 256):
        start, params = problem(side)
        n = side**2
        found_sparsity._patterns.clear()
        started = time.process_time()
        ours(start, params)
        first = time.process_time() - started
        repeat = 1 if side > 128 else 3
        seconds, state, slope = timed(partial(ours, start, params), repeat)
        plain = ColouredNewton(energy, start, params)  # its pattern and colours are given to it
        theirs, other, derivative = timed(plain.run, repeat)
        rows += [
            stated(f"{n}: argmin and backward", seconds, "s"),
            stated(f"{n}: the same with the search for the pattern", first, "s"),
            stated(f"{n}: hand-written SciPy Newton", theirs, "s"),
            at_most(f"{n}: argmin / hand-written", seconds / theirs, 1.0),
            at_most(f"{n}: difference of the states", float((state - other).abs().max()), 1e-6),
            at_most(f"{n}: difference of the derivatives", float((slope - derivative).abs() / slope.abs()), 1e-6),
        ]
    return rows + batch(32 if quick else 64, 1 if quick else 3)
