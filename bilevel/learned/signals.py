"""Training and test signals made from seeds: sparse signals, measured through an operator, with noise of a stated level."""

from __future__ import annotations

import math
from dataclasses import dataclass

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
        if self.operator.domain[-1] % self.group:
            raise InputError(f"{self.operator.domain[-1]} entries do not divide into groups of {self.group}")

    def draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """(x, y) for `count` signals, in the operator's precision and on its device."""
        n, like = self.operator.domain[-1], self.operator._reference()
        active = torch.rand(count, n // self.group, generator=generator) < self.density
        x = torch.randn(count, n, generator=generator, dtype=torch.float32)
        x = (x * active.repeat_interleave(self.group, -1)).to(like)
        with torch.no_grad():
            return x, self.measure(x, generator)

    def measure(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """A x with noise."""
        y = self.operator(x)
        if math.isinf(self.snr_db):
            return y
        noise = torch.randn(y.shape, generator=generator, dtype=torch.float32).to(y)
        size = torch.linalg.vector_norm(y, dim=-1, keepdim=True) / math.sqrt(y.shape[-1])
        return y + noise * size * 10 ** (-self.snr_db / 20)


def nmse_db(estimate: Tensor, truth: Tensor) -> float:
    """10 log10(sum |estimate - truth|^2 / sum |truth|^2) over all samples, in double precision."""
    error = (estimate.detach().double() - truth.double()).square().sum()
    return float(10 * torch.log10(error / truth.double().square().sum()))
