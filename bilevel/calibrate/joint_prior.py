"""What is known of several parameters together before the calibration: a Gaussian with a covariance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from bilevel.calibrate.gaussian import whitening_root
from bilevel.report import InputError


@dataclass(frozen=True)
class JointPrior:
    """c has the mean and the covariance (n, n), with c the values of n entries or, where `logarithmic` (n,), their logarithms.

    labels: those of the entries, as `K`, `k[3]`, `K[sand]` or `offset@day1`. mean (n,): natural values, those of
    logarithms too (exp of the logarithm's mean). Raises InputError where the covariance is none, or a mean has no logarithm.
    """

    labels: tuple[str, ...]
    mean: np.ndarray
    covariance: np.ndarray
    logarithmic: np.ndarray

    def __post_init__(self) -> None:
        n = len(self.labels)
        for name, shape in (("mean", (n,)), ("covariance", (n, n)), ("logarithmic", (n,))):
            if (given := np.shape(getattr(self, name))) != shape:
                raise InputError(f"joint prior of {n} entries: {name} has the shape {given}, not {shape}")
        for k, label in enumerate(self.labels):
            if label in self.labels[:k]:
                raise InputError(f"joint prior: '{label}' is named twice")
            if not np.isfinite(self.mean[k]) or (self.logarithmic[k] and not self.mean[k] > 0):
                what = "positive, as its logarithm asks for" if self.logarithmic[k] else "finite"
                raise InputError(f"joint prior: the mean of '{label}' must be {what}, not {self.mean[k]:g}")
        self.root  # noqa: B018  # raises where there is none

    @cached_property
    def root(self) -> np.ndarray:
        """R (n, n): R (c - mean) has independent entries of variance one."""
        return whitening_root(self.covariance, f"joint prior of {', '.join(self.labels[:5])}")

    def residual(self, values: Tensor) -> Tensor:
        """R (c - mean) (n,) of natural values (n,), whose squares are the prior's share of phi; differentiable."""
        logarithmic, mean = torch.as_tensor(self.logarithmic), torch.as_tensor(np.asarray(self.mean, dtype=float))
        one = torch.ones_like(values)
        ratio = torch.where(logarithmic, values, one) / torch.where(logarithmic, mean, one)
        return torch.as_tensor(self.root) @ torch.where(logarithmic, ratio.log(), values - mean)

    def slope(self, values: np.ndarray) -> np.ndarray:
        """d residual / d values (n, n)."""
        return self.root / np.where(self.logarithmic, values, 1.0)

    def among(self, labels: Sequence[str]) -> JointPrior | None:
        """What it says of those of its entries that are among some labels; None where there is none."""
        kept = [k for k, label in enumerate(self.labels) if label in set(labels)]
        if not kept:
            return None
        covariance = self.covariance[np.ix_(kept, kept)]
        return JointPrior(tuple(self.labels[k] for k in kept), self.mean[kept], covariance, self.logarithmic[kept])
