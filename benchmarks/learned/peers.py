"""Total-variation denoising, side by side with deepinv where it is installed: objective reached and seconds."""

from __future__ import annotations

import time

import torch
from torch import Tensor

from benchmarks.record import Record, at_most, stated
from bilevel.composite import TotalVariation

LINE = "the proximal operator of total variation on a 128 x 128 picture, against deepinv"
DURATION = "1 min"

STEP = 0.1


def run(quick: bool) -> list[Record]:
    """Objective and seconds at a relative duality gap of 1e-6; deepinv at its tightest documented criterion."""
    side = 48 if quick else 128
    generator = torch.Generator().manual_seed(0)
    picture = (torch.rand(side // 8, side // 8, generator=generator, dtype=torch.float64)).kron(
        torch.ones(8, 8, dtype=torch.float64)
    )
    noisy = picture + 0.1 * torch.randn(side, side, generator=generator, dtype=torch.float64)
    norm = TotalVariation(tolerance=1e-6)

    def objective(x: Tensor) -> float:
        return float(STEP * norm.value(x) + 0.5 * (x - noisy).square().sum())

    start = time.perf_counter()
    ours = objective(norm.prox(noisy, STEP))
    seconds = time.perf_counter() - start
    records = [stated("TV prox, objective", ours, seconds=seconds)]
    try:
        from deepinv.models import TVDenoiser
    except ImportError:
        return [*records, stated("TV prox of deepinv", None, target="deepinv is not installed")]
    start = time.perf_counter()
    theirs = objective(TVDenoiser(n_it_max=5000, crit=1e-8)(noisy[None, None], STEP)[0, 0])
    return [
        *records,
        stated("TV prox of deepinv, objective", theirs, seconds=time.perf_counter() - start),
        at_most("objective, ours over deepinv", ours / theirs, 1 + 1e-5),
    ]
