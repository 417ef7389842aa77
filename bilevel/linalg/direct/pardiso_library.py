"""Intel MKL PARDISO by its C interface: one symbolic analysis per pattern, up to SLOTS numerical factors alive on it.

The library comes with pypardiso, whose own solver object keeps a single factor and compares matrices on every call.
Parameters are those of the oneMKL reference, "pardiso iparm Parameter", numbered from one there, from zero here.
"""

from __future__ import annotations

import ctypes
import math
import os
import sys
import threading
import weakref
from enum import IntEnum
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import numpy as np

from bilevel.report import BilevelError

SLOTS = 16
NOT_POSITIVE_DEFINITE = -4
ZERO_PIVOT = -7
MEMORY = (-2, -8, -9)


LOCK = threading.RLock()
"""Held around every call: factorisations in two threads at once, of one pattern or of two, end in a segmentation fault."""


class MatrixType(IntEnum):
    """PARDISO's `mtype`."""

    POSITIVE_DEFINITE = 2
    SYMMETRIC = -2
    UNSYMMETRIC = 11


class Phase(IntEnum):
    """PARDISO's `phase`."""

    ANALYSE = 11
    FACTOR = 22
    SOLVE = 33
    FREE_FACTOR = 0
    FREE_ALL = -1


@lru_cache(maxsize=1)
def library() -> ctypes.CDLL | None:
    """The MKL runtime, or None where the platform has none; $PYPARDISO_MKL_RT overrides where it is looked for."""
    named = os.environ.get("PYPARDISO_MKL_RT")
    for path in [named] if named else _candidates():
        try:
            mkl = ctypes.CDLL(path)
        except OSError:
            continue
        if hasattr(mkl, "pardiso"):
            return mkl
    return None


def _candidates() -> list[str]:
    """Where pip (also for an environment on top of another) and conda put the MKL runtime that pypardiso depends on."""
    try:
        recorded = distribution("mkl").files or []
    except PackageNotFoundError:
        recorded = []
    paths = [Path(str(file.locate())) for file in recorded if file.name.startswith(("libmkl_rt", "mkl_rt"))]
    for pattern in ("lib/libmkl_rt*.so*", "lib/libmkl_rt*.dylib", "Library/bin/mkl_rt*.dll"):
        paths += sorted(Path(sys.prefix).glob(pattern))
    return [str(path) for path in paths]


class Analysis:
    """The symbolic analysis of one pattern (rows compressed, from zero; upper triangle for symmetric types).

    matching: scale and permute by the values given (maximum weight matching), for matrices with poor diagonals; such an
    analysis suits these values only.
    """

    def __init__(
        self, kind: MatrixType, indptr: np.ndarray, indices: np.ndarray, values: np.ndarray, matching: bool = False
    ) -> None:
        self.kind, self.n, self.indptr, self.indices = kind, len(indptr) - 1, indptr, indices
        self.handle = np.zeros(64, dtype=np.int64)
        self.iparm = _parameters(kind, matching)
        self.free_slots = list(range(SLOTS, 0, -1))
        self._raise(self._call(Phase.ANALYSE, 1, values))
        self._end = weakref.finalize(
            self, _run, Phase.FREE_ALL, 1, kind, self.handle, self.iparm, np.empty(0), indptr, indices
        )
        self._end.atexit = False

    def take_slot(self) -> int | None:
        """A place for one more numerical factorisation, or None where all are taken."""
        with LOCK:
            return self.free_slots.pop() if self.free_slots else None

    def factor(self, values: np.ndarray, slot: int) -> NumericFactor | None:
        """Factorise values on the pattern; None if they are not positive definite, or have a zero pivot."""
        with LOCK:
            error = self._call(Phase.FACTOR, slot, values)
            if error == 0:
                return NumericFactor(self, slot, values)
            self._release(slot)
        if error not in (NOT_POSITIVE_DEFINITE, ZERO_PIVOT):
            self._raise(error)
        return None

    def _release(self, slot: int) -> None:
        with LOCK:
            self._call(Phase.FREE_FACTOR, slot, np.empty(0))
            self.free_slots.append(slot)

    def _call(
        self, phase: Phase, slot: int, values: np.ndarray, b: np.ndarray | None = None, x: np.ndarray | None = None
    ) -> int:
        return _run(phase, slot, self.kind, self.handle, self.iparm, values, self.indptr, self.indices, b, x)

    def _raise(self, error: int) -> None:
        if error in MEMORY:
            raise BilevelError(f"PARDISO ran out of memory for {self.n} unknowns; use AMGCG, CG, or a smaller mesh")
        if error:
            raise BilevelError(f"PARDISO failed with error {error} on a matrix of {self.n} unknowns")


