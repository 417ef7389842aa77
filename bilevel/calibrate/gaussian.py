"""Roots of covariances: errors that resemble each other, turned into independent ones of variance one."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

from bilevel.report import InputError, require

SINGULAR = 1e-13
"""A variance along some direction below this share of the largest, in units of the standard deviations, is none."""


def whitening_root(covariance: np.ndarray, what: str) -> np.ndarray:
    """R (n, n) with R C R^T = 1 of a covariance C (n, n): the root nearest to 1 / standard deviations.

    Each row of R has thus most to do with its own entry. InputError that begins with `what` where C is no covariance.
    """
    c = np.ascontiguousarray(covariance, dtype=float)
    return _root_of(_Matrix(hashlib.sha256(c.tobytes()).digest(), c), what)


@dataclass(frozen=True)
class _Matrix:
    """A matrix that is known again, since tables of observations are copied often and their covariances are not changed."""

    digest: bytes
    entries: np.ndarray = field(compare=False)


@lru_cache(maxsize=8)
def _root_of(matrix: _Matrix, what: str) -> np.ndarray:
    c = matrix.entries
    require(c.ndim == 2 and c.shape[0] == c.shape[1], f"{what}: a covariance is square, not of shape {c.shape}")
    if not np.isfinite(c).all():
        raise InputError(f"{what}: a covariance is finite; entry {_place(~np.isfinite(c))} is not")
    variance = np.diag(c)
    if not (variance > 0).all():
        raise InputError(f"{what}: variance {int(np.argmin(variance)) + 1} is {variance.min():g}, not positive")
    std = np.sqrt(variance)
    correlation = c / np.outer(std, std)
    if np.abs(correlation - correlation.T).max() > 1e-8:
        raise InputError(f"{what}: a covariance is symmetric; entry {_place(correlation - correlation.T)} is not")
    values, vectors = np.linalg.eigh((correlation + correlation.T) / 2)
    if values[0] <= SINGULAR * values[-1]:
        along = np.argsort(-np.abs(vectors[:, 0]))[:2] + 1
        raise InputError(
            f"{what}: it is not positive definite: along a direction, most of it entries {along[0]} and {along[-1]}, "
            f"the variance is {values[0]:.1e}; leave out what follows from the others, or give it a variance of its own"
        )
    return (vectors / np.sqrt(values)) @ vectors.T / std


def _place(matrix: np.ndarray) -> str:
    i, j = np.unravel_index(int(np.argmax(np.abs(matrix))), matrix.shape)
    return f"({i + 1}, {j + 1})"
