"""Broyden's rank-one updates of a Jacobian (Broyden 1965, Mathematics of Computation 19:577)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor


@dataclass
class Broyden:
    """The last point (p,), its outputs (n,) and Jacobian (n, p); count: updates since one was taken anew, at most limit."""

    limit: int
    count: int = 0
    point: np.ndarray = field(default_factory=lambda: np.zeros(0))
    values: np.ndarray = field(default_factory=lambda: np.zeros(0))
    jacobian: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))

    def suits(self, point: np.ndarray) -> bool:
        """Whether an update will do here."""
        return self.count < self.limit and len(self.point) > 0 and not np.array_equal(point, self.point)

    def begin(self, point: np.ndarray, values: np.ndarray, jacobian: np.ndarray) -> None:
        """From a Jacobian that was taken anew."""
        self.count, self.point, self.values, self.jacobian = 0, point.copy(), values, jacobian

    def update(self, point: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Outputs and Jacobian at the next point: the least change, in relative parameters, that explains the outputs."""
        scale = np.where(self.point == 0, 1.0, np.abs(self.point))
        step = (point - self.point) / scale
        missed = values - self.values - self.jacobian @ (point - self.point)
        jacobian = self.jacobian + np.outer(missed, step / scale) / (step @ step)
        self.count, self.point, self.values, self.jacobian = self.count + 1, point.copy(), values, jacobian
        return values, jacobian

    def state(self) -> dict[str, Tensor]:
        """For a checkpoint."""
        if not self.limit:
            return {}
        arrays = {"count": np.array(self.count), "point": self.point, "values": self.values, "jacobian": self.jacobian}
        return {name: torch.as_tensor(array) for name, array in arrays.items()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """The inverse of `state`; without one, begin anew."""
        self.count = int(state["count"]) if "count" in state else self.limit
        if "count" in state:
            self.point, self.values, self.jacobian = (state[k].numpy().copy() for k in ("point", "values", "jacobian"))
