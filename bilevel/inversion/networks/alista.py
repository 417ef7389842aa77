"""ALISTA: the matrix comes from a convex problem before any data is seen; only steps and thresholds are learned.

Source: Liu, Chen, Wang, Yin 2019, "ALISTA: analytic weights are as good as learned weights in LISTA".
"""

from __future__ import annotations

import torch
from torch import Tensor

from bilevel.composite import soft_threshold_with_support
from bilevel.inversion.networks.network import (
    NO_SELECTION,
    SupportSelection,
    Thresholds,
    UnrolledNetwork,
    UnrolledState,
    scalars,
    weight_map,
)
from bilevel.linalg.linear_map import LinearMap
from bilevel.report import InputError


def analytic_weight(matrix: Tensor) -> Tensor:
    """The W (m, n) that minimises |W^T A|_F subject to w_i . a_i = 1 for every column i of A (m, n), of any rank.

    In closed form, w_i = p_i / (p_i . a_i) with p_i the columns of the transposed pseudo-inverse of A; of the minimisers,
    the smallest. Raises InputError where a column of A is zero: no datum depends on that unknown.
    Source: Liu et al. 2019, eq. (16), the Frobenius relaxation of the mutual coherence.
    """
    double = matrix.double()
    columns = torch.linalg.pinv(double).mT
    along = (columns * double).sum(0)
    unseen = along <= torch.finfo(torch.float64).eps * double.shape[0]
    if bool(unseen.any()):
        raise InputError(
            f"{int(unseen.sum())} unknowns have a zero column in the operator (the first is {int(unseen.nonzero()[0])}): "
            "no data depend on them, so there is no analytic weight; take them out or give a weight"
        )
    return (columns / along).to(matrix)


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
        self.weight = weight_map(self.operator, analytic_weight(self.operator.matrix()) if weight is None else weight)
        self.selection = selection
        dtype = self.operator._reference().dtype
        self.steps = scalars(depth, 1.0, dtype)
        self.thresholds = Thresholds(depth, threshold, dtype, fall)

    def layer(self, k: int, state: UnrolledState, y: Tensor) -> UnrolledState:
        v = self.vector(state.x + self.steps[k] * self.weight.adjoint(y - self.operator(state.x)))
        count = self.selection.count(k, v.shape[-1])
        return UnrolledState(self.shaped(soft_threshold_with_support(v, self.thresholds.at(k), count)))
