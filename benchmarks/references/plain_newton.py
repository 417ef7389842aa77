"""The plain reference: the block's Newton and adjoint by hand in NumPy, SciPy, pypardiso and pyamg, without autograd.

What a practised person would write for this one problem: the contractions of the neo-Hookean tangent done on paper,
groups of elements that fit the cache, one symbolic analysis (or one multigrid set-up) for all iterations.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import scipy.sparse as sp
from scipy.sparse.linalg import cg

CHUNK = 512
ADJOINT_TOLERANCE = 1e-12


class Linear(Protocol):
    """A way to solve with one matrix after another."""

    def update(self, matrix: sp.csr_matrix) -> None:
        """Take the next matrix."""

    def solve(self, b: np.ndarray, tolerance: float) -> np.ndarray:
        """Solve with the latest matrix."""


class Pardiso:
    """Cholesky by pypardiso: analysed once, factorised for every matrix."""

    def __init__(self) -> None:
        from pypardiso import PyPardisoSolver

        self.solver = PyPardisoSolver(mtype=2)
        self.matrix: sp.csr_matrix | None = None

    def update(self, matrix: sp.csr_matrix) -> None:
        upper = sp.triu(matrix, format="csr")
        upper.sort_indices()
        phase = 12 if self.matrix is None else 22
        self.matrix = upper
        self.solver.set_phase(phase)
        self.solver._call_pardiso(upper, np.zeros(upper.shape[0]))

    def solve(self, b: np.ndarray, tolerance: float) -> np.ndarray:
        self.solver.set_phase(33)
        return self.solver._call_pardiso(self.matrix, b)


@dataclass
class Multigrid:
    """CG with smoothed aggregation by pyamg, set up for the first matrix and kept; modes (n, k): rigid motions."""

    modes: np.ndarray
    hierarchy: Any = None
    matrix: Any = None
    iterations: list[int] = field(default_factory=list)

    def update(self, matrix: sp.csr_matrix) -> None:
        import pyamg

        self.matrix = matrix
        if self.hierarchy is None:
            size = {6: 3, 3: 2}.get(self.modes.shape[1], 1)
            smoother = ("chebyshev", {"degree": 3})
            self.hierarchy = pyamg.smoothed_aggregation_solver(
                matrix.tobsr((size, size)) if size > 1 else matrix,
                B=self.modes,
                improve_candidates=None,
                presmoother=smoother,
                postsmoother=smoother,
            )
            for level in self.hierarchy.levels:  # products with compressed rows are faster than with blocks
                level.A = level.A.tocsr()

    def solve(self, b: np.ndarray, tolerance: float) -> np.ndarray:
        count = [0]

        def note(_: np.ndarray) -> None:
            count[0] += 1

        x, failed = cg(self.matrix, b, rtol=tolerance, atol=0.0, M=self.hierarchy.aspreconditioner(), callback=note)
        if failed:
            raise RuntimeError(f"conjugate gradients did not reach {tolerance} in {failed} iterations")
        self.iterations.append(count[0])
        return x


class PlainBlock:
    """The neo-Hookean block of `block.py`, written by hand; unknowns (n,) are the free displacements."""

    def __init__(self, coordinates: np.ndarray, cells: np.ndarray, free: np.ndarray) -> None:
        import skfem

        self.cells, self.free = cells, free
        points, weights = skfem.quadrature.get_quadrature(skfem.ElementHex1(), 3)
        shapes = [skfem.ElementHex1().lbasis(points, a)[1] for a in range(8)]
        reference = np.stack(shapes).transpose(2, 1, 0)  # (Q, 3, 8)
        jacobian = np.einsum("qja,eai->eqij", reference, coordinates[cells])
        self.gradients = np.linalg.inv(jacobian).swapaxes(-1, -2) @ reference  # (E, Q, 3, 8)
        self.weights = np.abs(np.linalg.det(jacobian)) * weights
        self.size = coordinates.size
        self._pattern()

    def _pattern(self) -> None:
        number = np.full(self.size, -1, dtype=np.int64)
        number[self.free] = np.arange(len(self.free))
        dofs = number[(3 * self.cells[:, :, None] + np.arange(3)).reshape(len(self.cells), 24)]
        rows, columns = np.repeat(dofs, 24, axis=1).ravel(), np.tile(dofs, 24).ravel()
        kept = (rows >= 0) & (columns >= 0)
        keys, inverse = np.unique(rows[kept] * len(self.free) + columns[kept], return_inverse=True)
        positions = np.full(rows.size, len(keys), dtype=np.int32)
        positions[kept] = inverse
        self.positions = positions.reshape(len(self.cells), 576)
        counts = np.bincount(keys // len(self.free), minlength=len(self.free))
        self.indptr = np.concatenate(([0], np.cumsum(counts))).astype(np.int32)
        self.indices = (keys % len(self.free)).astype(np.int32)

    def _kinematics(self, full: np.ndarray, rows: slice) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """F, ln J and the shape functions' gradients in the deformed state."""
        b = self.gradients[rows]
        f = np.eye(3) + (b @ full.reshape(-1, 3)[self.cells[rows]][:, None]).swapaxes(-1, -2)
        inverse = np.linalg.inv(f)
        return f, np.log(np.linalg.det(f)), inverse.swapaxes(-1, -2) @ b

    def assemble(self, full: np.ndarray, mu: np.ndarray, lam: np.ndarray) -> tuple[np.ndarray, sp.csr_matrix]:
        """The residual (n,) and the matrix at a full field (nodes * 3,) with mu, lambda (E,)."""
        forces = np.empty((len(self.cells), 8, 3))
        values = np.zeros(len(self.indices) + 1)
        for start in range(0, len(self.cells), CHUNK):
            rows = slice(start, start + CHUNK)
            b, w = self.gradients[rows], self.weights[rows]
            f, log, g = self._kinematics(full, rows)
            m, stretch = w * mu[rows, None], w * lam[rows, None]
            back = stretch * log - m
            stress = m[..., None, None] * f
            forces[rows] = (
                b.swapaxes(-1, -2) @ stress.swapaxes(-1, -2) + back[..., None, None] * g.swapaxes(-1, -2)
            ).sum(1)
            entries = self._matrices(b, g, m, stretch, back)
            values += np.bincount(self.positions[rows].ravel(), entries.ravel(), len(values))
        residual = np.bincount((3 * self.cells[:, :, None] + np.arange(3)).ravel(), forces.ravel(), self.size)
        shape = (len(self.free), len(self.free))
        return residual[self.free], sp.csr_matrix((values[:-1], self.indices, self.indptr), shape=shape)

    @staticmethod
    def _matrices(b: np.ndarray, g: np.ndarray, m: np.ndarray, stretch: np.ndarray, back: np.ndarray) -> np.ndarray:
        """K_aibk = m b_a.b_b d_ik + stretch g_ai g_bk - back g_ak g_bi, summed over the points."""
        count, points = m.shape
        columns = g.swapaxes(-1, -2).reshape(count, points, 24)  # (a, i)
        shear = (b * m[..., None, None]).reshape(count, points * 3, 8).swapaxes(1, 2) @ b.reshape(count, points * 3, 8)
        first = (columns * stretch[..., None]).swapaxes(1, 2) @ columns
        turned = (columns * back[..., None]).swapaxes(1, 2) @ columns
        result = first.reshape(count, 8, 3, 8, 3) - turned.reshape(count, 8, 3, 8, 3).swapaxes(2, 4)
        for i in range(3):
            result[:, :, i, :, i] += shear
        return result.reshape(count, 576)

    def solve(
        self, start: np.ndarray, young: np.ndarray, poisson: float, linear: Linear, tolerance: float
    ) -> tuple[np.ndarray, int]:
        """Full Newton steps from a full field until the residual fell by `tolerance`; the state and the iterations."""
        full = start.copy()
        mu, lam = lame(young, poisson)
        residual, matrix = self.assemble(full, mu, lam)
        first = float(np.linalg.norm(residual))
        for iteration in range(50):
            size = float(np.linalg.norm(residual))
            linear.update(matrix)
            if size <= tolerance * first:
                return full, iteration
            forcing = min(1e-2, 0.1 * size / first)
            full[self.free] -= linear.solve(residual, max(forcing, 0.1 * tolerance * first / size))
            residual, matrix = self.assemble(full, mu, lam)
        raise RuntimeError("Newton's method did not converge in 50 iterations")

    def gradient(
        self, full: np.ndarray, young: np.ndarray, poisson: float, cotangent: np.ndarray, linear: Linear
    ) -> tuple[np.ndarray, float]:
        """The derivatives with respect to young (E,) and poisson of a misfit with derivative `cotangent` (n,)."""
        state = np.zeros(self.size)
        state[self.free] = -linear.solve(cotangent, ADJOINT_TOLERANCE)
        mu, lam = lame(np.ones(1), poisson)
        slope_mu = -mu / (1 + poisson)
        slope_lam = slope_mu * lam / mu + 2 * mu / (1 - 2 * poisson) ** 2
        by_mu, by_lam = np.empty(len(self.cells)), np.empty(len(self.cells))
        for start in range(0, len(self.cells), CHUNK):
            rows = slice(start, start + CHUNK)
            f, log, _ = self._kinematics(full, rows)
            moved = (self.gradients[rows] @ state.reshape(-1, 3)[self.cells[rows]][:, None]).swapaxes(-1, -2)
            back = np.linalg.inv(f).swapaxes(-1, -2)
            turned = (back * moved).sum((-1, -2))
            by_mu[rows] = (self.weights[rows] * ((f * moved).sum((-1, -2)) - turned)).sum(-1)
            by_lam[rows] = (self.weights[rows] * log * turned).sum(-1)
        return mu * by_mu + lam * by_lam, float((young * (slope_mu * by_mu + slope_lam * by_lam)).sum())


def lame(young: np.ndarray, poisson: float) -> tuple[np.ndarray, np.ndarray]:
    """mu and lambda of Young's modulus and Poisson's ratio."""
    mu = young / (2 * (1 + poisson))
    return mu, 2 * mu * poisson / (1 - 2 * poisson)
