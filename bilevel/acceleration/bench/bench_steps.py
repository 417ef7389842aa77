"""`bilevel bench-steps`: a family's learned solvers and their ablations against the classical baselines."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from torch import Tensor, nn

from bilevel.acceleration.bench import BenchMethod, BenchSettings, classical_methods, run, text, to_json
from bilevel.acceleration.bench.methods import Make
from bilevel.acceleration.family import Family, Instance
from bilevel.acceleration.learned_guess import LearnedGuess, guess_solver
from bilevel.acceleration.learned_step import step_solver
from bilevel.acceleration.networks.node_network import Proposal
from bilevel.acceleration.training.config import find_family
from bilevel.acceleration.weights_file import Kind, Weights, shipped
from bilevel.report import InputError
from bilevel.solvers.cellwise.problem import Incidence
from bilevel.solvers.evaluations import Tolerance

QUICK = BenchSettings(instances=8, multiples=(4,), tuning=2, budget=1.0)
"""A run that ends in a minute."""


def bench_steps(
    name: str,
    settings: BenchSettings,
    guess: Path | None = None,
    step: Path | None = None,
    json: Path | None = None,
    against: Sequence[str] = (),
) -> str:
    """The table of a family as text; weights are the shipped ones unless others are given.

    json: a file for all numbers. against: the names of the classical methods that are compared, all of them if there are
    none. Raises InputError for an unknown family or method, for weights that do not fit, or where there are none.
    """
    family, classical = find_family(name), _chosen(against)
    found = [w for kind, file in ((Kind.GUESS, guess), (Kind.STEP, step)) if (w := _weights(family, kind, file))]
    if not found:
        raise InputError(f"there are no weights for the family '{family.name}'; train some with `bilevel train-steps`")
    settings = replace(settings, progress=lambda line: print(line, file=sys.stderr, flush=True))
    learned = [_method(weights) for weights in found]
    ablations = [method for weights in found for method in _ablations(weights)]
    report = run(family, learned, ablations, settings, classical)
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


class OneFactor(nn.Module):
    """A step network with the geometric mean of its factors for every node: what is left is a learned damping."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, nodes: Tensor, edges: Tensor, edge_index: Tensor) -> Proposal:
        proposal: Proposal = self.network(nodes, edges, edge_index)
        mean = proposal.factors.log().mean().exp()
        return Proposal(mean.expand_as(proposal.factors), proposal.damping, proposal.momentum)


def _weights(family: Family, kind: Kind, file: Path | None) -> Weights | None:
    if file is not None:
        return Weights.load(file, family)
    try:
        return Weights.load(shipped(family, kind), family)
    except InputError:
        return None


def _method(weights: Weights) -> BenchMethod:
    seconds = float(weights.made_by.get("seconds", 0.0))
    if weights.kind is Kind.GUESS:
        make_guess = {"shipped": _guess(weights.networks)}
        return BenchMethod(
            "learned guess + Newton",
            make_guess,
            learned=True,
            guarded=True,
            training_seconds=seconds,
            applies=_has_cells,
        )
    make = {"shipped": _step(weights.networks[0])}
    return BenchMethod("Newton, learned steps", make, learned=True, guarded=True, training_seconds=seconds)


def _ablations(weights: Weights) -> list[BenchMethod]:
    if weights.kind is Kind.GUESS:
        return [
            BenchMethod("same guess, no network", {"zeros": _guess((None,))}, unlearned=True, applies=_has_cells),
            BenchMethod(
                "learned guess, no safeguard", {"none": _unguarded(weights.networks)}, learned=True, applies=_has_cells
            ),
            BenchMethod(
                "one answer for all cells",
                {"mean": _guess(tuple(OneAnswer(network) for network in weights.networks))},
                learned=True,
                applies=_has_cells,
            ),
        ]
    network = weights.networks[0]
    return [
        BenchMethod("learned steps, no safeguard", {"none": _step(network, safeguard=False)}, learned=True),
        BenchMethod("one factor for all nodes", {"mean": _step(OneFactor(network))}, learned=True),
    ]


def _has_cells(instance: Instance) -> bool:
    """A guess is made of a problem's own linear systems; a quadratic model has none beside itself."""
    return instance.cellwise is not None


def _guess(networks: tuple[nn.Module | None, ...]) -> Callable[[Instance, Tolerance], LearnedGuess]:
    def make(instance: Instance, tolerance: Tolerance) -> LearnedGuess:
        cellwise = instance.cellwise
        assert cellwise is not None
        return guess_solver(networks, lambda problem, params: cellwise, tolerance, False, instance.path)

    return make


def _unguarded(networks: tuple[nn.Module, ...]) -> Make:
    """The guess and the solver after it, with nobody to take over where they fail."""
    guarded = _guess(networks)
    return lambda instance, tolerance: replace(guarded(instance, tolerance), otherwise=())


def _step(network: nn.Module, safeguard: bool = True) -> Make:
    return lambda instance, tolerance: step_solver(network, instance.read_by_steps, tolerance, False, safeguard)
