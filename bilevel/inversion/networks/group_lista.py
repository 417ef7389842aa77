"""Group LISTA: signals whose entries are active in groups, recovered by block soft thresholds and block-diagonal weights.

Source: Fu, Li, Yu, Hu, Pu 2021 (Ada-BlockLISTA, AdaLFISTA); Hauffen, Jung, Mueller 2022, "Algorithm unfolding for
block-sparse and MMV problems with reduced training overhead".
"""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor

from bilevel.composite import block_soft_threshold, soft_threshold_with_support
from bilevel.inversion.networks.alista import analytic_weight
from bilevel.inversion.networks.network import (
    NO_SELECTION,
    SupportSelection,
    Thresholds,
    UnrolledNetwork,
    UnrolledState,
    copies,
    weight_map,
)
from bilevel.linalg.linear_map import LinearMap
from bilevel.report import InputError


class GroupLISTA(UnrolledNetwork):
    """x <- block_soft(x + B_k W^T (y - A x), threshold_k), with B_k block-diagonal and learned, W fixed and analytic.

    size: entries per contiguous group. Support selection counts groups. With groups of one entry this is ALISTA with one
    step a component.
    """

    def __init__(
        self,
        operator: LinearMap | Tensor,
        size: int,
        depth: int = 16,
        weight: LinearMap | Tensor | None = None,
        threshold: float = 0.1,
        selection: SupportSelection = NO_SELECTION,
    ) -> None:
        super().__init__(operator, depth)
        n = prod(self.operator.domain)
        if size < 1 or n % size:
            raise InputError(f"{n} unknowns do not divide into groups of {size}")
        self.size, self.selection = size, selection
        self.weight = weight_map(self.operator, analytic_weight(self.operator.matrix()) if weight is None else weight)
        dtype = self.operator._reference().dtype
        self.blocks = copies(depth, torch.eye(size, dtype=dtype).expand(n // size, size, size))
        self.thresholds = Thresholds(depth, threshold, dtype)

    def layer(self, k: int, state: UnrolledState, y: Tensor) -> UnrolledState:
        correction = self.vector(self.weight.adjoint(y - self.operator(state.x)))
        grouped = correction.unflatten(-1, (-1, self.size)).unsqueeze(-1)
        v = self.vector(state.x) + (self.blocks[k] @ grouped).reshape(correction.shape)
        count = self.selection.count(k, v.shape[-1] // self.size)
        return UnrolledState(self.shaped(self._threshold(v, self.thresholds.at(k), count)))

    def _threshold(self, v: Tensor, threshold: Tensor, count: int) -> Tensor:
        """Block soft threshold that lets the `count` groups of largest norm pass unshrunk."""
        shrunk = block_soft_threshold(v, threshold, self.size)
        if count == 0:
            return shrunk
        norms = torch.linalg.vector_norm(v.detach().unflatten(-1, (-1, self.size)), dim=-1)
        kept = soft_threshold_with_support(norms, threshold.detach(), count) == norms
        trusted = (kept & (norms > threshold)).repeat_interleave(self.size, -1)
        return torch.where(trusted, v, shrunk)
