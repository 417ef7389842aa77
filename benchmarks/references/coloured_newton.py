"""What a user would write by hand: Newton's method with a coloured Hessian, SciPy's sparse LU and an adjoint solve."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import scipy.sparse
import scipy.sparse.linalg
import torch
from torch import Tensor

Energy = Callable[[Tensor, dict[str, Tensor]], Tensor]


class ColouredNewton:
    """Minimises energy(u, params) on a grid from `start`, and differentiates mean(u^2) in params["width"]."""

    def __init__(self, energy: Energy, start: Tensor, params: dict[str, Tensor]) -> None:
        self.energy, self.start, self.params = energy, start, params
        rows, columns = start.shape
        index = np.arange(rows * columns).reshape(rows, columns)
        pairs = [(index, index), (index[1:], index[:-1]), (index[:, 1:], index[:, :-1])]
        i, j = (np.concatenate([p[k].ravel() for p in pairs]) for k in (0, 1))
        self.i, self.j = np.r_[i, j[index.size :]], np.r_[j, i[index.size :]]
        # (row + 2 column) mod 5 colours a five-point stencil such that no row sees a colour twice.
        self.colour = ((np.arange(rows)[:, None] + 2 * np.arange(columns)[None, :]) % 5).ravel()
        seeds = torch.nn.functional.one_hot(torch.from_numpy(self.colour), 5).T.to(start)
        self.seeds = seeds.reshape(5, rows, columns)

    def gradient(self, u: Tensor) -> Tensor:
        return torch.func.grad(self.energy)(u, self.params)

    def hessian(self, u: Tensor) -> scipy.sparse.csc_array:
        vjp = torch.func.vjp(self.gradient, u)[1]
        images = torch.vmap(lambda x: vjp(x)[0])(self.seeds).reshape(5, -1).numpy()
        n = u.numel()
        return scipy.sparse.csc_array((images[self.colour[self.j], self.i], (self.i, self.j)), shape=(n, n))

    def run(self) -> tuple[Tensor, Tensor]:
        u, value = self.start.clone(), float(self.energy(self.start, self.params))
        gradient = self.gradient(u)
        shift, first = 0.0, float(gradient.norm())
        for _ in range(200):
            hessian = self.hessian(u)
            while True:
                shifted = hessian + shift * scipy.sparse.eye_array(u.numel(), format="csc")
                step = torch.from_numpy(-scipy.sparse.linalg.splu(shifted).solve(gradient.numpy().ravel())).view_as(u)
                curvature = float(step.reshape(-1) @ torch.from_numpy(shifted @ step.numpy().ravel()))
                if float((step * gradient).sum()) < 0 and curvature > 0:
                    break
                shift = max(4 * shift, 1e-3 * abs(hessian.diagonal()).max())
            length, slope = 1.0, float((step * gradient).sum())
            while float(self.energy(u + length * step, self.params)) > value + 1e-4 * length * slope and length > 1e-10:
                length *= 0.5
            u = u + length * step
            value, gradient, shift = float(self.energy(u, self.params)), self.gradient(u), shift / 4 * (shift > 1e-12)
            if float(gradient.norm()) <= 1e-10 * first:
                break
        factor = scipy.sparse.linalg.splu(self.hessian(u))
        adjoint = torch.from_numpy(factor.solve((2.0 * u / u.numel()).numpy().ravel())).view_as(u)
        by_width = torch.func.grad(
            lambda w: (adjoint * torch.func.grad(self.energy)(u, {**self.params, "width": w})).sum()
        )
        return u, -by_width(self.params["width"])
