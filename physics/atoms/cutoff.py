"""Ways to bring an energy smoothly to zero at a cut-off."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def taper(r: Tensor, start: Tensor | float, end: Tensor | float) -> Tensor:
    """1 below `start`, 0 beyond `end`, between them 1 - 35 x^4 + 84 x^5 - 70 x^6 + 20 x^7.

    Three derivatives vanish at both ends, so that elastic constants and phonons change smoothly as atoms pass.
    """
    x = ((r - start) / (end - start)).clamp(0.0, 1.0)
    return 1.0 - x**4 * (35.0 + x * (-84.0 + x * (70.0 - 20.0 * x)))


def cosine(r: Tensor, start: Tensor | float, end: Tensor | float) -> Tensor:
    """1 below `start`, 0 beyond `end`, between them (1 + cos(pi x)) / 2: Tersoff's own, with one continuous derivative."""
    x = ((r - start) / (end - start)).clamp(0.0, 1.0)
    return 0.5 + 0.5 * torch.cos(math.pi * x)
