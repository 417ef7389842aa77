"""Learned steps: a small recurrent network predicts step and threshold of every sample and layer from the iterate.

Source: Behrens, Sauder, Jung 2021, "Neurally augmented ALISTA". What it reads, |y - A x|_1 and |W^T (y - A x)|_1, bounds
the recovery error, so samples that converge slowly keep large thresholds.
"""

from __future__ import annotations

import math
from math import prod
from typing import Any

import torch
from torch import Tensor

from bilevel.composite import soft_threshold_with_support
from bilevel.inversion.networks.alista import ALISTA
from bilevel.inversion.networks.network import NO_SELECTION, SupportSelection, UnrolledState, scalars, squared_norm
from bilevel.linalg.linear_map import LinearMap


class NeurallyAugmentedALISTA(ALISTA):
    """ALISTA with step = step_k exp(s), threshold = threshold_k exp(t) r, (s, t) from an LSTM cell shared by all layers.

    The correction is step W^T (y - A x) + gradient_k g A^T (y - A x) / |A|^2: W separates the entries while the error is
    large, the plain gradient (g from the same cell, off at first) leads to least squares on the support when noise is left.
    r is the sample's |W^T (y - A x)|_1 over that of its data, so thresholds follow the error down. The cell reads the
    logarithms of r and of |y - A x|_1 / |y|_1 and of |W^T y|_1; it starts neutral, with s = t = 0 and g = 1.
    """

    def __init__(
        self,
        operator: LinearMap | Tensor,
        depth: int = 16,
        weight: LinearMap | Tensor | None = None,
        threshold: float = 0.5,
        selection: SupportSelection = NO_SELECTION,
        hidden: int = 32,
    ) -> None:
        super().__init__(operator, depth, weight, threshold, selection)
        self.lipschitz = squared_norm(self.operator)
        dtype = self.operator._reference().dtype
        self.cell = torch.nn.LSTMCell(3, hidden, dtype=dtype)
        self.head = torch.nn.Linear(hidden, 3, dtype=dtype)
        self.gradients = scalars(depth, 0.0, dtype)
        torch.nn.init.zeros_(self.head.weight)
        torch.nn.init.zeros_(self.head.bias)

    def start(self, y: Tensor) -> UnrolledState:
        x, data = super().start(y).x, self.data_vector(y)
        hidden = y.new_zeros(prod(data.shape[:-1]), self.cell.hidden_size)
        first = _mean_size(self.vector(self.weight.adjoint(y))), _mean_size(data)
        return UnrolledState(x, (hidden, hidden, first))

    def layer(self, k: int, state: UnrolledState, y: Tensor) -> UnrolledState:
        x, (hidden, cell, first) = self.vector(state.x), state.memory
        residual = y - self.operator(state.x)
        correction, gradient = self.vector(self.weight.adjoint(residual)), self.vector(self.operator.adjoint(residual))
        s, t, g, hidden, cell, ratio = self._predict(self.data_vector(residual), correction, hidden, cell, first)
        v = x + self.steps[k] * s * correction + self.gradients[k] * g / self.lipschitz * gradient
        threshold = self.thresholds.at(k) * t * ratio
        count = self.selection.count(k, v.shape[-1])
        return UnrolledState(self.shaped(soft_threshold_with_support(v, threshold, count)), (hidden, cell, first))

    def _predict(
        self, residual: Tensor, correction: Tensor, hidden: Tensor, cell: Tensor, first: Any
    ) -> tuple[Tensor, ...]:
        """Factors of step, threshold and gradient (*batch, 1), the cell's state, and the relative error r (*batch, 1)."""
        tiny = 1e-12
        error, start = _mean_size(correction), first[0].clamp_min(tiny)
        ratio = error / start
        misfit = _mean_size(residual) / first[1].clamp_min(tiny)
        features = torch.cat([ratio, misfit, start], -1).clamp_min(tiny).log().detach()
        hidden, cell = self.cell(features.reshape(prod(features.shape[:-1]), 3), (hidden, cell))
        s, t, g = self.head(hidden).reshape(*residual.shape[:-1], 3).clamp(-1, 1).exp().split(1, -1)
        return s, t, g, hidden, cell, ratio


def _mean_size(v: Tensor) -> Tensor:
    """The mean absolute entry, (*batch, 1), scaled to the standard deviation of a Gaussian."""
    return v.abs().mean(-1, keepdim=True) * math.sqrt(math.pi / 2)
