"""`bilevel train-steps study.yml`: a first guess for a study's own family, within a quarter of an hour."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch

from bilevel.acceleration.family import Instance
from bilevel.acceleration.learned_guess import guess_solver
from bilevel.acceleration.networks.cell_network import CellNetwork
from bilevel.acceleration.study_family import StudyFamily
from bilevel.acceleration.training.supervised import Supervision, error, reference_solution, sample, train_supervised
from bilevel.acceleration.weights_file import Weights, versions
from bilevel.calibrate.study.loading import load_study
from bilevel.report import BilevelError, InputError
from bilevel.solvers.cellwise.problem import GuessedProblem
from bilevel.solvers.evaluations import Tolerance
from bilevel.solvers.newton import Newton
from bilevel.solvers.solver import Outcome, Solver

FILE = "guess.pt"
"""The weights, beside the study."""

SYSTEMS, HIDDEN, HOPS, RATE = 2, 32, 3, 3e-3

FIRST_PROBE, FIRST_SHOWN = 1_000_000, 2_000_000
"""Training draws from the first numbers on."""

FINISH = 2
"""Iterations of Newton's method that remain after the best of guesses."""

TOLERANCE = Tolerance(1e-9)


@dataclass(frozen=True)
class Effort:
    """How much work a training may be.

    seconds: what it may take by the estimate; a neighbour on the same machine may make a quarter of an hour of ten minutes.
    probed, shown: draws that are timed before it, and draws on which the outcome is measured. draws, epochs: at least and at
    most.
    """

    seconds: float = 600.0
    probed: int = 3
    shown: int = 8
    draws: tuple[int, int] = (16, 128)
    epochs: tuple[int, int] = (10, 80)


@dataclass(frozen=True)
class TrainingCost:
    """Seconds of a classical solve, of the best guessed one, and of the training that is planned."""

    classical: float
    guessed: float
    training: float
    plan: Supervision

    @property
    def sentence(self) -> str:
        """What the training costs and when it has paid."""
        return (
            f"training takes about {self.training / 60.0:.0f} minutes ({self.plan.instances} draws, {self.plan.epochs} epochs); "
            f"a solve from the model's own start takes {self.classical:.2g} s, one from a perfect guess {self.guessed:.2g} s: "
            f"{break_even(self.classical, self.guessed, self.training)}"
        )


def break_even(classical: float, guessed: float, training: float) -> str:
    """When a training has paid."""
    if guessed >= classical:
        return "it never pays"
    return f"it pays after {training / (classical - guessed):,.0f} solves from the model's own start"


def train_study(
    file: Path,
    progress: bool = True,
    overwrite: bool = False,
    say: Callable[[str], None] = print,
    effort: Effort | None = None,
) -> Path:
    """Train a guess for a study, saying first when it will have paid and last when it has; the file of the weights.

    Raises InputError for a study without an inner solve that can be guessed, and for
    weights that exist, unless `overwrite`.
    """
    study = load_study(file)
    out = study.folder / FILE
    if out.exists() and not overwrite:
        raise InputError(f"{out} exists; replace it with --force")
    family, effort = StudyFamily(study.problem), effort or Effort()
    cost = foresee(family, effort)
    say(cost.sentence)
    started = time.perf_counter()
    networks = train_supervised(family, cost.plan, progress=progress)
    training = time.perf_counter() - started
    measured = measure(family, networks, training, effort.shown)
    say(str(measured["sentence"]))
    made_by = {
        "command": f"bilevel train-steps {file.name}",
        "settings": asdict(cost.plan),
        "seconds": training,
        "threads": torch.get_num_threads(),
        "versions": versions(),
        "measured": measured,
    }
    Weights(family.name, family.version, networks, made_by).save(out)
    return out


def foresee(family: StudyFamily, effort: Effort) -> TrainingCost:
    """What a training within an effort would cost and bring, timed on a few draws."""
    probes = [_probe(family.instance(0, FIRST_PROBE + k)) for k in range(effort.probed)]
    solved = [probe for probe in probes if probe is not None]
    if not solved:
        raise BilevelError(
            "no classical solver solved any of the first draws of the study's parameters; narrow their bounds"
        )
    classical, reference, system, update = (median(column) for column in zip(*solved))
    instances = _between(effort.draws, 0.4 * effort.seconds / (reference + SYSTEMS * system))
    epochs = _between(effort.epochs, 0.6 * effort.seconds / (SYSTEMS * instances * update))
    training = instances * (reference + SYSTEMS * (system + epochs * update))
    plan = Supervision(SYSTEMS, 0, instances, epochs, RATE, HIDDEN, HOPS)
    guessed = (1 + SYSTEMS + FINISH) * system
    return TrainingCost(classical, guessed, training, plan)


def _between(limits: tuple[int, int], wanted: float) -> int:
    return int(min(limits[1], max(limits[0], wanted)))


def _probe(instance: Instance) -> tuple[float, float, float, float] | None:
    """Seconds of a classical solve, of a reference solve, of a linear system and of one sample's share of an update."""
    cellwise = instance.cellwise
    assert isinstance(cellwise, GuessedProblem)
    classical = _solved(Newton(tolerance=TOLERANCE), instance)
    began = time.perf_counter()
    solution = reference_solution(instance)
    reference = time.perf_counter() - began
    if solution is None:
        return None
    began = time.perf_counter()
    with torch.no_grad():
        guess = cellwise.begin(instance.start)
        one = sample(cellwise, guess, solution)
    system = time.perf_counter() - began
    network = CellNetwork(one.features.shape[1], one.targets.shape[1], one.incidence.features.shape[1], HIDDEN, HOPS)
    for _ in range(2):  # the first one warms up
        began = time.perf_counter()
        error(network(one.features, one.incidence), one.targets).backward()
    return classical.report.seconds, reference, system, time.perf_counter() - began


def measure(family: StudyFamily, networks: tuple[CellNetwork, ...], training: float, shown: int) -> dict[str, Any]:
    """What the guess brings on draws that were not trained on."""
    rows: list[tuple[Outcome, Outcome]] = []
    for k in range(shown):
        instance = family.instance(0, FIRST_SHOWN + k)
        learned = guess_solver(networks, None, TOLERANCE)
        rows.append((_solved(Newton(tolerance=TOLERANCE), instance), _solved(learned, instance)))
    counts, seconds = (
        [median(get(outcome) for outcome in column) for column in zip(*rows)]
        for get in (lambda o: o.report.counts.factorisations, lambda o: o.report.seconds)
    )
    failed = [sum(not outcome.report.converged for outcome in column) for column in zip(*rows)]
    sentence = (
        f"on {shown} unseen draws: {counts[1]:g} factorisations and {seconds[1]:.2g} s a solve, {failed[1]} failed; from the model's "
        f"own start {counts[0]:g} and {seconds[0]:.2g} s, {failed[0]} failed: {break_even(seconds[0], seconds[1], training)}"
    )
    names = ("classical", "learned")
    return {
        "sentence": sentence,
        "factorisations": dict(zip(names, map(float, counts))),
        "seconds": dict(zip(names, seconds)),
        "failed": dict(zip(names, failed)),
    }


def _solved(solver: Solver, instance: Instance) -> Outcome:
    return solver.solve(instance.problem, instance.start, instance.params)
