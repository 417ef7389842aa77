"""What a Gauss-Newton model leaves out, sum_i r_i d2r_i, gathered from the gradients that the steps have met.

Where residuals stay large at the solution, the method of Gauss and Newton converges slowly or swings to and fro; with this
it converges faster than linearly (Dennis, Gay & Welsch 1981, ACM Trans. Math. Softw. 7:348, NL2SOL).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from bilevel.calibrate.linearisation import Linearisation

LARGEST = 200
"""Parameters up to which it is kept: it has their square of entries, which the journal keeps for each iteration."""

NEAR = 0.3
"""Relative offset from which it leads; further away what it has learned belongs to other places."""


class Curvature:
    """S (p, p), such that |r + J s|^2 + s.S s models phi; forgotten when it tells a step's outcome worse than S = 0."""

    def __init__(self, size: int) -> None:
        self.matrix = np.zeros((size, size)) if size <= LARGEST else np.zeros((0, 0))
        self.noise = 1.0

    def state(self) -> dict[str, Any]:
        """What goes into the journal."""
        return {"matrix": self.matrix.tolist(), "noise": self.noise}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave."""
        self.matrix, self.noise = np.array(state["matrix"]), state["noise"]

    def of(self, here: Linearisation) -> np.ndarray:
        """S with the weights of a linearisation."""
        return self.matrix * (self.noise / here.noise) ** 2

    def target(self, here: Linearisation, radius: float, metric: np.ndarray) -> np.ndarray | None:
        """The minimum (p,) of the model with S, where it is one within the radius and the limits."""
        free = here.free
        if here.offset > NEAR or not self.matrix.any():
            return None
        norms = here.norms[free]
        columns = here.jacobian[:, free] / norms
        hessian = columns.T @ columns + self.of(here)[np.ix_(free, free)] / np.outer(norms, norms)
        values, vectors = np.linalg.eigh(hessian)
        if not len(values) or values[0] <= here.precision * values[-1]:
            return None
        step = np.zeros(len(here.t))
        step[free] = -(vectors @ ((vectors.T @ (columns.T @ here.residual)) / values)) / norms
        target = here.t + step
        inside = bool(((target >= here.low) & (target <= here.high)).all())
        return target if inside and np.linalg.norm(metric * step) <= radius else None

    def phi(self, here: Linearisation, t: np.ndarray) -> float:
        """What the model says of another point."""
        step = t - here.t
        more = float(step @ self.of(here) @ step) if len(self.matrix) else 0.0
        return float(np.sum(here.predicted(t) ** 2)) + more

    def follow(self, here: Linearisation, there: Linearisation) -> None:
        """Learn from the step between two points, linearised with the same weights."""
        if not len(self.matrix):
            return
        step = there.t - here.t
        old = self.of(here)
        without = float(np.sum(here.predicted(there.t) ** 2))
        kept = abs(without + step @ old @ step - there.phi) < abs(without - there.phi)
        old = old if kept else np.zeros_like(old)  # what was learned far away misleads
        # A Jacobian that has lost a column to round-off says nothing of curvature.
        seen = ~(here.unseen | there.unseen)
        change = np.where(seen, (there.jacobian - here.jacobian).T @ there.residual, 0.0)
        gradient = np.where(seen, there.jacobian.T @ there.residual - here.jacobian.T @ here.residual, 0.0)
        along = float(step @ gradient)
        if along > 1e-10 * np.linalg.norm(step) * np.linalg.norm(gradient):
            left = change - old @ step
            both = np.outer(left, gradient)
            old = old + (both + both.T) / along - (step @ left) / along * np.outer(gradient, gradient / along)
        self.matrix, self.noise = old, here.noise
