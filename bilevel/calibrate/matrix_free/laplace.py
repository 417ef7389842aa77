"""The posterior of many parameters about a fit, as the prior's Gaussian narrowed along the few directions that data see.

With (mu, v) the eigenpairs of J^T J v = mu P v, v^T P v = 1, the posterior's covariance is P^-1 - sum of mu / (1 + mu) v v^T:
directions whose mu is far below 1 the data do not tell from the prior (Bui-Thanh, Ghattas, Martin & Stadler 2013, SIAM J.
Sci. Comput. 35:A2494, eq. 20). They are found from random combinations of the rows of J, in blocks until nothing larger
is met (Halko, Martinsson & Tropp 2011, SIAM Rev. 53:217, section 4.4); as many combinations as rows leave nothing out.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from bilevel.calibrate.matrix_free.prior import SparsePrior
from bilevel.calibrate.matrix_free.products import JacobianProducts
from bilevel.calibrate.problem import CalibrationProblem

SMALLEST = 1e-2
"""Eigenvalues below it change no variance by more than this share."""
_BLOCK = 32


@dataclass(frozen=True)
class LaplacePosterior:
    """mu (k,), falling; directions v (k, n); left (k, m): the unit combinations of rows that see them. t (n,): its mean.

    strength: of the fields' priors.
    """

    t: np.ndarray
    prior: SparsePrior
    eigenvalues: np.ndarray
    directions: np.ndarray
    left: np.ndarray
    strength: float = 1.0

    @staticmethod
    def of(problem: CalibrationProblem, t: np.ndarray) -> LaplacePosterior:
        """That of a problem about t."""
        found = LaplacePosterior.at(JacobianProducts(problem, t), SparsePrior.of(problem, t))
        return replace(found, strength=problem.strength)

    @staticmethod
    def at(
        products: JacobianProducts, prior: SparsePrior, smallest: float = SMALLEST, seed: int = 0
    ) -> LaplacePosterior:
        """Every direction whose mu is not below `smallest`, as far as random combinations show."""
        generator, m = np.random.default_rng(seed), products.rows
        probes, found, images = np.zeros((0, m)), np.zeros((0, len(products.t))), np.zeros((0, m))
        while len(probes) < m:
            drawn = generator.normal(size=(min(_BLOCK, m - len(probes)), m))
            drawn = np.linalg.qr((drawn - (drawn @ probes.T) @ probes).T)[0].T
            probes = np.concatenate([probes, drawn])  # orthogonal, so that each row of J is met when there are m
            new = _orthonormal(prior.solve(products.vjp(drawn)), found, prior)
            if len(new):
                moved = products.jvp(new)
                found, images = np.concatenate([found, new]), np.concatenate([images, moved])
            if not len(new) or np.linalg.norm(moved, 2) ** 2 < smallest:
                break
        rotation, singular, left = np.linalg.svd(images, full_matrices=False)
        kept = singular > 1e-10 * singular.max(initial=0.0)
        t = products.t.detach().numpy()
        return LaplacePosterior(t, prior, singular[kept] ** 2, (rotation.T @ found)[kept], left[kept])

    def solve(self, rows: np.ndarray, strength: float = 1.0) -> np.ndarray:
        """The covariance times rows (k, n), where the prior's precision is multiplied by `strength`."""
        mu = self.eigenvalues
        along = (rows @ self.directions.T) * (mu / (mu + strength) / strength)
        return self.prior.solve(rows) / strength - along @ self.directions

    def variances(self) -> np.ndarray:
        """Of each entry of t (n,)."""
        mu = self.eigenvalues
        return self.prior.variances() - (mu / (1 + mu)) @ self.directions**2

    def samples(self, count: int, seed: int = 0) -> np.ndarray:
        """Draws of t (count, n)."""
        drawn = self.prior.samples(count, np.random.default_rng(seed))
        narrowed = 1 - 1 / np.sqrt(1 + self.eigenvalues)
        return self.t + drawn - (self.prior.matmul(drawn) @ self.directions.T * narrowed) @ self.directions

    @property
    def determined(self) -> float:
        """How many parameters the data determine: the trace of their influence on themselves."""
        return float(np.sum(self.eigenvalues / (1 + self.eigenvalues)))

    @property
    def sentence(self) -> str:
        return f"of {len(self.t)} parameters the readings determine {self.determined:.3g}"


def _orthonormal(rows: np.ndarray, others: np.ndarray, prior: SparsePrior) -> np.ndarray:
    """An orthonormal basis, in the prior's inner product, of rows (k, n) without what others span; none of what is round-off."""
    floor = 1e-20 * np.sum(rows * prior.matmul(rows), axis=1).max(initial=0.0)
    for _ in range(2):  # once more, for the digits that the first time lost
        rows = rows - (prior.matmul(rows) @ others.T) @ others
        values, vectors = np.linalg.eigh(rows @ prior.matmul(rows).T)
        kept = values > max(floor, 1e-14 * values.max(initial=0.0))
        rows = (vectors[:, kept] / np.sqrt(values[kept])).T @ rows
        floor = 0.0
    return rows
