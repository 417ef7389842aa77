"""Task-driven dictionaries: the hypergradient against finite differences, and error rates on handwritten digits."""

from __future__ import annotations

import torch

from benchmarks.record import Record, at_least, at_most, median, stated
from bilevel.inversion.networks import (
    DictionarySchedule,
    ElasticNet,
    SparseClassifier,
    fit_classifier,
    learn_task_driven,
    learn_unsupervised,
    sparse_codes,
)
from bilevel.inversion.networks.dictionary import unit_columns

LINE = "hypergradient of the elastic net; digits by task-driven against unsupervised dictionaries of 20 atoms, 5 seeds"
DURATION = "3 min"

PROBLEM = ElasticNet(l1=0.1, l2=1e-3)


def run(quick: bool) -> list[Record]:
    """Digits ship with scikit-learn; without it the error rates are absent. `quick` runs two seeds for three epochs."""
    records = [hypergradient()]
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        return [*records, stated("digits", None, target="scikit-learn is not installed")]
    digits = load_digits()
    y = torch.tensor(digits.data, dtype=torch.float64)
    y = y - y.mean(1, keepdim=True)
    y, labels = y / y.norm(dim=1, keepdim=True), torch.tensor(digits.target)
    before, after = [], []
    for seed in range(2 if quick else 5):
        order = torch.randperm(len(y), generator=torch.Generator().manual_seed(seed))
        train, test = order[:1200], order[1200:]
        model = SparseClassifier(learn_unsupervised(y[train], 20, PROBLEM, rounds=15, seed=seed), 10, PROBLEM)
        fit_classifier(model, y[train], labels[train])
        before.append(100 * model.error_rate(y[test], labels[test]))
        learn_task_driven(model, y[train], labels[train], DictionarySchedule(epochs=3 if quick else 15, seed=seed))
        after.append(100 * model.error_rate(y[test], labels[test]))
        records += [
            stated(f"unsupervised, seed {seed}", before[-1], "% wrong"),
            stated(f"task-driven, seed {seed}", after[-1], "% wrong"),
        ]
    return [
        *records,
        at_most("task-driven over unsupervised, medians", median(after) / median(before), 0.999),
        at_least("seeds in which task-driven wins", sum(a < b for a, b in zip(after, before)), len(after)),
    ]


def hypergradient() -> Record:
    """Relative difference from a central difference along a random direction, away from kinks."""
    torch.manual_seed(0)
    D = unit_columns(torch.randn(64, 30, dtype=torch.float64)).requires_grad_()
    y, goal, e = (torch.randn(*s, dtype=torch.float64) for s in ((20, 64), (20, 30), (64, 30)))
    y = y / y.norm(dim=1, keepdim=True)

    def loss(dictionary: torch.Tensor) -> torch.Tensor:
        return (goal * sparse_codes(y, dictionary, PROBLEM).values).sum()

    found = float((torch.autograd.grad(loss(D), D)[0] * e).sum())
    with torch.no_grad():
        expected = float(loss(D + 1e-6 * e) - loss(D - 1e-6 * e)) / 2e-6
    return at_most("hypergradient against finite differences", abs(found - expected) / abs(expected), 1e-6)
