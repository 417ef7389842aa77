"""Random fields over points: smooth ones by random Fourier modes, and rough ones."""

from __future__ import annotations

import numpy as np

MODES = 64


def smooth(points: np.ndarray, length: float, rng: np.random.Generator) -> np.ndarray:
    """A field (N,) of mean 0 and variance 1 with Gaussian correlation exp(-r^2 / (2 length^2)) at points (N, dim)."""
    waves = rng.normal(size=(MODES, points.shape[1])) / length
    phases = rng.uniform(0.0, 2.0 * np.pi, MODES)
    return np.sqrt(2.0 / MODES) * np.cos(points @ waves.T + phases).sum(1)


def log_normal(points: np.ndarray, length: float, deviation: float, rng: np.random.Generator) -> np.ndarray:
    """exp of a field (N,) with standard deviation `deviation`; nine tenths of its variance are smooth, the rest rough."""
    field = np.sqrt(0.9) * smooth(points, length, rng) + np.sqrt(0.1) * rng.normal(size=len(points))
    return np.exp(deviation * field)
