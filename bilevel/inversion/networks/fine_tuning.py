"""A denoiser trained where it is used: inside the plug-and-play iteration, through its last iterations only.

The fixed point is found without a tape; `kept` further iterations are differentiated (truncated backpropagation, see
truncation.py for how many). Source: Gilton, Ongie, Willett 2021 (deep equilibrium for inverse problems).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from tqdm import tqdm

from bilevel.inversion.networks.denoiser import Denoiser, DenoiserSchedule, random_patches
from bilevel.inversion.networks.plug_and_play import PnPProximalGradient
from bilevel.linalg.linear_map import Convolution
from bilevel.report import BilevelError


@dataclass(frozen=True)
class FineTuning:
    """Steps on blurred patches; scale: the denoiser's first scale, learned along with its weights."""

    steps: int = 160
    batch: int = 4
    patch: int = 48
    kept: int = 8
    rate: float = 3e-3
    scale_rate: float = 1e-2
    scale: float = 0.06
    seed: int = 0


def fine_tune(
    denoiser: Denoiser,
    kernel: Tensor,
    sigma: float,
    pictures: list[Tensor],
    schedule: FineTuning,
    progress: bool = False,
) -> float:
    """Train a denoiser that is a proximal operator in place, for deblurring with `kernel` at noise `sigma`.

    Returns the learned scale. Raises BilevelError if the loss is no longer finite.
    """
    A = Convolution(kernel, (schedule.patch, schedule.patch))
    step = 1 / A.norm() ** 2
    generator = torch.Generator().manual_seed(schedule.seed)
    log_scale = torch.nn.Parameter(torch.tensor(math.log(schedule.scale), dtype=kernel.dtype))
    groups = [
        {"params": list(denoiser.parameters()), "lr": schedule.rate},
        {"params": [log_scale], "lr": schedule.scale_rate},
    ]
    optimiser = torch.optim.Adam(groups)
    fall = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, schedule.steps)
    patches = DenoiserSchedule(batch=schedule.batch, patch=schedule.patch)
    for _ in tqdm(range(schedule.steps), disable=not progress, desc="fine-tuning"):
        clean = random_patches(pictures, patches, generator).to(kernel)
        y = A(clean) + sigma * torch.randn(clean.shape, generator=generator, dtype=kernel.dtype)
        scheme = PnPProximalGradient(lambda v: denoiser(v, log_scale.exp()), tolerance=1e-3, max_iterations=40)
        x = scheme.restore(A, y, on_fail="ignore").x
        for _ in range(schedule.kept):
            x = denoiser(x - step * A.adjoint(A(x) - y), log_scale.exp())
        loss = (x - clean).square().mean()
        if not bool(torch.isfinite(loss)):
            raise BilevelError("fine-tuning diverged: the loss is not finite; lower the rate")
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        fall.step()
    return float(log_scale.detach().exp())
