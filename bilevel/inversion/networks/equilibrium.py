"""Deep equilibrium: a layer iterated to its fixed point, and differentiated there by the implicit function theorem.

Memory does not grow with the number of iterations. Source: Bai, Kolter, Koltun 2019; Gilton, Ongie, Willett 2021.
"""

from __future__ import annotations

import torch
from torch import Tensor

import bilevel
from bilevel.implicit.strategies import Adjoint
from bilevel.inversion.networks.network import UnrolledNetwork, UnrolledState
from bilevel.problem import FixedPoint
from bilevel.report import InputError, OnFail, Solution
from bilevel.solvers.solver import Solver


class LayerMap(torch.nn.Module):
    """Layer k of an unrolled network without memory, as a map T(x, y)."""

    def __init__(self, network: UnrolledNetwork, k: int = 0) -> None:
        super().__init__()
        if not 0 <= k < network.depth:
            raise InputError(f"the network has layers 0 to {network.depth - 1}, there is no layer {k}")
        probe = torch.zeros(1, *network.operator.range).to(network.operator._reference())
        if network.start(probe).memory is not None:
            raise InputError(f"a {type(network).__name__} remembers more than its estimate, so it is no map T(x, y)")
        self.network, self.k = network, k

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.network.layer(self.k, UnrolledState(x), y).x


class Equilibrium(torch.nn.Module):
    """x with x = T(x, y), for any module T(x, y) -> x that treats the samples of a batch independently.

    solver: Anderson acceleration by default, as accurate as the precision of x0 allows. Called as equilibrium(y, x0); `solution` then holds the solve's report and the certificates of its gradients.
    Raises ConvergenceError where the iteration has not converged (`on_fail`).
    """

    def __init__(
        self,
        map: torch.nn.Module,
        *,
        solver: Solver | None = None,
        adjoint: Adjoint | None = None,
        on_fail: OnFail = "raise",
    ) -> None:
        super().__init__()
        self.map = map
        self.solver, self.adjoint, self.on_fail = solver, adjoint, on_fail
        self.solution: Solution | None = None

    def forward(self, y: Tensor, x0: Tensor) -> Tensor:
        """The fixed point, shaped like x0 (batch, ...), differentiable in the map's parameters and in y."""
        if y.shape[0] != x0.shape[0]:
            raise InputError(f"the data hold {y.shape[0]} samples and the start {x0.shape[0]}")
        problem = FixedPoint(self.map, batch_dims=1)
        attainable = max(1e-10, 100 * torch.finfo(x0.dtype).eps)
        solver = self.solver or bilevel.Anderson(tolerance=bilevel.Tolerance(relative=attainable))
        self.solution = bilevel.fixed_point(problem, x0, y, solver=solver, adjoint=self.adjoint, on_fail=self.on_fail)
        return self.solution.u


class UnrolledMap(torch.nn.Module):
    """The same map repeated `iterations` times under autograd: what an equilibrium is compared with."""

    def __init__(self, map: torch.nn.Module, iterations: int) -> None:
        super().__init__()
        self.map, self.iterations = map, iterations

    def forward(self, y: Tensor, x0: Tensor) -> Tensor:
        x = x0
        for _ in range(self.iterations):
            x = self.map(x, y)
        return x
