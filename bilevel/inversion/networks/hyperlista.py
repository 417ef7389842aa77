"""HyperLISTA: no layer has parameters of its own; three numbers rule thresholds, momentum and support by formulae.

Source: Chen, Liu, Wang, Yin 2021, "Hyperparameter tuning is all you need for LISTA", eqs. (13)-(16).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import Parameter

from bilevel.composite import soft_threshold_with_support
from bilevel.inversion.networks.alista import analytic_weight, coherence
from bilevel.inversion.networks.network import UnrolledNetwork, UnrolledState, require_pairs, weight_map
from bilevel.linalg.linear_map import LinearMap
from bilevel.report import BilevelError, InputError


class HyperLISTA(UnrolledNetwork):
    """x <- soft_ss(x + W^T (y - A x) + beta (x - x_previous), theta), each sample with its own theta, beta and support.

    theta = c1 mu |A^+ (A x - y)|_1, beta = c2 mu |x|_0, and the support holds
    c3 log(|A^+ y|_1 / |A^+ (A x - y)|_1) entries, where mu is the coherence of W and A^+ the pseudo-inverse.

    constants: (c1, c2, c3), which `tune` finds best. By default c1 = 4 / (mu n), so that theta is four times the mean entry
    of A^+ (A x - y): much larger ones put every entry of sparse signals to zero, and nothing can be learned from there.
    """

    constants: Parameter
    inverse: Tensor

    def __init__(
        self,
        operator: LinearMap | Tensor,
        depth: int = 16,
        weight: LinearMap | Tensor | None = None,
        constants: tuple[float, float, float] | None = None,
    ) -> None:
        super().__init__(operator, depth)
        matrix = self.operator.matrix()
        self.weight = weight_map(self.operator, analytic_weight(matrix) if weight is None else weight)
        self.register_buffer("inverse", torch.linalg.pinv(matrix))
        self.coherence = coherence(self.weight.matrix(), matrix)
        if constants is None:
            constants = (4.0 / (self.coherence * matrix.shape[1]) if self.coherence > 0 else 1.0, 0.01, 5.0)
        self.constants = Parameter(torch.tensor(constants, dtype=matrix.dtype))

    def start(self, y: Tensor) -> UnrolledState:
        x = super().start(y).x
        return UnrolledState(x, x)

    def layer(self, k: int, state: UnrolledState, y: Tensor) -> UnrolledState:
        x, previous = self.vector(state.x), self.vector(state.memory)
        c1, c2, c3 = self.constants
        residual = y - self.operator(state.x)
        error = (self.data_vector(residual) @ self.inverse.mT).abs().sum(-1)
        first = (self.data_vector(y) @ self.inverse.mT).abs().sum(-1)
        tiny = torch.finfo(x.dtype).tiny
        theta = c1 * self.coherence * error
        beta = c2 * self.coherence * (x != 0).sum(-1)
        count = (c3 * torch.log(first.clamp_min(tiny) / error.clamp_min(tiny))).clamp(0, x.shape[-1]).detach()
        v = x + self.vector(self.weight.adjoint(residual)) + beta.unsqueeze(-1) * (x - previous)
        return UnrolledState(self.shaped(soft_threshold_with_support(v, theta.unsqueeze(-1), count.floor())), state.x)


def tune(
    network: HyperLISTA,
    truth: Tensor,
    data: Tensor,
    *,
    evaluations: int = 200,
    progress: Callable[[float], None] | None = None,
) -> float:
    """Set the three constants by a simplex search on the NMSE in dB over the pairs, which it returns.

    The support's size is an integer, so derivatives do not see c3; a direct search does. Raises InputError for pairs that
    do not fit, BilevelError where the search found nothing better than zero.
    """
    from scipy.optimize import minimize

    scale = network.constants.detach().double().cpu().numpy().copy()
    if not (scale > 0).all():
        raise InputError("the search for HyperLISTA's constants starts from three positive numbers")
    require_pairs(network, truth, data)
    size = truth.double().square().sum()

    def objective(log_factor: np.ndarray) -> float:
        with torch.no_grad():
            network.constants.copy_(torch.as_tensor(scale * np.exp(log_factor)))
            # Without the checks of a call: constants under which the layers blow up are bad, not an error.
            found = network.run(data, network.start(data), 0).x
            error = (found.double() - truth.double()).square().sum() / size
        value = float(10 * torch.log10(error)) if bool(torch.isfinite(error)) else 1e3
        if progress is not None:
            progress(value)
        return value

    simplex = np.vstack([np.zeros(3), 0.4 * np.eye(3)])
    found = minimize(
        objective,
        np.zeros(3),
        method="Nelder-Mead",
        options={"maxfev": evaluations, "initial_simplex": simplex, "xatol": 1e-3, "fatol": 1e-2},
    )
    best = objective(found.x)
    if not best < 0:
        raise BilevelError(
            f"no constants near {tuple(scale.tolist())} recover these signals better than zero does; start from smaller ones"
        )
    return best
