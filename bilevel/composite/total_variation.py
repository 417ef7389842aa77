"""Total variation on pictures and on graphs, with its proximal operator by accelerated dual projection.

Source: Chambolle 2004; Beck & Teboulle 2009, "Fast gradient-based algorithms for constrained total variation".
"""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from bilevel.composite.regularisers import Number, Regulariser, require_nonnegative
from bilevel.report import ConvergenceError, InputError, require_finite


class AnalysisNorm(Regulariser):
    """g(x) = sup over p in a product of unit balls of <D x, p>: a norm of differences D x.

    The prox is v - step D^T p, where p minimises |v - step D^T p|^2 over the balls; solved until the duality gap, which
    bounds half the squared distance to the exact prox, falls below `tolerance` times |v|^2 / 2.
    """

    norm_squared: float
    _dual_dims: int = 1

    def __init__(self, tolerance: float = 1e-10, max_iterations: int = 20_000) -> None:
        self.tolerance, self.max_iterations = tolerance, max_iterations

    @abstractmethod
    def differences(self, x: Tensor) -> Tensor:
        """D x."""

    @abstractmethod
    def differences_adjoint(self, p: Tensor) -> Tensor:
        """D^T p."""

    @abstractmethod
    def magnitude(self, d: Tensor) -> Tensor:
        """The Euclidean norm of each ball's component of d, kept broadcastable to d."""

    def norm(self, d: Tensor) -> Tensor:
        """The Euclidean norm of differences per sample, (*batch)."""
        return torch.linalg.vector_norm(d.flatten(d.dim() - self._dual_dims), dim=-1)

    def per_ball(self, weight: Tensor) -> Tensor:
        """A weight that broadcasts against x, (*batch, 1, ...), made to broadcast against D x."""
        extra = self._dual_dims - self.event_dims
        return weight[(..., *(None,) * extra, *(slice(None),) * self.event_dims)] if weight.dim() else weight

    def prox(self, v: Tensor, step: Number) -> Tensor:
        require_nonnegative("the weight of the total variation", step)
        require_finite("the point of the total-variation prox", v)
        if torch.is_grad_enabled() and v.requires_grad:
            raise InputError(
                "the total-variation prox is not differentiated through its iterations; call it under torch.no_grad(), "
                "or differentiate the whole inverse problem with bilevel.fixed_point"
            )
        with torch.no_grad():
            return v - self._dual(v.detach(), torch.as_tensor(step).to(v))

    def _dual(self, v: Tensor, step: Tensor) -> Tensor:
        """The correction step D^T p at the optimum."""
        if not bool((step > 0).any()) or self.differences(v).numel() == 0:
            return torch.zeros_like(v)
        safe = self.per_ball(step.clamp_min(torch.finfo(v.dtype).tiny))
        p = torch.zeros_like(self.differences(v))
        q, age = p, p.new_ones(*p.shape[: p.dim() - self._dual_dims], *(1,) * self._dual_dims)
        dims = tuple(range(-self._dual_dims, 0))
        tolerance = max(self.tolerance, 4 * torch.finfo(v.dtype).eps)
        # The gap's own rounding error: where the weight is far above v, it exceeds any part of |v|^2.
        rounding = 10 * torch.finfo(v.dtype).eps * self.norm_squared**0.5 * self._size(v)
        weight = self._per_sample(step)
        enough = 0.5 * self._sum(v.square()) * tolerance + weight * rounding
        for iteration in range(self.max_iterations):
            ascent = q + self.differences(v - step * self.differences_adjoint(q)) / (self.norm_squared * safe)
            new = ascent / self.magnitude(ascent).clamp_min(1.0)
            uphill = ((q - new) * (new - p)).sum(
                dims, keepdim=True
            ) > 0  # forget the momentum (O'Donoghue & Candes 2015)
            age = torch.where(uphill, 1.0, age)
            older = 0.5 * (1 + (1 + 4 * age.square()).sqrt())
            q = new + torch.where(uphill, 0.0, (age - 1) / older) * (new - p)
            p, age = new, older
            if iteration % 10 == 9:
                correction = step * self.differences_adjoint(p)
                if bool((self._gap(v - correction, p, step) <= enough).all()):
                    return correction
        raise ConvergenceError(
            f"the total-variation prox did not reach its duality gap in {self.max_iterations} iterations; "
            "raise max_iterations or loosen its tolerance"
        )

    def _size(self, v: Tensor) -> Tensor:
        """The norm of each sample, whose squares may underflow."""
        largest = v.abs().amax().clamp_min(torch.finfo(v.dtype).tiny)
        return largest * self._sum((v / largest).square()).sqrt()

    def _gap(self, x: Tensor, p: Tensor, step: Tensor) -> Tensor:
        """step g(x) - step <D x, p>: primal minus dual objective at x = v - step D^T p."""
        along = (x * self.differences_adjoint(p)).flatten(x.dim() - self.event_dims).sum(-1)
        return self._per_sample(step) * (self.value(x) - along)

    def _per_sample(self, step: Tensor) -> Tensor:
        return step if step.dim() == 0 else step.flatten(step.dim() - self.event_dims)[..., 0]


