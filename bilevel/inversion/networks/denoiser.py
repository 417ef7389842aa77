"""Small denoisers for pictures: one that is firmly nonexpansive by construction, and a plain residual CNN.

Sources: Goujon, Neumayer, Bohra, Ducotterd, Unser 2023 (convex ridge regularisers); Zhang, Zuo, Chen, Meng, Zhang 2017
(residual CNN); Pesquet, Repetti, Terris, Wiaux 2021 (nonexpansiveness penalty).
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from bilevel.inversion.networks.guards import nonexpansiveness_penalty
from bilevel.report import BilevelError, InputError, require_finite


class Denoiser(torch.nn.Module):
    """A map of pictures (*batch, height, width), trained for noise of standard deviation about 0.01-0.05 at range [0, 1].

    scale: D_s(x) = s D(x / s) removes s times as much noise; a denoiser's Jacobian norms do not depend on it.
    """

    def forward(self, x: Tensor, scale: float | Tensor = 1.0) -> Tensor:
        own = next(self.parameters()).dtype
        if x.dtype != own:
            raise InputError(f"the picture is {x.dtype}, the denoiser is {own}; convert one with .to(...)")
        flat = x.reshape(-1, 1, *x.shape[-2:]) / scale
        return (flat - self.noise(flat)).reshape(x.shape) * scale

    @abstractmethod
    def noise(self, x: Tensor) -> Tensor:
        """The part of pictures (batch, 1, height, width) that is to be taken away."""


class ConvexDenoiser(Denoiser):
    """D = 1 - grad R with R(x) = sum of Huber functions of learned filters, scaled so that 0 <= grad^2 R <= 1.

    Then D is the gradient of a convex function with Lipschitz constant one: firmly nonexpansive, and the proximal
    operator of a convex function. Periodic boundaries, so that the constant is exact: the largest value over frequencies
    of sum_c weight_c |filter_c|^2.
    """

    def __init__(self, channels: int = 32, size: int = 7, seed: int = 0, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        if size % 2 == 0:
            raise InputError(f"filters have an odd size, got {size}")
        generator = torch.Generator().manual_seed(seed)
        filters = torch.randn(channels, 1, size, size, generator=generator, dtype=torch.float64) / size
        self.filters = torch.nn.Parameter(filters.to(dtype))
        self.log_weight = torch.nn.Parameter(torch.zeros(channels, dtype=dtype))
        limits = torch.linspace(-6.0, -2.0, channels, dtype=torch.float64)
        self.log_limit = torch.nn.Parameter(limits.to(dtype))

    def noise(self, x: Tensor) -> Tensor:
        pad = self.filters.shape[-1] // 2
        filters = self.zero_mean()
        if min(x.shape[-2:]) < self.filters.shape[-1]:
            raise InputError(
                f"pictures must be at least {self.filters.shape[-1]} pixels wide, got {tuple(x.shape[-2:])}"
            )
        response = F.conv2d(F.pad(x, (pad,) * 4, mode="circular"), filters)
        limit = self.log_limit.exp()[:, None, None]
        clipped = torch.clamp(response, min=-limit, max=limit) * self.log_weight.exp()[:, None, None]
        back = F.conv2d(F.pad(clipped, (pad,) * 4, mode="circular"), filters.flip(-1, -2).transpose(0, 1))
        return back / self.bound((x.shape[-2], x.shape[-1]))

    def zero_mean(self) -> Tensor:
        """The filters without their mean: constant pictures pass."""
        return self.filters - self.filters.mean((-2, -1), keepdim=True)

    def bound(self, shape: tuple[int, int]) -> Tensor:
        """The Lipschitz constant of the unscaled gradient on pictures of this shape."""
        spectrum = torch.fft.rfft2(self.zero_mean()[:, 0], s=shape).abs().square()
        return (self.log_weight.exp()[:, None, None] * spectrum).sum(0).max()


class ResidualCNN(Denoiser):
    """`depth` convolutions 3 x 3 with ReLU between them, predicting the noise; no bias, so it is positively homogeneous."""

    def __init__(self, depth: int = 5, channels: int = 24, seed: int = 0, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        sizes = [1, *[channels] * (depth - 1), 1]
        self.convolutions = torch.nn.ModuleList(
            torch.nn.Conv2d(i, o, 3, padding=1, padding_mode="circular", bias=False, dtype=dtype)
            for i, o in pairwise(sizes)
        )
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for weight in self.parameters():
                torch.nn.init.kaiming_normal_(weight, nonlinearity="relu", generator=generator)
            weight.mul_(0.1)

    def noise(self, x: Tensor) -> Tensor:
        for k, layer in enumerate(self.convolutions):
            x = layer(torch.relu(x) if k else x)
        return x


@dataclass(frozen=True)
class DenoiserSchedule:
    """Training on random patches with fresh noise; penalty > 0 adds the nonexpansiveness penalty on part of each batch."""

    sigma: float = 0.02
    steps: int = 800
    batch: int = 16
    patch: int = 40
    rate: float = 2e-3
    penalty: float = 0.0
    margin: float = 0.05
    seed: int = 0

    def __post_init__(self) -> None:
        if not (
            self.sigma > 0 and self.rate > 0 and self.penalty >= 0 and min(self.steps, self.batch, self.patch) >= 1
        ):
            raise InputError(
                "a denoiser's schedule needs sigma, rate, steps, batch and patch above zero, and penalty >= 0"
            )


def train_denoiser(
    denoiser: Denoiser, pictures: list[Tensor], schedule: DenoiserSchedule, progress: bool = False
) -> list[float]:
    """Train in place on pictures (height, width) with values in [0, 1]; returns the mean squared errors, step by step."""
    if not pictures:
        raise InputError("training a denoiser needs at least one picture")
    for picture in pictures:
        require_finite("a training picture", picture)
    if any(min(p.shape) < schedule.patch for p in pictures):
        raise InputError(f"every training picture must be at least {schedule.patch} pixels wide and high")
    generator = torch.Generator().manual_seed(schedule.seed)
    optimiser = torch.optim.Adam(denoiser.parameters(), schedule.rate)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, schedule.steps)
    dtype = next(denoiser.parameters()).dtype
    errors = []
    for _ in tqdm(range(schedule.steps), disable=not progress, desc="denoiser"):
        clean = random_patches(pictures, schedule, generator).to(dtype)
        noisy = clean + schedule.sigma * torch.randn(clean.shape, generator=generator, dtype=dtype)
        error = (denoiser(noisy) - clean).square().mean()
        loss = error / schedule.sigma**2
        if schedule.penalty > 0:
            loss = loss + schedule.penalty * nonexpansiveness_penalty(denoiser, noisy[:4], schedule.margin)
        if not bool(torch.isfinite(loss)):
            raise BilevelError("the denoiser's training diverged: the loss is not finite; lower the rate")
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        decay.step()
        errors.append(float(error.detach()))
    return errors


def random_patches(pictures: list[Tensor], schedule: DenoiserSchedule, generator: torch.Generator) -> Tensor:
    """Patches (batch, patch, patch) at random places and quarter turns."""
    found = []
    for i in torch.randint(len(pictures), (schedule.batch,), generator=generator).tolist():
        picture, size = pictures[i], schedule.patch
        top = int(torch.randint(picture.shape[0] - size + 1, (1,), generator=generator))
        left = int(torch.randint(picture.shape[1] - size + 1, (1,), generator=generator))
        patch = picture[top : top + size, left : left + size]
        turns = int(torch.randint(4, (1,), generator=generator))
        found.append(torch.rot90(patch, turns))
    return torch.stack(found)
