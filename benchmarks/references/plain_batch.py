"""Newton's method and the implicit gradient as one writes them by hand in PyTorch, for one energy or a batch of them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Energy = Callable[[Tensor, Tensor], Tensor]


class PlainNewton:
    """u*(p) = argmin E(u, p) for u (..., n) and p (..., m), with backtracking; each sample has its own p."""

    def __init__(self, energy: Energy, batched: bool, tolerance: float = 1e-10) -> None:
        gradient = torch.func.grad(energy)
        hessian = torch.func.jacrev(gradient)  # forward over reverse takes twice as long for numbers times tensors
        self.gradient = torch.func.vmap(gradient) if batched else gradient
        self.hessian = torch.func.vmap(hessian) if batched else hessian
        self.energy = torch.func.vmap(energy) if batched else energy
        self.tolerance = tolerance

    def solve(self, u: Tensor, p: Tensor) -> Tensor:
        scale = None
        for _ in range(100):
            g = self.gradient(u, p)
            size = g.norm(dim=-1, keepdim=True)
            scale = size if scale is None else scale
            if bool((size <= self.tolerance * scale).all()):
                return u
            step = torch.linalg.solve(self.hessian(u, p), g)
            value, slope = self.energy(u, p), (g * step).sum(-1)
            length = torch.ones_like(value)
            for _ in range(30):
                worse = (
                    self.energy(u - length.unsqueeze(-1) * step, p)
                    > value - 1e-4 * length * slope + 1e-14 * value.abs()
                )
                if not bool(worse.any()):
                    break
                length = torch.where(worse, 0.5 * length, length)
            u = u - length.unsqueeze(-1) * step
        raise RuntimeError("not converged")

    def run(self, u0: Tensor, p: Tensor, outer: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        """The state, and d outer(u*) / d p."""
        with torch.no_grad():
            u = self.solve(u0, p)
        leaf = u.clone().requires_grad_()
        (cotangent,) = torch.autograd.grad(outer(leaf), leaf)
        adjoint = torch.linalg.solve(self.hessian(u, p), cotangent)
        q = p.detach().clone().requires_grad_()
        (by_p,) = torch.autograd.grad((self.gradient(u, q) * -adjoint).sum(), q)
        return u, by_p
