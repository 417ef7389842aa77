"""Gauss-Newton for more parameters than a Jacobian can be kept for: steps by conjugate gradients under the prior's inverse.

In the coordinates in which the prior is white, J^T J + P is the identity and a few large eigenvalues, one for each direction that
the data see; so the steps take about as many products as there are such directions, on whatever mesh (Akcelik, Biros &
Ghattas 2002; Martin, Wilcox, Burstedde & Ghattas 2012, SIAM J. Sci. Comput. 34:A1460). Early steps are rough, as far
from the end as they are (Eisenstat & Walker 1996, SIAM J. Sci. Comput. 17:16).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from bilevel.calibrate.evaluation import Evaluation
from bilevel.calibrate.fit.ending import Ending, limit
from bilevel.calibrate.fit.evaluator import Evaluator, IterationLimit
from bilevel.calibrate.matrix_free.laplace import LaplacePosterior
from bilevel.calibrate.matrix_free.prior import SparsePrior
from bilevel.calibrate.matrix_free.products import JacobianProducts
from bilevel.calibrate.problem import CalibrationProblem
from bilevel.calibrate.settings import Method, Noise, Settings

Product = Callable[[np.ndarray], np.ndarray]

LARGE = 1000
"""Fields with more free entries go without a Jacobian."""
_ROUGHEST, _FINEST = 0.3, 1e-3
_MOST = 1000
_MANY, _STRONG = 60, 3.0
"""A step of more products than that is worth a better preconditioner: the posterior along eigenvalues above _STRONG."""
_HALVINGS = 12


@dataclass(frozen=True)
class KrylovStep:
    """A step s (n,) with H s = -g but for a relative rest, and the products that it took."""

    step: np.ndarray
    products: int

    def inside(self, gradient: np.ndarray) -> float:
        """sqrt(g H^-1 g): the norm of the part of the residual that the parameters can still explain."""
        return math.sqrt(max(-float(gradient @ self.step), 0.0))


def is_matrix_free(problem: CalibrationProblem, settings: Settings) -> bool:
    """Whether a fit goes without a Jacobian: where that is asked for, and for large fields with priors of their own.

    More readings than parameters, of unknown noise, are fitted with a Jacobian, which tells how large the noise is.
    """
    if settings.method is not Method.LEAST_SQUARES:
        return settings.method is Method.KRYLOV
    size = problem.parameters.size
    fewer = len(problem.fitted) <= size or settings.noise is Noise.KNOWN
    return size > LARGE and fewer and problem.field_rows(problem.parameters.start()) > 0


class GaussNewtonKrylov:
    """The loop from a start; entries that their bounds hold stay there. precondition: as near (J^T J + P)^-1 as is known."""

    def __init__(self, evaluator: Evaluator, settings: Settings, precondition: Product | None = None) -> None:
        self.evaluator, self.tolerance = evaluator, settings.tolerance
        self.problem = evaluator.problem
        self.low, self.high = self.problem.parameters.limits()
        self.precondition = precondition
        self.first, self.last, self.deflated = 0.0, 0, -1

    def minimise(self, start: np.ndarray) -> Ending:
        """Iterate from `start`, or from where the journal ends."""
        here, offset = self._resumed() or self._take(self.evaluator(start, False)), math.inf
        try:
            while True:
                gradient, held = self._gradient(here)
                prior = SparsePrior.of(self.problem, here.t)
                largest = self._norm(prior.solve, gradient)
                self.first = self.first or largest
                offset = self._offset(here, largest, prior)
                if offset <= self.tolerance or self._at_round_off(here, largest):
                    return Ending(True, f"relative offset {offset:.1e}")
                descent = self._step(here, prior, gradient, held, min(_ROUGHEST, largest / self.first))
                offset = self._offset(here, descent.inside(gradient), prior)
                if offset <= self.tolerance or self._at_round_off(here, descent.inside(gradient)):
                    return Ending(True, f"relative offset {offset:.1e}")
                following = self._along(here, descent.step)
                if following is None:
                    return Ending(False, f"no step reduced phi further, relative offset {offset:.2g}; start elsewhere")
                here = self._take(following)
        except IterationLimit:
            return Ending(False, limit(self.evaluator.noptmax, offset, self.tolerance, 0.0))

    def _take(self, evaluation: Evaluation) -> Evaluation:
        loop = {"first": self.first, "last": self.last, "deflated": self.deflated}
        self.evaluator.journal.accept(evaluation.t, loop)
        self.evaluator.accept(evaluation)
        return evaluation

    def _resumed(self) -> Evaluation | None:
        """Where the journal ends, with the preconditioner of then made again."""
        done = self.evaluator.journal.accepted()
        for point, _ in done:
            self.evaluator.accept(point.evaluation)
        if not done:
            return None
        loop = done[-1][1]
        self.first, self.last, self.deflated = loop["first"], loop["last"], loop["deflated"]
        if self.deflated >= 0:
            t = done[self.deflated][0].evaluation.t
            self._deflate(JacobianProducts(self.problem, t), SparsePrior.of(self.problem, t))
        return self.evaluator(done[-1][0].evaluation.t, False)

    def _deflate(self, products: JacobianProducts, prior: SparsePrior) -> None:
        self.precondition = LaplacePosterior.at(products, prior, smallest=_STRONG).solve

    def _gradient(self, here: Evaluation) -> tuple[np.ndarray, np.ndarray]:
        """That of phi / 2 along the entries that are free, and which ones are held."""
        gradient = here.gradient / 2
        held = ((here.t <= self.low) & (gradient >= 0)) | ((here.t >= self.high) & (gradient <= 0))
        return np.where(held, 0.0, gradient), held

    @staticmethod
    def _norm(solve: Product, gradient: np.ndarray) -> float:
        return math.sqrt(max(float(gradient @ solve(gradient[None])[0]), 0.0))

    def _offset(self, here: Evaluation, inside: float, prior: SparsePrior) -> float:
        """As `Linearisation.offset`: what of the residuals parameters can still explain, against what they cannot."""
        m, n = len(here.residual), len(here.t)
        outside = math.sqrt(max(here.phi - inside**2, 0.0))
        return 0.0 if inside == 0 else inside / math.sqrt(n) / max(outside / math.sqrt(max(m - n, 1)), 1e-300)

    @staticmethod
    def _at_round_off(here: Evaluation, inside: float) -> bool:
        return inside <= 1e-2 * here.precision * here.size

    def _step(
        self, here: Evaluation, prior: SparsePrior, gradient: np.ndarray, held: np.ndarray, rest: float
    ) -> KrylovStep:
        products = JacobianProducts(self.problem, here.t)
        if self.precondition is None and self.last > _MANY:
            self.deflated = len(self.evaluator.iterations) - 1
            self._deflate(products, prior)
        precondition = self.precondition or prior.solve

        def image(v: np.ndarray) -> np.ndarray:
            full = products.vjp(products.jvp(v[None])) + prior.matmul(v[None])
            return np.where(held, 0.0, full[0])

        def rough(v: np.ndarray) -> np.ndarray:
            return np.where(held, 0.0, precondition(v[None])[0])

        descent = conjugate_gradients(image, rough, -gradient, max(rest, _FINEST))
        self.last = descent.products
        return descent

    def _along(self, here: Evaluation, step: np.ndarray) -> Evaluation | None:
        """The first point along a step, halved as often as that takes, at which phi falls enough (Armijo)."""
        length = 1.0
        for _ in range(_HALVINGS):
            t = np.clip(here.t + length * step, self.low, self.high)
            trial = self.evaluator(t, False)
            promised = float(here.gradient @ (t - here.t))
            if not trial.sentence and trial.phi <= here.phi + 1e-4 * min(promised, 0.0) + 1e-12 * here.phi:
                return trial if not np.array_equal(t, here.t) else None
            length /= 2
        return None


def conjugate_gradients(image: Product, precondition: Product, right: np.ndarray, rest: float) -> KrylovStep:
    """Solve H s = right; ends when the residual's norm under the preconditioner has fallen to `rest` of what it was."""
    step, left = np.zeros_like(right), right.copy()
    near = precondition(left)
    size = begun = float(left @ near)
    direction, count = near, 0
    while size > rest**2 * begun and count < _MOST:
        moved, count = image(direction), count + 1
        length = size / float(direction @ moved)
        step, left = step + length * direction, left - length * moved
        near = precondition(left)
        size, before = float(left @ near), size
        direction = near + (size / before) * direction
    return KrylovStep(step, count)
