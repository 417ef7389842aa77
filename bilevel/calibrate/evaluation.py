"""What one point gave: weighted residuals, their exact derivatives, and the work behind them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from bilevel.report import Counts

CLOSED_FORM, INNER_SOLVES = 1e-12, 1e-8


@dataclass(frozen=True)
class Evaluation:
    """Residuals w (y - d) of the fitted rows, then of the priors, at one point t, and their derivatives.

    jacobian: d residual / d t (m, p), or None when only the gradient of phi was asked for. priors: number of rows of
    priors. prediction: all rows (n,). size: norm of the fitted rows of w y, against which round-off is measured.
    approximate: relative error of derivatives that are none but differences. stale: they are updates of earlier ones.
    sentence: why the point failed, or "". retried: why it failed at first, or "". failing: the experiment that failed;
    without a sentence, its readings stand penalised. gradient_error: the largest of the model's certificates, NaN if none.
    """

    t: np.ndarray
    residual: np.ndarray
    gradient: np.ndarray
    jacobian: np.ndarray | None
    prediction: np.ndarray
    priors: int = 0
    size: float = 0.0
    counts: Counts = field(default_factory=Counts)
    inner_solves: int = 0
    inner_iterations: int = 0
    gradient_error: float = math.nan
    approximate: float = 0.0
    stale: bool = False
    seconds: float = 0.0
    sentence: str = ""
    retried: str = ""
    failing: str = ""

    @property
    def phi(self) -> float:
        return float(self.residual @ self.residual)

    @property
    def data_rows(self) -> int:
        """How many residuals are of observations; those of priors follow."""
        return len(self.residual) - self.priors

    @property
    def precision(self) -> float:
        """To which fraction a Jacobian is known: through inner solves, no better than they converge."""
        return max(INNER_SOLVES if self.inner_solves else CLOSED_FORM, self.approximate)


@dataclass(frozen=True)
class Iteration:
    """An outer iteration: its number, and the point that it accepted."""

    number: int
    evaluation: Evaluation