class TotalVariation(AnalysisNorm):
    """TV of pictures (*batch, height, width): sum over pixels of |forward differences|, Euclidean or (`isotropic=False`) l1."""

    event_dims = 2
    norm_squared = 8.0
    _dual_dims = 3

    def __init__(self, isotropic: bool = True, tolerance: float = 1e-10, max_iterations: int = 20_000) -> None:
        super().__init__(tolerance, max_iterations)
        self.isotropic = isotropic

    def value(self, x: Tensor) -> Tensor:
        d = self.differences(x)
        return self._sum(self.magnitude(d).squeeze(-3)) if self.isotropic else d.abs().sum((-3, -2, -1))

    def differences(self, x: Tensor) -> Tensor:
        down = torch.nn.functional.pad(x[..., 1:, :] - x[..., :-1, :], (0, 0, 0, 1))
        right = torch.nn.functional.pad(x[..., :, 1:] - x[..., :, :-1], (0, 1))
        return torch.stack([down, right], -3)

    def differences_adjoint(self, p: Tensor) -> Tensor:
        down, right = p[..., 0, :-1, :], p[..., 1, :, :-1]
        pad = torch.nn.functional.pad
        return pad(down, (0, 0, 1, 0)) - pad(down, (0, 0, 0, 1)) + pad(right, (1, 0)) - pad(right, (0, 1))

    def magnitude(self, d: Tensor) -> Tensor:
        return torch.linalg.vector_norm(d, dim=-3, keepdim=True) if self.isotropic else d.abs()


class GraphTotalVariation(AnalysisNorm):
    """TV of node values (*batch, n) on a graph: sum over edges of weight |x_i - x_j|.

    edges (2, E) of node indices below `nodes`, weights (E,) nonnegative (default 1).
    """

    def __init__(
        self,
        edges: Tensor,
        nodes: int,
        weights: Tensor | None = None,
        tolerance: float = 1e-10,
        max_iterations: int = 20_000,
    ) -> None:
        super().__init__(tolerance, max_iterations)
        if edges.dim() != 2 or edges.shape[0] != 2:
            raise InputError(f"edges are given as (2, number of edges), got shape {tuple(edges.shape)}")
        if edges.numel() and (int(edges.max()) >= nodes or int(edges.min()) < 0):
            raise InputError(
                f"edges refer to nodes {int(edges.min())} to {int(edges.max())}, but there are {nodes} nodes"
            )
        self.edges, self.nodes = edges, nodes
        self.weights = torch.ones(edges.shape[1]) if weights is None else weights
        if self.weights.shape != edges.shape[1:]:
            raise InputError(f"{edges.shape[1]} edges have {tuple(self.weights.shape)} weights; give one each")
        require_nonnegative("the weights of the edges", self.weights)
        degree = torch.zeros(nodes, dtype=self.weights.dtype)
        for end in edges:
            degree.index_add_(0, end, self.weights.square())
        self.norm_squared = max(2 * float(degree.max()), torch.finfo(torch.float64).tiny)

    def value(self, x: Tensor) -> Tensor:
        return self.differences(x).abs().sum(-1)

    def differences(self, x: Tensor) -> Tensor:
        if x.shape[-1] != self.nodes:
            raise InputError(f"the graph has {self.nodes} nodes, but the values have shape {tuple(x.shape)}")
        return (x[..., self.edges[0]] - x[..., self.edges[1]]) * self.weights.to(x)

    def differences_adjoint(self, p: Tensor) -> Tensor:
        flow = p * self.weights.to(p)
        out = flow.new_zeros(*flow.shape[:-1], self.nodes)
        return out.index_add(-1, self.edges[0], flow).index_add(-1, self.edges[1], -flow)

    def magnitude(self, d: Tensor) -> Tensor:
        return d.abs()
