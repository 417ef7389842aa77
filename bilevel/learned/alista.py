"""ALISTA: the matrix comes from a convex problem before any data is seen; only steps and thresholds are learned.

Source: Liu, Chen, Wang, Yin 2019, "ALISTA: analytic weights are as good as learned weights in LISTA".
"""

from __future__ import annotations

import torch
from torch import Tensor

from bilevel.learned.network import NO_SELECTION, State, SupportSelection, Thresholds, UnrolledNetwork, scalars
from bilevel.linalg.linear_map import LinearMap, as_linear_map
from bilevel.proximal import soft_threshold_with_support
from bilevel.report import InputError


def analytic_weight(matrix: Tensor) -> Tensor:
    """The W (m, n) that minimises |W^T A|_F subject to w_i . a_i = 1 for every column i of A (m, n).

    In closed form, w_i = (A A^T)^-1 a_i / (a_i^T (A A^T)^-1 a_i); A must have full row rank.
    Source: Liu et al. 2019, eq. (16), the Frobenius relaxation of the mutual coherence.
    """
    gram = matrix @ matrix.mT
    factor, info = torch.linalg.cholesky_ex(gram)
    if int(info) != 0:
        raise InputError("analytic weights need an operator of full row rank; remove dependent measurements")
    raw = torch.cholesky_solve(matrix, factor)
    return raw / (raw * matrix).sum(0)


def coherence(weight: Tensor, matrix: Tensor) -> float:
    """The generalised mutual coherence max over i != j of |w_i . a_j| (Liu et al. 2019, definition 1)."""
    product = weight.mT @ matrix
    return float((product - torch.diag(torch.diag(product))).abs().max())


class ALISTA(UnrolledNetwork):
    """x <- soft_ss(x + step_k W^T (y - A x), threshold_k), with W fixed: two scalars a layer.

    weight: a linear map like A whose adjoint plays W^T (its dense matrix for a dense A); default `analytic_weight(A)`.
    Training starts from thresholds that `fall` geometrically from `threshold` to that part of it.
    """

    def __init__(
        self,
        operator: LinearMap | Tensor,
        depth: int = 16,
        weight: LinearMap | Tensor | None = None,
        threshold: float = 0.1,
        selection: SupportSelection = NO_SELECTION,
        fall: float = 1.0,
    ) -> None:
        super().__init__(operator, depth)
        self.weight = as_linear_map(analytic_weight(self.operator.matrix()) if weight is None else weight)
        if (self.weight.domain, self.weight.range) != (self.operator.domain, self.operator.range):
            raise InputError(
                f"the weight maps {self.weight.domain} to {self.weight.range}, "
                f"but the operator maps {self.operator.domain} to {self.operator.range}"
            )
        self.selection = selection
        dtype = self.operator._reference().dtype
        self.steps = scalars(depth, 1.0, dtype)
        self.thresholds = Thresholds(depth, threshold, dtype, fall)

    def layer(self, k: int, state: State, y: Tensor) -> State:
        v = state.x + self.steps[k] * self.weight.adjoint(y - self.operator(state.x))
        count = self.selection.count(k, v.shape[-1])
        return State(soft_threshold_with_support(v, self.thresholds.at(k), count))
