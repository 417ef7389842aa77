"""How ill-posed an inverse problem is: singular values, and the Picard plot of data against them.

Source: Hansen 2010, "Discrete Inverse Problems", sections 3.2-3.3 (discrete Picard condition).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bilevel.linalg.linear_map import LinearMap
from bilevel.report import InputError

LARGEST = 4000


@dataclass(frozen=True)
class Diagnosis:
    """Singular values s (k,), data coefficients |u_i . y| (k,), and where the noise takes over.

    usable: how many leading coefficients stand above the noise; beyond them |u_i . y| / s_i only amplifies noise.
    noise: the standard deviation of the data's noise, as given or as estimated from the coefficients' plateau.
    """

    singular_values: Tensor
    coefficients: Tensor
    usable: int
    noise: float

    @property
    def condition(self) -> float:
        """Largest over smallest singular value; infinite for a rank-deficient operator."""
        s = self.singular_values
        return float(s[0] / s[-1]) if float(s[-1]) > 0 else float("inf")

    @property
    def sentence(self) -> str:
        """What it means for the user."""
        k = len(self.singular_values)
        if self.usable == k:
            return (
                f"well posed at this noise: all {k} coefficients stand above it (condition number {self.condition:.3g})"
            )
        return (
            f"ill posed: {self.usable} of {k} coefficients stand above the noise ({self.noise:.3g}), condition number "
            f"{self.condition:.3g}; the rest must come from a prior"
        )

    def plot(self, axes: Any | None = None) -> Any:
        """The Picard plot: s_i, |u_i . y| and |u_i . y| / s_i on a logarithmic scale; returns the axes."""
        import matplotlib.pyplot as plt

        axes = plt.subplots()[1] if axes is None else axes
        s, c = self.singular_values.cpu(), self.coefficients.cpu()
        index = range(1, len(s) + 1)
        axes.semilogy(index, s, label="singular values $s_i$")
        axes.semilogy(index, c, ".", label="$|u_i^T y|$")
        axes.semilogy(index, c / s.clamp_min(torch.finfo(s.dtype).tiny), "x", label="$|u_i^T y| / s_i$")
        axes.axhline(self.noise, linestyle=":", color="black", label="noise")
        axes.set_xlabel("i")
        axes.legend()
        return axes


def diagnose(A: LinearMap, y: Tensor, noise: float | None = None) -> Diagnosis:
    """Singular values of A and the coefficients of data y (*range) in its left singular vectors.

    noise: the standard deviation of the data's noise; estimated from the last tenth of the coefficients if not given.
    Raises InputError above 4,000 unknowns or data, where a dense decomposition is no diagnosis any more.
    """
    A.check_data(y)
    if y.dim() != len(A.range):
        raise InputError(f"the diagnosis takes one sample, the data hold a batch {tuple(y.shape)}")
    if noise is not None and not 0 <= noise < float("inf"):
        raise InputError(f"the noise's standard deviation must be finite and not negative, got {noise:g}")
    if y.numel() > LARGEST or A.matrix().shape[1] > LARGEST:
        raise InputError(f"the diagnosis decomposes a dense matrix, of at most {LARGEST} rows and columns")
    u, s, _ = torch.linalg.svd(A.matrix().to(y), full_matrices=False)
    coefficients = (u.mT @ y.reshape(-1)).abs()
    if noise is None:
        tail = coefficients[-max(3, len(s) // 10) :]
        noise = float(tail.square().mean().sqrt())
    floor = max(2 * noise, float(s[0]) * torch.finfo(s.dtype).eps * len(s))
    windowed = torch.nn.functional.avg_pool1d(coefficients.square()[None], 3, 1, 1, count_include_pad=False)[0].sqrt()
    below = (windowed <= floor) | (s <= s[0] * torch.finfo(s.dtype).eps * len(s))
    usable = int(below.to(torch.int8).argmax()) if bool(below.any()) else len(s)
    return Diagnosis(s, coefficients, usable, noise)
