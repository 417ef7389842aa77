"""Many small problems: J2 stress updates with consistent tangents, and the gradient through their history."""

from __future__ import annotations

import time

import torch
from torch import Tensor

from benchmarks.record import Record, at_least, at_most, stated
from physics.constitutive.inelastic.point_history import PointConstants, point_history

LINE = "10,000 J2 points over 100 load steps: updates with consistent tangent a second, gradient through the history"
DURATION = "1 minute"

REPEAT = 5
GROUP = 4096


def parameters(points: int) -> dict[str, Tensor]:
    """Steel, a little different from point to point."""
    generator = torch.Generator().manual_seed(1)
    scale = 1.0 + 0.1 * torch.rand(points, generator=generator, dtype=torch.float64)
    values = {"youngs_modulus": 200e9, "poissons_ratio": 0.3, "yield_stress": 250e6, "hardening_modulus": 5e9}
    return {name: scale * value for name, value in values.items()}


def increments(steps: int, points: int) -> Tensor:
    """Two cycles of strain (steps, points, 6) in a direction of each point's own, well into the plastic range."""
    generator = torch.Generator().manual_seed(0)
    direction = torch.randn(points, 6, generator=generator, dtype=torch.float64)
    level = 5e-3 * torch.sin(torch.linspace(0.0, 4.0 * torch.pi, steps + 1, dtype=torch.float64))
    return level.diff()[:, None, None] * direction


def updates_with_tangent(strain: Tensor, constants: PointConstants) -> float:
    """Seconds for all updates (steps, 6, n) with their tangents, as an assembly over groups of points would ask for them."""
    started = time.perf_counter()
    for first in range(0, strain.shape[-1], GROUP):
        some = slice(first, first + GROUP)
        given = constants.some(some)
        stress, plastic = torch.zeros_like(strain[0, :, some]), torch.zeros_like(strain[0, 0, some])
        for increment in strain[:, :, some]:
            step = given.step(stress, plastic, increment)
            given.tangent(step)
            stress, plastic = step.stress, step.plastic_strain
    return time.perf_counter() - started


def run(quick: bool) -> list[Record]:
    steps, points = (20, 2_000) if quick else (100, 10_000)
    strain = increments(steps, points)
    given = parameters(points)
    by_entry = strain.movedim(-1, 1).contiguous()
    constants = PointConstants.of(given)
    leaves = [value.requires_grad_() for value in parameters(points).values()]
    with_tangent, forward, backward = [], [], []
    for _ in range(REPEAT):
        with torch.no_grad():
            with_tangent.append(updates_with_tangent(by_entry, constants))
        started = time.perf_counter()
        found = point_history(strain, dict(zip(given, leaves, strict=True)))
        ended = time.perf_counter()
        torch.autograd.grad((found.stress * 1e-9).square().sum(), leaves)
        forward.append(ended - started)
        backward.append(time.perf_counter() - ended)
    plastic = float((found.plastic_strain.diff(dim=0) > 0).double().mean())
    seconds = min(forward)
    return [
        at_least("stress updates with consistent tangent a second", steps * points / min(with_tangent), 1e6, "1/s"),
        stated("stress updates without tangent a second", steps * points / seconds, "1/s"),
        stated("share of plastic steps", plastic),
        stated("forward through the history", seconds, "s"),
        stated("gradient in four parameters of every point", min(backward), "s"),
        at_most("gradient through the history / forward", min(backward) / seconds, 4.0),
    ]
