"""Learned steps against ALISTA at a signal-to-noise ratio of 40 dB, for 500 and 1,000 unknowns and 250 data."""

from __future__ import annotations

from functools import partial

import torch

from benchmarks.learned import sparse_recovery
from benchmarks.learned.sparse_recovery import over_seeds, published
from benchmarks.record import Record, at_least, stated
from bilevel.inversion.networks import (
    ALISTA,
    LayerwiseSchedule,
    NeurallyAugmentedALISTA,
    SparseSignals,
    SupportSelection,
    analytic_weight,
)
from bilevel.linalg.linear_map import Matrix

LINE = "a recurrent network predicts step and threshold: gain over ALISTA at n = 500 and 1000, SNR 40 dB, medians over 3 seeds"
DURATION = "25 min on 2 idle cores"

# Each as its authors train it: ALISTA layer by layer, the recurrent network all at once.
LAYERWISE = LayerwiseSchedule(batch=64, alone=20, together=0, final=300, rate=2e-2, matrix_rate=2e-3)
AT_ONCE = LayerwiseSchedule(batch=64, alone=0, together=0, final=400, rate=1e-2, matrix_rate=1e-3, final_scale=1.0)

# Rare, dense signals blow up; both networks train on signals this much denser than they will meet.
DENSER = 1.2


def run(quick: bool) -> list[Record]:
    """At n = 500 the published dictionary with 10 % nonzeros; at n = 1000 one from a seed, with 5 % (50 on average)."""
    layerwise, at_once = LAYERWISE, AT_ONCE
    if quick:
        layerwise, at_once = sparse_recovery.quick(LAYERWISE), sparse_recovery.quick(AT_ONCE)
    data = published()
    records = []
    for n, gain in ((500, 3.0), (1000, 5.0)):
        D = data.D if n == 500 else dictionary(n)
        weight = data.W if n == 500 else analytic_weight(D.entries.double()).float()
        met, signals = SparseSignals(D, 50 / n, snr_db=40.0), SparseSignals(D, DENSER * 50 / n, snr_db=40.0)
        generator = torch.Generator().manual_seed(12345)
        x, y = (data.x, met.measure(data.x, generator)) if n == 500 else met.draw(1000, generator)
        chosen = SupportSelection() if n == 500 else SupportSelection(0.005, 0.06)
        plain, learned = (
            partial(network, D, weight=weight, threshold=0.5, selection=chosen)
            for network in (ALISTA, NeurallyAugmentedALISTA)
        )
        before, seconds = over_seeds(plain, signals, layerwise, x, y)
        after, more = over_seeds(learned, signals, at_once, x, y)
        records += [
            stated(f"ALISTA, support selection, n = {n}", before, "dB", seconds=seconds),
            stated(f"learned steps, n = {n}", after, "dB", seconds=more),
            at_least(f"gain of learned steps, n = {n}", before - after, gain, "dB"),
        ]
    return records


def dictionary(n: int) -> Matrix:
    """250 x n with Gaussian unit columns, from a seed."""
    matrix = torch.randn(250, n, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    return Matrix((matrix / matrix.norm(dim=0)).float())
