"""Group LISTA against the same network entry by entry, on signals with 50 groups of 10."""

from __future__ import annotations

from functools import partial

import torch

from benchmarks.learned import sparse_recovery
from benchmarks.learned.sparse_recovery import over_seeds, published
from benchmarks.record import Record, at_least, at_most, stated
from bilevel.inversion.networks import ALISTA, GroupLISTA, LayerwiseSchedule, SparseSignals

LINE = "group LISTA, 50 groups of 10 with 10 % active: gain over the element-wise network, medians over 3 seeds"
DURATION = "15 min on 2 idle cores"

SCHEDULE = LayerwiseSchedule(batch=64, alone=15, together=0, final=300, rate=2e-2, matrix_rate=2e-3)


def run(quick: bool) -> list[Record]:
    """Both networks have the same schedule, weight and start."""
    schedule = sparse_recovery.quick(SCHEDULE) if quick else SCHEDULE
    data = published()
    signals = SparseSignals(data.D, 0.1, group=10)
    x, y = signals.draw(1000, torch.Generator().manual_seed(12345))
    errors = {}
    for size in (1, 10):
        errors[size], _ = over_seeds(
            partial(GroupLISTA, data.D, size, weight=data.W, threshold=0.5), signals, schedule, x, y
        )
    alike, plain = GroupLISTA(data.D, 1, weight=data.W, threshold=0.2), ALISTA(data.D, weight=data.W, threshold=0.2)
    with torch.no_grad():
        difference = float((alike(y) - plain(y)).norm() / plain(y).norm())
    return [
        stated("element-wise network", errors[1], "dB"),
        stated("group network", errors[10], "dB"),
        at_least("gain of groups", errors[1] - errors[10], 3.0, "dB"),
        at_most("groups of 1 against ALISTA, relative difference", difference, 1e-6),
    ]
