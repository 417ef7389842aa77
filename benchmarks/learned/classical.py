"""ISTA and FISTA on the published sparse recovery files: deterministic figures."""

from __future__ import annotations

import torch

from benchmarks.learned.sparse_recovery import published
from benchmarks.record import Record, near
from bilevel.composite import FISTA, ISTA, L1, Composite, LeastSquares
from bilevel.inversion.networks import nmse_db

LINE = "ISTA and FISTA, lambda 0.1, on the published dictionary after 8/16/100/1000 iterations"
DURATION = "1 min"

TARGETS = {
    "ISTA": {8: -3.70, 16: -5.27, 100: -15.22, 1000: -16.80},
    "FISTA": {8: -4.93, 16: -10.08, 100: -16.80, 1000: -16.80},
}


def run(quick: bool) -> list[Record]:
    """NMSE in dB on the 1,000 published signals; `quick` stops after 100 iterations."""
    data = published(torch.float64)
    problem = Composite(LeastSquares(data.D, data.y), L1(), 0.1)
    last = 100 if quick else 1000
    records = []
    for solver in (ISTA(), FISTA()):
        name = type(solver).__name__
        for k, step in enumerate(solver.iterates(problem, torch.zeros_like(data.x)), 1):
            if k in TARGETS[name]:
                records.append(near(f"{name} after {k}", nmse_db(step.x, data.x), TARGETS[name][k], 0.05, "dB"))
            if k == last:
                break
    return records
