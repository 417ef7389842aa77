"""The plain reference of `darcy.py`: Newton and adjoint of - div(k (1 + u^2) grad u) = f by hand, NumPy and pypardiso.

What a practised person would write for this one problem: contractions done on paper, groups of cells that fit the
cache, one symbolic analysis for all iterations, the gradient by one transposed solve.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp

CHUNK = 4096


class Pardiso:
    """LU (mtype 11) or Cholesky of upper triangles (mtype 2) by pypardiso: analysed once, factorised for every matrix."""

    def __init__(self, mtype: int) -> None:
        from pypardiso import PyPardisoSolver

        self.solver = PyPardisoSolver(mtype=mtype)
        self.matrix: sp.csr_matrix | None = None

    def factor(self, matrix: sp.csr_matrix) -> None:
        """Take the next matrix, on the same pattern as the one before."""
        phase = 12 if self.matrix is None else 22
        self.matrix = matrix
        self.solver.set_phase(phase)
        self.solver._call_pardiso(self.matrix, np.zeros(matrix.shape[0]))

    def solve(self, b: np.ndarray, transposed: bool = False) -> np.ndarray:
        self.solver.set_iparm(12, 2 if transposed else 0)
        self.solver.set_phase(33)
        return self.solver._call_pardiso(self.matrix, b)


class PlainDarcy:
    """- div(k (1 + coefficient u^2) grad u) = source on a mesh; u (nodes,) with the nodes not in `free` held."""

    def __init__(self, coordinates: np.ndarray, cells: np.ndarray, free: np.ndarray, coefficient: float) -> None:
        import skfem

        dim = coordinates.shape[1]
        element: Any = {2: skfem.ElementQuad1, 3: skfem.ElementHex1}[dim]()
        points, weights = skfem.quadrature.get_quadrature(element, 3)
        shapes = [element.lbasis(points, a) for a in range(cells.shape[1])]
        self.values = np.stack([np.broadcast_to(value, weights.shape) for value, _ in shapes], 1)  # (Q, A)
        reference = np.stack([slope for _, slope in shapes]).transpose(2, 1, 0)  # (Q, dim, A)
        jacobian = np.einsum("qja,eai->eqij", reference, coordinates[cells])
        self.gradients = np.linalg.inv(jacobian).swapaxes(-1, -2) @ reference  # (E, Q, dim, A)
        self.weights = np.abs(np.linalg.det(jacobian)) * weights
        self.cells, self.free, self.coefficient, self.size = cells, free, coefficient, len(coordinates)
        self.load = np.bincount(cells.ravel(), (self.weights @ self.values).ravel(), self.size)[free]
        self._pattern()

    def _pattern(self) -> None:
        width, n = self.cells.shape[1], len(self.free)
        number = np.full(self.size, -1, dtype=np.int64)
        number[self.free] = np.arange(n)
        dofs = number[self.cells]
        rows, columns = np.repeat(dofs, width, axis=1).ravel(), np.tile(dofs, width).ravel()
        kept = (rows >= 0) & (columns >= 0)
        keys, inverse = np.unique(rows[kept] * n + columns[kept], return_inverse=True)
        self.positions = np.full(rows.size, len(keys), dtype=np.int32)
        self.positions[kept] = inverse
        self.indptr = np.concatenate(([0], np.cumsum(np.bincount(keys // n, minlength=n)))).astype(np.int32)
        self.indices = (keys % n).astype(np.int32)

    def assemble(self, full: np.ndarray, k: np.ndarray, source: float) -> tuple[np.ndarray, sp.csr_matrix]:
        """The residual (n,) and the matrix at a full field (nodes,) with conductivities k (E,)."""
        count, width = self.cells.shape
        forces, entries = np.empty((count, width)), np.empty((count, width, width))
        for start in range(0, count, CHUNK):
            rows = slice(start, start + CHUNK)
            local, b = full[self.cells[rows]], self.gradients[rows]
            slope = (b @ local[:, None, :, None])[..., 0]  # (e, Q, dim)
            u = local @ self.values.T
            scale = self.weights[rows] * k[rows, None]
            flow = (scale * (1.0 + self.coefficient * u**2))[..., None] * slope
            e, q, dim = slope.shape
            flat = b.reshape(e, q * dim, width)
            forces[rows] = (flow.reshape(e, 1, q * dim) @ flat)[:, 0]
            weighted = (scale * (1.0 + self.coefficient * u**2))[..., None, None] * b
            entries[rows] = flat.swapaxes(1, 2) @ weighted.reshape(e, q * dim, width)
            drift = ((2.0 * self.coefficient * scale * u)[..., None] * slope)[..., None, :] @ b  # (e, Q, 1, A)
            entries[rows] += drift[..., 0, :].swapaxes(1, 2) @ self.values
        residual = np.bincount(self.cells.ravel(), forces.ravel(), self.size)[self.free] - source * self.load
        values = np.bincount(self.positions, entries.ravel(), len(self.indices) + 1)[:-1]
        return residual, sp.csr_matrix((values, self.indices, self.indptr), shape=(len(self.free),) * 2)

    def solve(
        self, start: np.ndarray, k: np.ndarray, source: float, linear: Pardiso, tolerance: float
    ) -> tuple[np.ndarray, sp.csr_matrix, int]:
        """Full Newton steps from a full field until the residual fell by `tolerance`: the state, its matrix, the count."""
        full = start.copy()
        residual, matrix = self.assemble(full, k, source)
        first = float(np.linalg.norm(residual))
        for iteration in range(50):
            if np.linalg.norm(residual) <= tolerance * first:
                return full, matrix, iteration
            linear.factor(matrix)
            full[self.free] -= linear.solve(residual)
            residual, matrix = self.assemble(full, k, source)
        raise RuntimeError("Newton's method did not converge in 50 iterations")

    def gradient(
        self, full: np.ndarray, matrix: sp.csr_matrix, k: np.ndarray, cotangent: np.ndarray, linear: Pardiso
    ) -> np.ndarray:
        """The derivative with respect to ln k (E,) of an objective with derivative `cotangent` (n,) at the solution."""
        linear.factor(matrix)
        state = np.zeros(self.size)
        state[self.free] = -linear.solve(cotangent, transposed=True)
        result = np.empty(len(k))
        for start in range(0, len(k), CHUNK):
            rows = slice(start, start + CHUNK)
            local, b = full[self.cells[rows]], self.gradients[rows]
            slope = (b @ local[:, None, :, None])[..., 0]
            moved = (b @ state[self.cells[rows]][:, None, :, None])[..., 0]
            factor = self.weights[rows] * (1.0 + self.coefficient * (local @ self.values.T) ** 2)
            result[rows] = (factor * (slope * moved).sum(-1)).sum(-1)
        return k * result