class NumericFactor:
    """One numerical factorisation in a slot of its analysis; the slot and its memory are given back with the object."""

    def __init__(self, analysis: Analysis, slot: int, values: np.ndarray) -> None:
        self.analysis, self.slot, self.values = analysis, slot, values
        self.perturbed_pivots = int(analysis.iparm[13])
        self.negative_eigenvalues = int(analysis.iparm[22])
        # Looked up at once, with the lock of the factorisation still held: after another thread's factorisation
        # pardiso_getdiag ends in a segmentation fault.
        self.smallest_pivot = self._smallest_pivot() if analysis.kind is MatrixType.POSITIVE_DEFINITE else math.nan
        self._end = weakref.finalize(self, analysis._release, slot)
        self._end.atexit = False

    def solve(self, b: np.ndarray, transposed: bool = False) -> np.ndarray:
        """Solutions (m, n) of right-hand sides (m, n), all in one call."""
        b = np.ascontiguousarray(b, dtype=np.float64)
        x = np.empty_like(b)
        with LOCK:
            self.analysis.iparm[11] = 2 if transposed else 0
            self.analysis._raise(self.analysis._call(Phase.SOLVE, self.slot, self.values, b, x))
        return x

    def _smallest_pivot(self) -> float:
        """The smallest pivot relative to its diagonal entry (positive definite matrices)."""
        pivots, entries = np.empty(self.analysis.n), np.empty(self.analysis.n)
        error = ctypes.c_int32(0)
        mkl = library()
        assert mkl is not None
        mkl.pardiso_getdiag(
            _pointer(self.analysis.handle),
            _pointer(pivots),
            _pointer(entries),
            ctypes.byref(ctypes.c_int32(self.slot)),
            ctypes.byref(error),
        )
        self.analysis._raise(error.value)
        return float((pivots / entries).min())


def _parameters(kind: MatrixType, matching: bool) -> np.ndarray:
    iparm = np.zeros(64, dtype=np.int32)
    iparm[0] = 1  # no defaults
    iparm[1] = 2  # nested dissection
    iparm[7] = 0  # iterative refinement only after perturbed pivots
    iparm[9] = 8 if matching and kind is MatrixType.SYMMETRIC else 13  # perturb pivots below 1e-8 or 1e-13
    iparm[10] = iparm[12] = int(matching)
    iparm[20] = 1  # 1x1 and 2x2 pivots
    # Two-level factorisation: 10-25 % less time for Cholesky and LU of meshes with 1e5 unknowns on one or two cores.
    iparm[23] = int(kind is not MatrixType.SYMMETRIC and not matching)
    iparm[34] = 1  # count from zero
    iparm[55] = int(kind is MatrixType.POSITIVE_DEFINITE)  # keep the pivots for pardiso_getdiag
    return iparm


def _pointer(array: np.ndarray) -> ctypes.c_void_p:
    return array.ctypes.data_as(ctypes.c_void_p)


def _integer(value: int) -> object:
    return ctypes.byref(ctypes.c_int32(value))


def _run(
    phase: Phase,
    slot: int,
    kind: MatrixType,
    handle: np.ndarray,
    iparm: np.ndarray,
    values: np.ndarray,
    indptr: np.ndarray,
    indices: np.ndarray,
    b: np.ndarray | None = None,
    x: np.ndarray | None = None,
) -> int:
    """Call PARDISO and return its error code."""
    mkl = library()
    assert mkl is not None
    none = np.zeros(1)
    permutation = np.zeros(1, dtype=np.int32)
    error = ctypes.c_int32(0)
    LOCK.acquire()  # not `with`: finalizers run this while the interpreter shuts down
    mkl.pardiso(
        _pointer(handle),
        _integer(SLOTS),
        _integer(slot),
        _integer(kind),
        _integer(phase),
        _integer(len(indptr) - 1),
        _pointer(values),
        _pointer(indptr),
        _pointer(indices),
        _pointer(permutation),
        _integer(1 if b is None else len(b)),
        _pointer(iparm),
        _integer(0),
        _pointer(none if b is None else b),
        _pointer(none if x is None else x),
        ctypes.byref(error),
    )
    LOCK.release()
    return error.value
