"""Sparse recovery: ISTA, FISTA and ALISTA with support selection on a random dictionary; weights saved with what made them.

    python examples/sparse_recovery/sparse_recovery.py [--folder results]

Interrupt it and start it again: training resumes from its last checkpoint.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from bilevel.composite import FISTA, ISTA, L1, Composite, LeastSquares
from bilevel.inversion.networks import (
    ALISTA,
    LayerwiseSchedule,
    SparseSignals,
    SupportSelection,
    certify_network,
    load_weights,
    nmse_db,
    save_weights,
    train,
)
from bilevel.linalg.linear_map import Matrix


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("results/sparse_recovery"))
    folder = parser.parse_args().folder

    matrix = torch.randn(125, 250, generator=torch.Generator().manual_seed(0))
    operator = Matrix(matrix / matrix.norm(dim=0))
    signals = SparseSignals(operator, density=0.1)
    x, y = signals.draw(500, torch.Generator().manual_seed(99))

    problem = Composite(LeastSquares(operator, y), L1(), 0.1)
    for solver in (ISTA(), FISTA()):
        for k, step in enumerate(solver.iterates(problem, torch.zeros_like(x)), 1):
            if k in (16, 200):
                print(f"{type(solver).__name__:6} after {k:3} iterations: {nmse_db(step.x, x):7.2f} dB")
            if k == 200:
                break

    network = ALISTA(operator, depth=16, threshold=0.5, selection=SupportSelection())
    schedule = LayerwiseSchedule(batch=64, alone=30, together=10, final=300, rate=2e-2, seed=0)
    train(network, signals, schedule, checkpoint=folder / "checkpoint.pt", progress=True)
    print(f"ALISTA, 16 layers:           {nmse_db(network(y), x):7.2f} dB")
    print(certify_network(network, y[:50]).verdict)

    save_weights(network, folder / "alista.pt", schedule)
    again = ALISTA(operator, depth=16, selection=SupportSelection())
    made_by = load_weights(again, folder / "alista.pt")
    print(f"weights written by: {made_by.command}, seed {made_by.schedule['seed']}, torch {made_by.versions['torch']}")


if __name__ == "__main__":
    main()
