"""Factorisations give their memory back."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from linear_systems import poisson

from bilevel.linalg import LinearSolver, PardisoCholesky, PardisoLDL, PardisoLU, Sparse, Structure, SuperLU
from bilevel.linalg.direct import pardiso_library

needs_pardiso = pytest.mark.skipif(pardiso_library.library() is None, reason="no MKL PARDISO on this platform")


def resident() -> float:
    """Resident memory of this process in MiB."""
    status = Path("/proc/self/status")
    if not status.exists():
        pytest.skip("resident memory is read from /proc, which this platform lacks")
    gc.collect()
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024.0


def grown(work: Callable[[], None], times: int) -> float:
    """MiB by which the process grows while working; the heap is left to find its size first."""
    for _ in range(60):
        work()
    before = resident()
    for _ in range(times):
        work()
    return resident() - before


@pytest.mark.parametrize(
    "method",
    [*(pytest.param(m, marks=needs_pardiso) for m in (PardisoCholesky(), PardisoLDL(), PardisoLU())), SuperLU()],
)
def test_two_hundred_factorisations_of_one_pattern(method: LinearSolver) -> None:
    """Each factor takes about 1 MiB; what is not given back would take 200."""
    A = poisson(50, 2).with_structure(Structure(symmetric=not isinstance(method, PardisoLU)))
    b = torch.ones(2, A.n)
    kept = []

    def work() -> None:
        kept.append(method.factor(Sparse(A.pattern, 1.5 * A.values, A.structure)))
        kept[-1].solve(b)
        del kept[:-1]

    assert grown(work, 200) < 16.0


@needs_pardiso
def test_patterns_take_their_analyses_with_them() -> None:
    """Two analyses and factors a time take about 3 MiB; what is not given back would take 300."""

    def work() -> None:
        A = poisson(50, 2)
        PardisoCholesky().factor(A).solve(torch.ones(A.n))
        PardisoLU().factor(A).solve(torch.ones(A.n))

    assert grown(work, 100) < 24.0
