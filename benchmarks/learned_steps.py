"""Learned steps against ALISTA at a signal-to-noise ratio of 40 dB, for 500 and 1,000 unknowns and 250 data."""

from __future__ import annotations

import torch

from benchmarks import learned_problem
from benchmarks.learned_problem import over_seeds, published
from benchmarks.record import Record, at_least, stated
from bilevel.learned import ALISTA, LearnedStep, Schedule, SparseSignals, SupportSelection, analytic_weight
from bilevel.linalg.linear_map import Matrix

NAME = "learned-steps"
LINE = "a recurrent network predicts step and threshold: gain over ALISTA at n = 500 and 1000, SNR 40 dB, medians over 3 seeds"
DURATION = "25 min on 2 idle cores"

SCHEDULE = Schedule(batch=64, alone=25, together=0, final=500, rate=2e-2, matrix_rate=2e-3)


def run(quick: bool) -> list[Record]:
    """At n = 500 the published dictionary with 10 % nonzeros; at n = 1000 one from a seed, with 5 % (50 on average)."""
    schedule = learned_problem.quick(SCHEDULE) if quick else SCHEDULE
    data = published()
    records = []
    for n, gain in ((500, 3.0), (1000, 5.0)):
        D = data.D if n == 500 else dictionary(n)
        weight = data.W if n == 500 else analytic_weight(D.entries.double()).float()
        signals = SparseSignals(D, 50 / n, snr_db=40.0)
        generator = torch.Generator().manual_seed(12345)
        x, y = (data.x, signals.measure(data.x, generator)) if n == 500 else signals.draw(1000, generator)
        chosen = SupportSelection() if n == 500 else SupportSelection(0.005, 0.06)
        plain, seconds = over_seeds(
            lambda D=D, w=weight, s=chosen: ALISTA(D, weight=w, threshold=0.5, selection=s), signals, schedule, x, y
        )
        learned, more = over_seeds(
            lambda D=D, w=weight, s=chosen: LearnedStep(D, weight=w, threshold=0.5, selection=s),
            signals,
            schedule,
            x,
            y,
        )
        records += [
            stated(f"ALISTA, support selection, n = {n}", plain, "dB", seconds=seconds),
            stated(f"learned steps, n = {n}", learned, "dB", seconds=more),
            at_least(f"gain of learned steps, n = {n}", plain - learned, gain, "dB"),
        ]
    return records


def dictionary(n: int) -> Matrix:
    """250 x n with Gaussian unit columns, from a seed."""
    matrix = torch.randn(250, n, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    return Matrix((matrix / matrix.norm(dim=0)).float())
