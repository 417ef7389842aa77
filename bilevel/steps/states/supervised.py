"""Training by what the solution itself would ask for: the cheapest teacher, since no linear system is solved in the loop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bilevel.steps.states.network import StateNetwork
from bilevel.steps.states.problem import Incidence, State, StateProblem

ROBUST = 0.1
"""Errors beyond this count linearly: a few items that cannot be predicted must not outweigh all others."""


def supervised_loss(network: StateNetwork, problem: StateProblem, state: State, solution: Tensor) -> Tensor:
    """The mean error of the outputs against those that ask for the states at the solution (n,)."""
    outputs = network(problem.features(state), problem.incidence)
    return error(outputs, problem.targets(state, solution).to(outputs))


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
) -> list[float]:
    """Train in place with Adam and a cosine of rates; the mean error of each epoch."""
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.Adam(network.parameters(), lr=rate)
    decay = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=epochs * -(-len(lessons) // batch))
    errors = []
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
        errors.append(total / len(order))
    return errors
