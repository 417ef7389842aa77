"""Networks whose layers learn matrices: LISTA, LISTA-CP, TiLISTA; and step-and-threshold ISTA, which learns two scalars.

Sources: Gregor & LeCun 2010 (LISTA); Chen, Liu, Wang, Yin 2018 (coupled weights, support selection);
Liu, Chen, Wang, Yin 2019 (TiLISTA); Ablin, Moreau, Massias, Gramfort 2019 (learned steps).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import Parameter

from bilevel.composite import soft_threshold, soft_threshold_with_support
from bilevel.inversion.networks.network import (
    NO_SELECTION,
    SupportSelection,
    Thresholds,
    UnrolledNetwork,
    UnrolledState,
    copies,
    scalars,
    squared_norm,
    start_matrix,
)
from bilevel.linalg.linear_map import LinearMap


class StepThresholdISTA(UnrolledNetwork):
    """x <- soft(x + step_k A^T (y - A x), threshold_k): two scalars a layer, for any linear map.

    Training starts from ISTA at lambda = `threshold`; or from another `step` (1 / |A|^2 is ISTA's), with thresholds that
    `fall` geometrically to that part of the first.
    """

    def __init__(
        self,
        operator: LinearMap | Tensor,
        depth: int = 16,
        threshold: float = 0.1,
        step: float | None = None,
        fall: float = 1.0,
    ) -> None:
        super().__init__(operator, depth)
        lipschitz = squared_norm(self.operator)
        dtype = self.operator._reference().dtype
        self.steps = scalars(depth, 1.0 / lipschitz if step is None else step, dtype)
        self.thresholds = Thresholds(depth, threshold / lipschitz, dtype, fall)

    def layer(self, k: int, state: UnrolledState, y: Tensor) -> UnrolledState:
        gradient = self.operator.adjoint(self.operator(state.x) - y)
        return UnrolledState(soft_threshold(state.x - self.steps[k] * gradient, self.thresholds.at(k)))


class LISTA(UnrolledNetwork):
    """x <- soft(B_k y + S_k x, threshold_k), with B, S learned: one pair for all layers (`tied`) or one a layer.

    Training starts from B = weight^T, S = 1 - weight^T A; weight (m, n) defaults to A / |A|^2, which makes it ISTA.
    """

    def __init__(
        self,
        operator: LinearMap | Tensor,
        depth: int = 16,
        threshold: float = 0.1,
        tied: bool = True,
        weight: Tensor | None = None,
    ) -> None:
        super().__init__(operator, depth)
        matrix = self.operator.matrix()
        first, threshold = start_matrix(self.operator, weight, threshold)
        encode = first.mT
        repeat = torch.eye(matrix.shape[1], dtype=matrix.dtype, device=matrix.device) - encode @ matrix
        self.tied = tied
        self.encode = copies(1 if tied else depth, encode)
        self.repeat = copies(1 if tied else depth, repeat)
        self.thresholds = Thresholds(depth, threshold, first.dtype)

    def layer(self, k: int, state: UnrolledState, y: Tensor) -> UnrolledState:
        own = 0 if self.tied else k
        encode, repeat = self.encode[own], self.repeat[own]
        v = self.data_vector(y) @ encode.mT + self.vector(state.x) @ repeat.mT
        return UnrolledState(self.shaped(soft_threshold(v, self.thresholds.at(k))))


class LISTACP(UnrolledNetwork):
    """x <- soft_ss(x + W_k^T (y - A x), threshold_k): the coupling S = I - W^T A that convergence requires.

    Training starts from W = weight, by default A / |A|^2 (ISTA, with its threshold scaled along).
    """

    def __init__(
        self,
        operator: LinearMap | Tensor,
        depth: int = 16,
        threshold: float = 0.1,
        selection: SupportSelection = NO_SELECTION,
        weight: Tensor | None = None,
    ) -> None:
        super().__init__(operator, depth)
        first, threshold = start_matrix(self.operator, weight, threshold)
        self.selection = selection
        self.weights = copies(depth, first)
        self.thresholds = Thresholds(depth, threshold, first.dtype)

    def layer(self, k: int, state: UnrolledState, y: Tensor) -> UnrolledState:
        v = self.vector(state.x) + self.data_vector(y - self.operator(state.x)) @ self.weights[k]
        count = self.selection.count(k, v.shape[-1])
        return UnrolledState(self.shaped(soft_threshold_with_support(v, self.thresholds.at(k), count)))


class TiLISTA(UnrolledNetwork):
    """x <- soft_ss(x + step_k W^T (y - A x), threshold_k): one learned matrix for all layers, two scalars each.

    Training starts from W = weight, by default A / |A|^2 (ISTA, with its threshold scaled along).
    """

    def __init__(
        self,
        operator: LinearMap | Tensor,
        depth: int = 16,
        threshold: float = 0.1,
        selection: SupportSelection = NO_SELECTION,
        weight: Tensor | None = None,
    ) -> None:
        super().__init__(operator, depth)
        first, threshold = start_matrix(self.operator, weight, threshold)
        self.selection = selection
        self.weight = Parameter(first.detach().clone())
        self.steps = scalars(depth, 1.0, first.dtype)
        self.thresholds = Thresholds(depth, threshold, first.dtype)

    def layer(self, k: int, state: UnrolledState, y: Tensor) -> UnrolledState:
        v = self.vector(state.x) + self.steps[k] * (self.data_vector(y - self.operator(state.x)) @ self.weight)
        count = self.selection.count(k, v.shape[-1])
        return UnrolledState(self.shaped(soft_threshold_with_support(v, self.thresholds.at(k), count)))
