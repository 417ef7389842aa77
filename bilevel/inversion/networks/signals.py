"""Training and test signals made from seeds: sparse signals, measured through an operator, with noise of a stated level."""

from __future__ import annotations

import math
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from bilevel.linalg.linear_map import LinearMap
from bilevel.report import InputError


@dataclass(frozen=True)
class SparseSignals:
    """Bernoulli-Gaussian signals x and their data y = A x + noise.

    density: the probability that a group of `group` contiguous entries is active; active entries are standard normal.
    snr_db: |A x|^2 / |noise|^2 in expectation, per sample, in decibels; infinite for none.
    """

    operator: LinearMap
    density: float = 0.1
    snr_db: float = math.inf
    group: int = 1

    def __post_init__(self) -> None:
        if not 0 < self.density <= 1:
            raise InputError(f"the density of a sparse signal lies in (0, 1], got {self.density}")
        n = prod(self.operator.domain)
        if self.group < 1 or n % self.group:
            raise InputError(f"{n} entries do not divide into groups of {self.group}")
        if math.isnan(self.snr_db):
            raise InputError("the signal-to-noise ratio is NaN; give decibels, or infinity for no noise")

    def draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """(x, y) for `count` signals, in the operator's precision and on its device."""
        n, like = prod(self.operator.domain), self.operator._reference()
        active = torch.rand(count, n // self.group, generator=generator) < self.density
        x = torch.randn(count, n, generator=generator, dtype=torch.float32)
        x = (x * active.repeat_interleave(self.group, -1)).to(like).reshape(count, *self.operator.domain)
        with torch.no_grad():
            return x, self.measure(x, generator)

    def measure(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """A x with noise."""
        y = self.operator(x)
        if math.isinf(self.snr_db):
            return y
        noise = torch.randn(y.shape, generator=generator, dtype=torch.float32).to(y)
        dims = tuple(range(-len(self.operator.range), 0))
        size = torch.linalg.vector_norm(y, dim=dims, keepdim=True) / math.sqrt(prod(self.operator.range))
        return y + noise * size * 10 ** (-self.snr_db / 20)


def nmse_db(estimate: Tensor, truth: Tensor) -> float:
    """10 log10(sum |estimate - truth|^2 / sum |truth|^2) over all samples, in double precision."""
    if estimate.shape != truth.shape:
        raise InputError(f"the estimate has shape {tuple(estimate.shape)}, the truth {tuple(truth.shape)}")
    if not bool((truth != 0).any()):
        raise InputError("the truth is zero, so there is no error relative to it")
    error = (estimate.detach().double() - truth.double()).square().sum()
    return float(10 * torch.log10(error / truth.double().square().sum()))
