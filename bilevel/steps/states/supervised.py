"""Training by what the solution itself would ask for: the cheapest teacher, since no linear system is solved in the loop."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from tqdm import tqdm

from bilevel.report import BilevelError
from bilevel.solvers import LoadStepping, Newton, Solver, Tolerance
from bilevel.steps.armijo import Armijo
from bilevel.steps.family import Family, Instance
from bilevel.steps.states.guess import LearnedStart, predict
from bilevel.steps.states.network import StateNetwork
from bilevel.steps.states.problem import Incidence, State, StateProblem
from bilevel.steps.trust_region import TrustRegion

ROBUST = 0.1
"""Errors beyond this count linearly: a few items that cannot be predicted must not outweigh all others."""


def train_supervised(
    family: Family,
    *,
    systems: int,
    size: int,
    instances: int,
    epochs: int,
    rate: float,
    hidden: int,
    hops: int,
    seed: int,
    progress: bool = False,
) -> tuple[StateNetwork, ...]:
    """One network for each of `systems` linear systems, each taught on the states that those before it lead to.

    The instances have seeds from seed * instances on; those that no classical solver solves are left out. Raises
    BilevelError where that leaves none.
    """
    bar = tqdm(total=instances + systems * epochs, disable=not progress, unit="step")
    solved = []
    for k in range(instances):
        instance = family.instance(size, seed * instances + k)
        solution = reference_solution(instance)
        if solution is not None and instance.states is not None:
            solved.append((instance.states, instance.states.begin(instance.start), solution))
        bar.update()
    if not solved:
        raise BilevelError(f"no classical solver solved any training instance of '{family.name}'; lower the loads")
    networks: list[StateNetwork] = []
    for system in range(systems):
        with torch.no_grad():
            lessons = [lesson(problem, state, solution) for problem, state, solution in solved]
        torch.manual_seed(seed * systems + system)
        network = StateNetwork(
            lessons[0].features.shape[1],
            lessons[0].targets.shape[1],
            lessons[0].incidence.features.shape[1],
            hidden,
            hops,
        )
        for epoch_error in fit(network, lessons, epochs, rate, seed * systems + system):
            bar.set_description(f"system {system + 1}, error {epoch_error:.4g}")
            bar.update()
        networks.append(network)
        with torch.no_grad():
            solved = [(p, p.solve(state, predict(network, p, state)), u) for p, state, u in solved]
    bar.close()
    return tuple(networks)


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
