"""Products with the Jacobian of the fitted rows at a point, without the Jacobian: each costs a linear solve of the model."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from bilevel.calibrate.problem import CalibrationProblem

_TOGETHER = 16
"""Directions that go through the model at once: more take more memory, and fewer more calls."""


class JacobianProducts:
    """J of the residuals r (m,) of the fitted rows at t (n,); rows of many directions at once.

    One graph of the predictions serves all products. J^T w is linear in w, so that its derivative in w along v, once more
    in reverse, is J v: one solve with the same factor, where a forward sweep would simulate anew.
    """

    def __init__(self, problem: CalibrationProblem, t: np.ndarray) -> None:
        self.t = torch.tensor(t, requires_grad=True)
        residual = problem.misfit.residual(problem.predict(self.t))[problem.fitted]
        self.residual = residual.detach().numpy()
        self.batched = all(e.model.batched for e in problem.experiments)
        self._residual = residual
        self._cotangent = torch.zeros_like(residual, requires_grad=True)
        (self._gradient,) = torch.autograd.grad(residual, self.t, self._cotangent, create_graph=True)

    @property
    def rows(self) -> int:
        return len(self.residual)

    def jvp(self, directions: np.ndarray) -> np.ndarray:
        """J v (k, m) of directions (k, n)."""
        return self._swept(self._gradient, self._cotangent, directions)

    def vjp(self, cotangents: np.ndarray) -> np.ndarray:
        """J^T w (k, n) of cotangents (k, m)."""
        return self._swept(self._residual, self.t, cotangents)

    def _swept(self, output: Tensor, leaf: Tensor, rows: np.ndarray) -> np.ndarray:
        size = _TOGETHER if self.batched else 1
        parts = [self._one(output, leaf, part) for part in torch.as_tensor(rows).split(size)]
        return torch.cat(parts).numpy()

    @staticmethod
    def _one(output: Tensor, leaf: Tensor, rows: Tensor) -> Tensor:
        single = len(rows) == 1
        (found,) = torch.autograd.grad(
            output, leaf, rows[0] if single else rows, retain_graph=True, is_grads_batched=not single
        )
        return found.unsqueeze(0) if single else found
