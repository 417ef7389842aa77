"""The LISTA family on the published sparse recovery files: medians over three seeds, training times printed."""

from __future__ import annotations

import sys
import time

import torch

from benchmarks.learned import sparse_recovery
from benchmarks.learned.sparse_recovery import SEEDS, Make, SparseRecovery, published, row
from benchmarks.record import Record, at_most, median
from bilevel.inversion.networks import (
    ALISTA,
    LISTA,
    LISTACP,
    HyperLISTA,
    LayerwiseSchedule,
    SparseSignals,
    StepThresholdISTA,
    SupportSelection,
    nmse_db,
    tune,
)

LINE = "step-and-threshold ISTA, LISTA, LISTA-CP, ALISTA, HyperLISTA: NMSE at 16 layers, medians over 3 seeds"
DURATION = "40 min on 2 idle cores"

LAYERWISE = LayerwiseSchedule(batch=128, alone=40, together=15, final=300, rate=2e-2, matrix_rate=5e-4)
SCALARS = LayerwiseSchedule(batch=64, alone=0, together=0, final=1300, rate=5e-2, final_scale=1.0, clip=5.0)
MATRIX = LayerwiseSchedule(batch=64, alone=15, together=0, final=400, rate=2e-2, final_scale=1.0, matrix_rate=5e-4)

# Learned steps grow until a rare, dense signal blows up; training on denser signals than it will meet keeps a network away.
DENSER = 0.12


def run(quick: bool) -> list[Record]:
    """All rows; `quick` trains so little that no target can be met."""
    data = published()
    signals, denser = SparseSignals(data.D), SparseSignals(data.D, DENSER)
    chosen = SupportSelection()
    scalars, matrix, layerwise = SCALARS, MATRIX, LAYERWISE
    if quick:
        scalars, matrix, layerwise = (sparse_recovery.quick(s) for s in (SCALARS, MATRIX, LAYERWISE))

    def learned(
        name: str, make: Make, schedule: LayerwiseSchedule, limit: float, signals: SparseSignals = signals
    ) -> Record:
        return row(name, make, signals, schedule, data, limit)

    return [
        learned(
            "step-and-threshold ISTA, 32 scalars",
            lambda: StepThresholdISTA(data.D, threshold=3.0, step=0.6, fall=0.1),
            scalars,
            -23,
            denser,
        ),
        learned("LISTA, tied", lambda: LISTA(data.D, threshold=0.4, weight=data.W), matrix, -20),
        learned(
            "LISTA-CP, support selection",
            lambda: LISTACP(data.D, threshold=2.0, selection=chosen, weight=data.W),
            layerwise,
            -52,
        ),
        learned("ALISTA", lambda: ALISTA(data.D, weight=data.W, threshold=0.5, fall=0.03), scalars, -31, denser),
        learned(
            "ALISTA, support selection",
            lambda: ALISTA(data.D, weight=data.W, threshold=0.5, selection=chosen),
            layerwise,
            -56,
        ),
        hyperlista(data, signals, quick),
    ]


def hyperlista(data: SparseRecovery, signals: SparseSignals, quick: bool) -> Record:
    """Three scalars, found by a simplex search on fresh signals of each seed."""
    values, seconds = [], []
    for seed in SEEDS:
        begun = time.perf_counter()
        network = HyperLISTA(data.D, constants=(0.1, 0.01, 5.0))
        few, many = (50, 100) if quick else (400, 2000)
        tune(network, *signals.draw(few, torch.Generator().manual_seed(seed)), evaluations=10 if quick else 80)
        tune(network, *signals.draw(many, torch.Generator().manual_seed(1000 + seed)), evaluations=5 if quick else 50)
        seconds.append(time.perf_counter() - begun)
        with torch.no_grad():
            values.append(nmse_db(network(data.y), data.x))
        print(f"HyperLISTA, seed {seed}: {values[-1]:.2f} dB after {seconds[-1]:.0f} s", file=sys.stderr)
    return at_most(f"HyperLISTA, tuned in {median(seconds):.0f} s", median(values), -61, "dB", median(seconds))
