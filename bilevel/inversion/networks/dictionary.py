"""Dictionaries learned from data alone, and for a task: the outer loss differentiated through the inner elastic net.

Sources: Olshausen & Field 1997 (unsupervised); Mairal, Bach, Ponce 2012 (task-driven dictionary learning).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from bilevel.inversion.networks.sparse_coding import ElasticNet, sparse_codes
from bilevel.report import InputError


@dataclass(frozen=True)
class DictionarySchedule:
    """Passes over the data in shuffled batches at a rate that falls to zero along a cosine; decay penalises the classifier."""

    epochs: int = 20
    batch: int = 100
    rate: float = 1e-2
    decay: float = 1e-4
    seed: int = 0


@dataclass
class TaskHistory:
    """Losses by epoch, and how many codes were near a kink in each."""

    losses: list[float] = field(default_factory=list)
    near_kinks: list[int] = field(default_factory=list)


def unit_columns(dictionary: Tensor) -> Tensor:
    """The dictionary with columns scaled to norm one."""
    return dictionary / dictionary.norm(dim=0).clamp_min(torch.finfo(dictionary.dtype).tiny)


def learn_unsupervised(
    y: Tensor, atoms: int, problem: ElasticNet, rounds: int = 30, seed: int = 0, progress: bool = False
) -> Tensor:
    """A dictionary (m, atoms) that codes y (batch, m) best: alternate codes and exact atom updates (K-SVD-like blocks).

    Each atom is the least-squares fit to what the others leave, projected to the unit ball (Mairal et al. 2010, alg. 2).
    """
    if atoms < 1 or atoms > y.shape[0]:
        raise InputError(
            f"the dictionary's {atoms} atoms start from {y.shape[0]} samples; take between 1 and that many"
        )
    generator = torch.Generator().manual_seed(seed)
    dictionary = unit_columns(y[torch.randperm(y.shape[0], generator=generator)[:atoms]].mT + 0.0)
    start = None
    with torch.no_grad():
        for _ in tqdm(range(rounds), disable=not progress, desc="dictionary"):
            start = sparse_codes(y, dictionary, problem, start).values
            second, first = start.mT @ start, y.mT @ start
            for j in range(atoms):
                if float(second[j, j]) <= 1e-12:  # an unused atom restarts at a random sample
                    pick = int(torch.randint(y.shape[0], (1,), generator=generator))
                    dictionary[:, j] = y[pick] / y[pick].norm().clamp_min(1e-12)
                    continue
                atom = dictionary[:, j] + (first[:, j] - dictionary @ second[:, j]) / second[j, j]
                dictionary[:, j] = atom / atom.norm().clamp_min(1.0)
    return dictionary


class SparseClassifier(torch.nn.Module):
    """A linear classifier on sparse codes: logits(y) = W a*(y, D) + b, differentiable in D."""

    def __init__(self, dictionary: Tensor, classes: int, problem: ElasticNet) -> None:
        super().__init__()
        self.dictionary = torch.nn.Parameter(dictionary.detach().clone())
        self.linear = torch.nn.Linear(dictionary.shape[1], classes, dtype=dictionary.dtype)
        torch.nn.init.zeros_(self.linear.weight)
        torch.nn.init.zeros_(self.linear.bias)
        self.problem = problem
        self.near_kinks = 0

    def forward(self, y: Tensor) -> Tensor:
        codes = sparse_codes(y, self.dictionary, self.problem)
        self.near_kinks = int(codes.near_kinks.sum())
        return self.linear(codes.values)

    def error_rate(self, y: Tensor, labels: Tensor) -> float:
        """The share of wrong classes."""
        with torch.no_grad():
            return float((self(y).argmax(1) != labels).double().mean())


def require_labels(labels: Tensor, y: Tensor, model: SparseClassifier) -> None:
    """Raise InputError unless there is one label for each sample, from 0 to the number of classes - 1."""
    classes = model.linear.out_features
    if labels.shape != y.shape[:1] or int(labels.min()) < 0 or int(labels.max()) >= classes:
        raise InputError(
            f"{y.shape[0]} samples need as many labels from 0 to {classes - 1}, got shape {tuple(labels.shape)} "
            f"with values {int(labels.min())} to {int(labels.max())}"
        )


def fit_classifier(model: SparseClassifier, y: Tensor, labels: Tensor, decay: float = 1e-4) -> float:
    """Fit the linear part alone on fixed codes, to the optimum of cross entropy + decay |W|^2; returns the loss."""
    require_labels(labels, y, model)
    with torch.no_grad():
        codes = sparse_codes(y, model.dictionary, model.problem).values
    parameters = list(model.linear.parameters())
    optimiser = torch.optim.LBFGS(parameters, max_iter=500, tolerance_grad=1e-7, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = F.cross_entropy(model.linear(codes), labels) + decay * model.linear.weight.square().sum()
        loss.backward()
        return loss

    optimiser.step(closure)
    return float(closure().detach())


def learn_task_driven(
    model: SparseClassifier, y: Tensor, labels: Tensor, schedule: DictionarySchedule, progress: bool = False
) -> TaskHistory:
    """Train dictionary and classifier together on the task's loss, in place; atoms stay on the unit sphere."""
    require_labels(labels, y, model)
    generator = torch.Generator().manual_seed(schedule.seed)
    optimiser = torch.optim.Adam(model.parameters(), schedule.rate)
    steps = schedule.epochs * -(-y.shape[0] // schedule.batch)
    fall = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    history = TaskHistory()
    for _ in tqdm(range(schedule.epochs), disable=not progress, desc="task"):
        total, kinks = 0.0, 0
        for rows in torch.randperm(y.shape[0], generator=generator).split(schedule.batch):
            loss = F.cross_entropy(model(y[rows]), labels[rows]) + schedule.decay * model.linear.weight.square().sum()
            kinks += model.near_kinks
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            fall.step()
            with torch.no_grad():
                model.dictionary.copy_(unit_columns(model.dictionary))
            total += float(loss.detach()) * len(rows) / y.shape[0]
        history.losses.append(total)
        history.near_kinks.append(kinks)
    return history
