"""Training by what the solution itself would ask for: the cheapest teacher, since no linear system is solved in the loop."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from bilevel.acceleration.family import Family, Instance
from bilevel.acceleration.learned_guess import LearnedGuess, predict
from bilevel.acceleration.networks.cell_network import CellNetwork
from bilevel.inversion.networks.checkpoint import read_checkpoint, write_checkpoint
from bilevel.report import BilevelError
from bilevel.solvers import LoadStepping, Newton, Solver, Tolerance
from bilevel.solvers.cellwise.problem import Guess, GuessedProblem, Incidence
from bilevel.solvers.steps.armijo import Armijo
from bilevel.solvers.steps.trust_region import TrustRegion

ROBUST = 0.1
"""Errors beyond this count linearly: a few items that cannot be predicted must not outweigh all others."""


@dataclass(frozen=True)
class Supervision:
    """What a training does, from its seed on: one network for each of `systems` linear systems, `epochs` over `instances`
    instances of about `size` nodes, whose seeds start at seed * instances. rate: Adam's largest. hidden, hops: of networks.
    """

    systems: int
    size: int
    instances: int
    epochs: int
    rate: float
    hidden: int
    hops: int
    seed: int = 0


@dataclass(frozen=True, eq=False)
class TrainingInstance:
    """A training instance as far as the networks so far have brought it, and its solution u (n,)."""

    problem: GuessedProblem
    guess: Guess
    solution: Tensor

    def after(self, network: CellNetwork) -> TrainingInstance | None:
        """One system further; None where that cannot be solved, as where a law is asked for states beyond its limit."""
        try:
            return replace(self, guess=self.problem.solve(self.guess, predict(network, self.problem, self.guess)))
        except BilevelError:
            return None


def train_supervised(
    family: Family, plan: Supervision, *, checkpoint: Path | None = None, progress: bool = False
) -> tuple[CellNetwork, ...]:
    """Networks each taught on the states that those before it lead to; instances that no classical solver solves are left out.

    checkpoint: a file written once all instances are solved and after every network; where it exists, training goes on
    from there. Raises InputError if it is another training's, BilevelError where no instance is solved.
    """
    made_for = asdict(plan) | {"family": family.name, "version": family.version}
    saved: dict[str, Any] = {"schedule": made_for, "solutions": [], "networks": []}
    if checkpoint is not None and checkpoint.exists():
        saved = read_checkpoint(made_for, checkpoint)
    keep = (lambda: None) if checkpoint is None else partial(write_checkpoint, saved, checkpoint)
    with tqdm(total=plan.instances + plan.systems * plan.epochs, disable=not progress, unit="step") as bar:
        taught = _taught(family, plan, saved["solutions"], bar)
        keep()
        networks: list[CellNetwork] = []
        for system in range(plan.systems):
            with torch.no_grad():
                samples = [sample(one.problem, one.guess, one.solution) for one in taught]
            torch.manual_seed(plan.seed * plan.systems + system)
            network = _network(samples[0], plan)
            if system < len(saved["networks"]):
                network.load_state_dict(saved["networks"][system])
                bar.update(plan.epochs)
            else:
                for epoch_error in fit(network, samples, plan.epochs, plan.rate, plan.seed * plan.systems + system):
                    bar.set_description(f"system {system + 1}, error {epoch_error:.4g}")
                    bar.update()
                saved["networks"].append(network.state_dict())
                keep()
            networks.append(network)
            with torch.no_grad():
                taught = [further for one in taught if (further := one.after(network)) is not None] or taught
    return tuple(networks)


def _taught(family: Family, plan: Supervision, solutions: list[Tensor | None], bar: tqdm) -> list[TrainingInstance]:
    """All instances that have a solution; those that `solutions` lacks are solved and added to it."""
    found = []
    for k in range(plan.instances):
        instance = family.instance(plan.size, plan.seed * plan.instances + k)
        if k == len(solutions):
            solutions.append(reference_solution(instance))
        solution, cellwise = solutions[k], instance.cellwise
        if solution is not None and isinstance(cellwise, GuessedProblem):
            with suppress(BilevelError):  # of the first system, which may be about states that the law does not know
                found.append(TrainingInstance(cellwise, cellwise.begin(instance.start), solution))
        bar.update()
    if not found:
        raise BilevelError(f"no classical solver solved any training instance of '{family.name}'; lower the loads")
    return found


def _network(example: Sample, plan: Supervision) -> CellNetwork:
    pairs = example.incidence.features.shape[1]
    return CellNetwork(example.features.shape[1], example.targets.shape[1], pairs, plan.hidden, plan.hops)


@torch.no_grad()
def reference_solution(instance: Instance) -> Tensor | None:
    """The solution (n,) by a classical solver, or None if it finds none."""
    tolerance = Tolerance(relative=1e-8)
    inner = Newton(step=Armijo(decrease=0.3), tolerance=tolerance, check_minimum=False)
    solver: Solver = inner
    cellwise = instance.cellwise
    if cellwise is not None and instance.path is None:
        solver = LearnedGuess(lambda problem, params: cellwise, [None] * 40, inner, otherwise=(inner,))
    if instance.path is not None:
        careful = Newton(step=TrustRegion(), tolerance=tolerance, max_iterations=15, check_minimum=False)
        solver = LoadStepping(instance.path, careful, predict=True, from_rest=True, smallest=1e-3)
    outcome = solver.solve(instance.problem, instance.start, instance.params)
    return outcome.u if outcome.report.converged else None


def error(outputs: Tensor, targets: Tensor) -> Tensor:
    return torch.nn.functional.smooth_l1_loss(outputs, targets, beta=ROBUST)


@dataclass(frozen=True, eq=False)
class Sample:
    """What a network reads on one problem, and what it should answer."""

    incidence: Incidence
    features: Tensor
    targets: Tensor


def sample(problem: GuessedProblem, guess: Guess, solution: Tensor) -> Sample:
    return Sample(
        problem.incidence,
        problem.features(guess).to(torch.float32),
        problem.targets(guess, solution).to(torch.float32),
    )


def together(samples: Sequence[Sample]) -> Sample:
    """Several problems side by side as one."""
    pairs, cells, nodes = [], 0, 0
    for one in samples:
        pairs.append(one.incidence.pairs + torch.tensor([[cells], [nodes]]))
        cells, nodes = cells + one.incidence.cells, nodes + one.incidence.nodes
    places = torch.cat([one.incidence.features for one in samples])
    incidence = Incidence(cells, nodes, torch.cat(pairs, 1), places)
    return Sample(incidence, torch.cat([one.features for one in samples]), torch.cat([one.targets for one in samples]))


def fit(
    network: CellNetwork, samples: Sequence[Sample], epochs: int, rate: float, seed: int, batch: int = 8
) -> Iterator[float]:
    """Train in place with Adam and a cosine of rates; yields the mean error of each epoch."""
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.Adam(network.parameters(), lr=rate)
    decay = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=epochs * -(-len(samples) // batch))
    for _ in range(epochs):
        order = torch.randperm(len(samples), generator=generator).tolist()
        total = 0.0
        for first in range(0, len(order), batch):
            group = together([samples[k] for k in order[first : first + batch]])
            loss = error(network(group.features, group.incidence), group.targets)
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimiser.step()
            decay.step()
            total += float(loss.detach()) * len(order[first : first + batch])
        yield total / len(order)
