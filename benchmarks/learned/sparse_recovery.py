"""The sparse recovery problem that the learned-scheme benchmarks share: the published dictionary, weights and test signals."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from benchmarks.record import Record, at_most, median
from benchmarks.shared_data import shared_data
from bilevel.inversion.networks import LayerwiseSchedule, SparseSignals, nmse_db, train
from bilevel.inversion.networks.network import UnrolledNetwork
from bilevel.linalg.linear_map import Matrix
from bilevel.report import ConvergenceError

SEEDS = (0, 1, 2)
Make = Callable[[], UnrolledNetwork]


@dataclass
class SparseRecovery:
    """Dictionary D (250, 500), weight W, and 1,000 test signals with their noiseless data, in single precision."""

    D: Matrix
    W: Tensor
    x: Tensor
    y: Tensor


def published(dtype: torch.dtype = torch.float32) -> SparseRecovery:
    """The files of the ALISTA publication; networks are trained in single precision, which their errors stay far above."""
    from scipy.io import loadmat

    folder = shared_data() / "sparse_recovery"
    D = Matrix(torch.tensor(loadmat(folder / "D.mat")["D"], dtype=dtype))
    W = torch.tensor(np.load(folder / "W.npy"), dtype=dtype)
    x = torch.tensor(np.load(folder / "xtest.npy"), dtype=dtype).T.contiguous()
    return SparseRecovery(D, W, x, D(x))


def trained(
    make: Make, signals: SparseSignals, schedule: LayerwiseSchedule, x: Tensor, y: Tensor
) -> tuple[float, float]:
    """NMSE in dB on (x, y) after training a fresh network, and the seconds of training; NaN where the network is unstable."""
    torch.manual_seed(schedule.seed)
    network = make()
    start = time.perf_counter()
    train(network, signals, schedule, progress=True)
    seconds = time.perf_counter() - start
    try:
        with torch.no_grad():
            value = nmse_db(network(y), x)
    except ConvergenceError as error:
        print(error, file=sys.stderr)
        value = math.nan
    print(f"{type(network).__name__}, seed {schedule.seed}: {value:.2f} dB after {seconds:.0f} s", file=sys.stderr)
    return value, seconds


def over_seeds(
    make: Make, signals: SparseSignals, schedule: LayerwiseSchedule, x: Tensor, y: Tensor
) -> tuple[float, float]:
    """Medians of NMSE and seconds over SEEDS."""
    runs = [trained(make, signals, replace(schedule, seed=seed), x, y) for seed in SEEDS]
    return median([r[0] for r in runs]), median([r[1] for r in runs])


def quick(schedule: LayerwiseSchedule) -> LayerwiseSchedule:
    """The same schedule at a fiftieth of its length."""
    return replace(
        schedule,
        batch=16,
        alone=min(schedule.alone, 2),
        together=min(schedule.together, 1),
        final=min(schedule.final, 10),
    )


def row(
    name: str, make: Make, signals: SparseSignals, schedule: LayerwiseSchedule, problem: SparseRecovery, limit: float
) -> Record:
    """One table row: the median error against its limit, and the median seconds of training."""
    value, seconds = over_seeds(make, signals, schedule, problem.x, problem.y)
    return at_most(f"{name}, trained in {seconds:.0f} s", value, limit, "dB", seconds)
