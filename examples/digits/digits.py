"""Handwritten digits by sparse codes: a dictionary learned from pictures alone, and one learned for the task.

python examples/digits/digits.py        (needs scikit-learn, which ships the digits)
"""

from __future__ import annotations

from pathlib import Path

import torch
from sklearn.datasets import load_digits

from bilevel.inversion.networks import (
    DictionarySchedule,
    ElasticNet,
    SparseClassifier,
    fit_classifier,
    learn_task_driven,
    learn_unsupervised,
    sparse_codes,
)


def main() -> None:
    torch.set_default_dtype(torch.float64)
    digits = load_digits()
    y = torch.tensor(digits.data)
    y = y - y.mean(1, keepdim=True)
    y, labels = y / y.norm(dim=1, keepdim=True), torch.tensor(digits.target)
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(0))
    train, test = order[:1200], order[1200:]

    problem = ElasticNet(l1=0.1, l2=1e-3)
    dictionary = learn_unsupervised(y[train], 20, problem, rounds=15, progress=True)
    model = SparseClassifier(dictionary, 10, problem)
    fit_classifier(model, y[train], labels[train])
    print(f"unsupervised dictionary, 20 atoms: {100 * model.error_rate(y[test], labels[test]):.1f} % wrong")
    learn_task_driven(model, y[train], labels[train], DictionarySchedule(epochs=15), progress=True)
    print(f"task-driven dictionary, 20 atoms:  {100 * model.error_rate(y[test], labels[test]):.1f} % wrong")
    print(sparse_codes(y[test], model.dictionary.detach(), problem).sentence)
    draw(dictionary, model.dictionary.detach())


def draw(before: torch.Tensor, after: torch.Tensor) -> None:
    """Both dictionaries, atom by atom, beside this file."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 20, figsize=(20, 2.2))
    for row, dictionary in zip(axes, (before, after)):
        for axis, atom in zip(row, dictionary.mT):
            axis.imshow(atom.reshape(8, 8), cmap="RdBu", vmin=-0.5, vmax=0.5)
            axis.axis("off")
    figure.savefig(Path(__file__).with_name("digits.png"), dpi=60, bbox_inches="tight")


if __name__ == "__main__":
    main()
