"""Training by what the solution itself would ask for: the cheapest teacher, since no linear system is solved in the loop."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from bilevel.acceleration.cellwise.problem import Incidence, State, StateProblem
from bilevel.acceleration.family import Family, Instance
from bilevel.acceleration.learned_guess import LearnedStart, predict
from bilevel.acceleration.networks.cell_network import StateNetwork
from bilevel.inversion.networks.checkpoint import read_checkpoint, write_checkpoint
from bilevel.report import BilevelError
from bilevel.solvers import LoadStepping, Newton, Solver, Tolerance
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
class Pupil:
    """A training instance as far as the networks so far have brought it, and its solution u (n,)."""

    problem: StateProblem
    state: State
    solution: Tensor

    def after(self, network: StateNetwork) -> Pupil:
        state = self.problem.solve(self.state, predict(network, self.problem, self.state))
        return replace(self, state=state)


def train_supervised(
    family: Family, plan: Supervision, *, checkpoint: Path | None = None, progress: bool = False
) -> tuple[StateNetwork, ...]:
    """Networks each taught on the states that those before it lead to; instances that no classical solver solves are left out.

    checkpoint: a file written once all instances are solved and after every network; where it exists, training goes on
    from there. Raises InputError if it is another training's, BilevelError where no instance is solved.
    """
    saved: dict[str, Any] = {"schedule": asdict(plan), "solutions": [], "networks": []}
    if checkpoint is not None and checkpoint.exists():
        saved = read_checkpoint(saved["schedule"], checkpoint)
    keep = (lambda: None) if checkpoint is None else partial(write_checkpoint, saved, checkpoint)
    with tqdm(total=plan.instances + plan.systems * plan.epochs, disable=not progress, unit="step") as bar:
        pupils = _pupils(family, plan, saved["solutions"], bar)
        keep()
        networks: list[StateNetwork] = []
        for system in range(plan.systems):
            with torch.no_grad():
                lessons = [lesson(one.problem, one.state, one.solution) for one in pupils]
            torch.manual_seed(plan.seed * plan.systems + system)
            network = _network(lessons[0], plan)
            if system < len(saved["networks"]):
                network.load_state_dict(saved["networks"][system])
                bar.update(plan.epochs)
            else:
                for epoch_error in fit(network, lessons, plan.epochs, plan.rate, plan.seed * plan.systems + system):
                    bar.set_description(f"system {system + 1}, error {epoch_error:.4g}")
                    bar.update()
                saved["networks"].append(network.state_dict())
                keep()
            networks.append(network)
            with torch.no_grad():
                pupils = [one.after(network) for one in pupils]
    return tuple(networks)


def _pupils(family: Family, plan: Supervision, solutions: list[Tensor | None], bar: tqdm) -> list[Pupil]:
    """All instances that have a solution; those that `solutions` lacks are solved and added to it."""
    found = []
    for k in range(plan.instances):
        instance = family.instance(plan.size, plan.seed * plan.instances + k)
        if k == len(solutions):
            solutions.append(reference_solution(instance))
        solution, states = solutions[k], instance.states
        if solution is not None and states is not None:
            found.append(Pupil(states, states.begin(instance.start), solution))
        bar.update()
    if not found:
        raise BilevelError(f"no classical solver solved any training instance of '{family.name}'; lower the loads")
    return found


def _network(example: Lesson, plan: Supervision) -> StateNetwork:
    pairs = example.incidence.features.shape[1]
    return StateNetwork(example.features.shape[1], example.targets.shape[1], pairs, plan.hidden, plan.hops)


@torch.no_grad()
def reference_solution(instance: Instance) -> Tensor | None:
    """The solution (n,) by a classical solver, or None if it finds none."""
    tolerance = Tolerance(relative=1e-8)
    inner = Newton(step=Armijo(decrease=0.3), tolerance=tolerance, check_minimum=False)
    solver: Solver = inner
    states = instance.states
    if states is not None and instance.path is None:
        solver = LearnedStart(lambda problem, params: states, [None] * 40, inner, otherwise=(inner,))
    if instance.path is not None:
        careful = Newton(step=TrustRegion(), tolerance=tolerance, max_iterations=15, check_minimum=False)
        solver = LoadStepping(instance.path, careful, predict=True, from_rest=True, smallest=1e-3)
    outcome = solver.solve(instance.problem, instance.start, instance.params)
    return outcome.u if outcome.report.converged else None


def error(outputs: Tensor, targets: Tensor) -> Tensor:
    return torch.nn.functional.smooth_l1_loss(outputs, targets, beta=ROBUST)


@dataclass(frozen=True, eq=False)
class Lesson:
    """What a network reads on one problem, and what it should answer."""

    incidence: Incidence
    features: Tensor
    targets: Tensor


def lesson(problem: StateProblem, state: State, solution: Tensor) -> Lesson:
    return Lesson(
        problem.incidence,
        problem.features(state).to(torch.float32),
        problem.targets(state, solution).to(torch.float32),
    )


def together(lessons: Sequence[Lesson]) -> Lesson:
    """Several problems side by side as one."""
    pairs, items, hubs = [], 0, 0
    for one in lessons:
        pairs.append(one.incidence.pairs + torch.tensor([[items], [hubs]]))
        items, hubs = items + one.incidence.items, hubs + one.incidence.hubs
    places = torch.cat([one.incidence.features for one in lessons])
    incidence = Incidence(items, hubs, torch.cat(pairs, 1), places)
    return Lesson(incidence, torch.cat([one.features for one in lessons]), torch.cat([one.targets for one in lessons]))


def fit(
    network: StateNetwork, lessons: Sequence[Lesson], epochs: int, rate: float, seed: int, batch: int = 8
) -> Iterator[float]:
    """Train in place with Adam and a cosine of rates; yields the mean error of each epoch."""
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.Adam(network.parameters(), lr=rate)
    decay = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=epochs * -(-len(lessons) // batch))
    for _ in range(epochs):
        order = torch.randperm(len(lessons), generator=generator).tolist()
        total = 0.0
        for first in range(0, len(order), batch):
            group = together([lessons[k] for k in order[first : first + batch]])
            loss = error(network(group.features, group.incidence), group.targets)
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimiser.step()
            decay.step()
            total += float(loss.detach()) * len(order[first : first + batch])
        yield total / len(order)
