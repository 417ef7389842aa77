"""The plain reference of `graph.py`: damped Newton and gradient of power-law flow on a graph, NumPy and pypardiso."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from benchmarks.references.plain_darcy import Pardiso


class PlainNetwork:
    """Heads h (nodes,) that minimise sum of c/p ((d^2 + e^2)^(p/2) - e^p) - inflow . h, with d the drops along edges."""

    def __init__(self, nodes: int, edges: np.ndarray, free: np.ndarray, exponent: float, threshold: float) -> None:
        self.tail, self.head = edges.T
        self.nodes, self.free, self.exponent, self.threshold = nodes, free, exponent, threshold
        number = np.full(nodes, -1, dtype=np.int64)
        number[free] = np.arange(len(free))
        first, second = np.sort(number[edges], axis=1).T
        self._pattern(first, second, len(free))

    def _pattern(self, first: np.ndarray, second: np.ndarray, n: int) -> None:
        """The upper triangle: the diagonal, and each edge between two free nodes."""
        inner = first >= 0
        unknowns = np.arange(n)
        keys, place = np.unique(
            np.concatenate([unknowns * n + unknowns, first[inner] * n + second[inner]]), return_inverse=True
        )
        self.diagonal = place[:n]
        self.positions = np.full(len(first), len(keys))
        self.positions[inner] = place[n:]
        self.indptr = np.concatenate(([0], np.cumsum(np.bincount(keys // n, minlength=n)))).astype(np.int32)
        self.indices = (keys % n).astype(np.int32)

    def energy_and_residual(self, h: np.ndarray, c: np.ndarray, inflow: np.ndarray) -> tuple[float, np.ndarray]:
        drop = h[self.tail] - h[self.head]
        squared = drop**2 + self.threshold**2
        power = squared ** (self.exponent / 2.0)
        energy = (c * (power - self.threshold**self.exponent)).sum() / self.exponent - inflow @ h
        flux = c * drop * power / squared
        residual = np.bincount(self.tail, flux, self.nodes) - np.bincount(self.head, flux, self.nodes) - inflow
        return float(energy), residual[self.free]

    def matrix(self, h: np.ndarray, c: np.ndarray) -> sp.csr_matrix:
        """The upper triangle of the tangent."""
        squared = (h[self.tail] - h[self.head]) ** 2
        p, e2 = self.exponent, self.threshold**2
        slope = c * ((p - 1.0) * squared + e2) * (squared + e2) ** (p / 2.0 - 2.0)
        values = np.bincount(self.positions, -slope, len(self.indices) + 1)[:-1]
        sums = np.bincount(self.tail, slope, self.nodes) + np.bincount(self.head, slope, self.nodes)
        values[self.diagonal] += sums[self.free]
        return sp.csr_matrix((values, self.indices, self.indptr), shape=(len(self.free),) * 2)

    def solve(
        self, start: np.ndarray, c: np.ndarray, inflow: np.ndarray, linear: Pardiso, tolerance: float
    ) -> tuple[np.ndarray, int]:
        """Newton with halved steps until the residual fell by `tolerance`: heads and iterations."""
        h = start.copy()
        energy, residual = self.energy_and_residual(h, c, inflow)
        first = float(np.linalg.norm(residual))
        for iteration in range(200):
            if np.linalg.norm(residual) <= tolerance * first:
                return h, iteration
            linear.factor(self.matrix(h, c))
            step = np.zeros_like(h)
            step[self.free] = -linear.solve(residual)
            slope, length = float(residual @ step[self.free]), 1.0
            while length > 1e-10:
                trial, trial_residual = self.energy_and_residual(h + length * step, c, inflow)
                flat = abs(trial - energy) <= 1e-13 * abs(energy)
                if trial <= energy + 1e-4 * length * slope or (
                    flat and np.linalg.norm(trial_residual) < np.linalg.norm(residual)
                ):
                    break
                length *= 0.5
            h, energy, residual = h + length * step, trial, trial_residual
        raise RuntimeError("Newton's method did not converge in 200 iterations")

    def gradient(self, h: np.ndarray, c: np.ndarray, cotangent: np.ndarray, linear: Pardiso) -> np.ndarray:
        """The derivative with respect to ln c (E,) of an objective with derivative `cotangent` (n,) at the solution."""
        linear.factor(self.matrix(h, c))
        state = np.zeros(self.nodes)
        state[self.free] = -linear.solve(cotangent)
        drop = h[self.tail] - h[self.head]
        flux = c * drop * (drop**2 + self.threshold**2) ** (self.exponent / 2.0 - 1.0)
        return flux * (state[self.tail] - state[self.head])
