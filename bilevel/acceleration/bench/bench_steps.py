"""`bilevel bench-steps`: a family's learned guess and its ablations against the classical baselines."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from torch import Tensor, nn

from bilevel.acceleration.bench.methods import BenchMethod, classical_methods, guess_method, has_cells
from bilevel.acceleration.bench.report import BenchSettings
from bilevel.acceleration.bench.run import FIRST_MULTIPLE, run
from bilevel.acceleration.bench.table import text, to_json
from bilevel.acceleration.family import Family, Variation
from bilevel.acceleration.training.config import find_family
from bilevel.acceleration.weights_file import Weights, shipped
from bilevel.report import InputError
from bilevel.solvers.cellwise.problem import Incidence

QUICK = BenchSettings(instances=8, multiples=(4,), tuning=2, budget=1.0)
"""A run that ends in a minute."""

ON_A_GRAPH = (Variation.TRAINING, Variation.CONTRAST, Variation.LOADS)
"""What changes from instance to instance where the graph is given."""


def bench_steps(
    name: str,
    settings: BenchSettings,
    guess: Path | None = None,
    json: Path | None = None,
    against: Sequence[str] = (),
    graphs: tuple[Path, Path] | None = None,
) -> str:
    """The table of a family as text; the weights, if there are any, are the shipped ones unless others are given.

    json: a file for all numbers. against: the names of the classical methods that are compared, all of them if there are
    none. graphs: tables of the nodes and edges on which the methods, tuned on the family's own graphs, are measured. Raises InputError for an unknown family or method, and for weights that do not fit.
    """
    family, classical = find_family(name), _chosen(against)
    weights = _weights(family, guess)
    settings = replace(settings, progress=lambda line: print(line, file=sys.stderr, flush=True))
    learned = [] if weights is None else _methods(weights)
    if graphs is not None:
        settings = replace(settings, multiples=(FIRST_MULTIPLE,), variations=ON_A_GRAPH, linear=False)
    unseen = None if graphs is None else family.on_graph(*graphs)
    report = run(family, learned, settings, classical, unseen)
    if json is not None:
        json.write_text(to_json(report), encoding="utf-8")
    return text(report)


def _chosen(names: Sequence[str]) -> list[BenchMethod]:
    known = {method.name: method for method in classical_methods()}
    for name in names:
        if name not in known:
            raise InputError(f"there is no classical method '{name}'; known are {'; '.join(known)}")
    return [method for method in known.values() if not names or method.name in names]


class OneAnswer(nn.Module):
    """A guess network with its mean answer for every item: what is left is a learned schedule."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, features: Tensor, incidence: Incidence) -> Tensor:
        answers: Tensor = self.network(features, incidence)
        return answers.mean(0).expand_as(answers)


def _weights(family: Family, file: Path | None) -> Weights | None:
    if file is not None:
        return Weights.load(file, family)
    try:
        return Weights.load(shipped(family), family)
    except InputError:
        return None


def _methods(weights: Weights) -> list[BenchMethod]:
    """The guess, and what it is without differences between cells."""
    seconds = float(weights.made_by.get("seconds", 0.0))
    made = {
        "learned guess + Newton": guess_method(weights.networks),
        "one answer for all cells": guess_method(tuple(OneAnswer(network) for network in weights.networks)),
    }
    return [
        BenchMethod(name, {"": make}, learned=True, training_seconds=seconds, applies=has_cells)
        for name, make in made.items()
    ]
