"""Closed forms of the drawdown around a pumped well, against which the numerical flow models are tested.

Any consistent units; lengths in m, times in d, discharge in m3/d, transmissivity in m2/d throughout the project.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import exp1

Array = NDArray[np.float64]


def theis_well_function(u: ArrayLike) -> Array:
    """W(u) = integral from u to infinity of exp(-y)/y dy, the exponential integral (Theis 1935)."""
    return np.asarray(exp1(np.asarray(u, float)))


def hantush_well_function(u: ArrayLike, beta: ArrayLike, nodes: int = 120) -> Array:
    """W(u, beta) = integral from u to infinity of exp(-y - beta^2/(4 y))/y dy (Hantush and Jacob 1955), u > 0.

    Gauss-Legendre quadrature in ln y up to y = 50; relative error below 1e-10 for u > 1e-12.
    """
    u, beta = np.broadcast_arrays(np.asarray(u, float), np.asarray(beta, float))
    points, weights = np.polynomial.legendre.leggauss(nodes)
    # Below y = beta^2/200 the integrand is smaller than exp(-50).
    low = np.log(np.minimum(np.maximum(u, beta**2 / 200.0), 50.0))
    half = 0.5 * (np.log(50.0) - low)
    y = np.exp(low[..., None] + half[..., None] * (points + 1.0))
    return np.asarray(half * (np.exp(-y - beta[..., None] ** 2 / (4.0 * y)) @ weights))


def theis(time: ArrayLike, radius: ArrayLike, transmissivity: float, storativity: float, discharge: float) -> Array:
    """Drawdown [m] in an infinite confined aquifer at `time` [d] since pumping began and `radius` [m] (Theis 1935)."""
    u = np.square(radius) * storativity / (4.0 * transmissivity * np.asarray(time, float))
    return discharge / (4.0 * np.pi * transmissivity) * theis_well_function(u)


def hantush(
    time: ArrayLike, radius: ArrayLike, transmissivity: float, storativity: float, resistance: float, discharge: float
) -> Array:
    """Drawdown [m] in an infinite leaky aquifer below an aquitard of `resistance` [d] (Hantush and Jacob 1955)."""
    u = np.square(radius) * storativity / (4.0 * transmissivity * np.asarray(time, float))
    beta = np.asarray(radius, float) / np.sqrt(transmissivity * resistance)
    return discharge / (4.0 * np.pi * transmissivity) * hantush_well_function(u, beta)


def superpose(drawdown: Callable[[Array], Array], time: ArrayLike, changes: Sequence[tuple[float, float]]) -> Array:
    """The drawdown under a discharge that changes in steps; `drawdown(t)` is that of a unit discharge since t = 0.

    changes: pairs (start time, new discharge) in order.
    """
    time = np.asarray(time, float)
    total = np.zeros_like(time)
    before = 0.0
    for start, rate in changes:
        since = time - start
        on = since > 0.0
        total[on] += (rate - before) * drawdown(np.where(on, since, 1.0))[on]
        before = rate
    return total
