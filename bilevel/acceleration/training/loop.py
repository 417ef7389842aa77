"""Training on families generated on the fly: unrolled, truncated, with a curriculum, reproducible and resumable.

Iterates before the last few rounds carry no gradient; how many rounds do follows from the discount by which the
influence of a round fades, `bilevel.inversion.networks.truncation.depth_from_discount`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn
from tqdm import tqdm

from bilevel.acceleration.family import Family, Instance
from bilevel.inversion.networks.checkpoint import read_checkpoint, write_checkpoint
from bilevel.inversion.networks.truncation import depth_from_discount
from bilevel.report import BilevelError

Group = TypeVar("Group")

ALLOWED_SKIPS = 0.05
"""The share of a stage's updates that may fail (a singular system, a gradient that is not finite) and are left out."""


@dataclass(frozen=True)
class CurriculumStage:
    """`updates` of the weights on instances of about `size` nodes, with `rounds` iterations each."""

    size: int
    rounds: int
    updates: int


@dataclass(frozen=True)
class TrainingSchedule:
    """What a training does, from its seed on.

    groups: how many groups of `batch` instances are generated for each stage; each update sees one group. rate: Adam's first, which falls to
    zero along a cosine over all stages. discount: by what factor the influence of a round fades from one to the next;
    accuracy: the error of the gradient that truncation may leave. clip: the largest norm of a gradient.
    """

    stages: tuple[CurriculumStage, ...]
    seed: int = 0
    groups: int = 20
    batch: int = 8
    rate: float = 3e-3
    discount: float = 0.5
    accuracy: float = 0.05
    clip: float = 1.0

    @property
    def kept(self) -> int:
        """How many of the last rounds carry gradients."""
        return depth_from_discount(self.discount, self.accuracy)

    @property
    def updates(self) -> int:
        return sum(stage.updates for stage in self.stages)


class Objective(ABC, Generic[Group]):
    """What is learned from a group of instances."""

    @abstractmethod
    def prepare(self, instances: Sequence[Instance]) -> Group:
        """The instances with their solutions; raises BilevelError where no classical solver finds one."""

    @abstractmethod
    def loss(self, network: nn.Module, group: Group, rounds: int, kept: int) -> Tensor:
        """The mean loss over `rounds` iterations from the start, differentiated through the last `kept` of them."""


def train(
    network: nn.Module,
    family: Family,
    objective: Objective[Any],
    schedule: TrainingSchedule,
    *,
    checkpoint: Path | None = None,
    progress: bool = False,
) -> list[float]:
    """Train in place; the mean loss of every stage.

    checkpoint: a file written after every stage; where it exists, training goes on after its last stage. Raises
    InputError if it is another training's, BilevelError where the loss is not finite.
    """
    optimiser = torch.optim.Adam(network.parameters(), schedule.rate)
    losses: list[float] = []
    made_for = asdict(schedule) | {"family": family.name, "version": family.version, "network": _sizes(network)}
    if checkpoint is not None and checkpoint.exists():
        losses = _resume(network, optimiser, made_for, checkpoint)
    done = sum(stage.updates for stage in schedule.stages[: len(losses)])
    with tqdm(total=schedule.updates, initial=done, disable=not progress, unit="update") as bar:
        for number in range(len(schedule.stages)):
            if number < len(losses):
                continue
            losses.append(_run_stage(network, family, objective, schedule, number, optimiser, bar))
            if checkpoint is not None:
                _save(network, optimiser, made_for, losses, checkpoint)
    return losses


def _run_stage(
    network: nn.Module,
    family: Family,
    objective: Objective[Any],
    schedule: TrainingSchedule,
    number: int,
    optimiser: torch.optim.Optimizer,
    bar: tqdm,
) -> float:
    stage = schedule.stages[number]
    before = sum(earlier.updates for earlier in schedule.stages[:number])
    count = schedule.groups * schedule.batch
    first = (schedule.seed * len(schedule.stages) + number) * count
    bar.set_description(f"stage {number + 1}: solving {count} instances")
    instances = [family.instance(stage.size, first + k) for k in range(count)]
    groups = [objective.prepare(instances[k : k + schedule.batch]) for k in range(0, count, schedule.batch)]
    generator = torch.Generator().manual_seed(first)
    total, skipped = 0.0, 0
    for update in range(stage.updates):
        share = (before + update) / schedule.updates
        for parameters in optimiser.param_groups:
            parameters["lr"] = schedule.rate * 0.5 * (1.0 + torch.cos(torch.tensor(torch.pi * share)).item())
        group = groups[int(torch.randint(len(groups), (), generator=generator))]
        optimiser.zero_grad()
        try:
            loss = objective.loss(network, group, stage.rounds, schedule.kept)
            loss.backward()
            sound = bool(torch.isfinite(nn.utils.clip_grad_norm_(network.parameters(), schedule.clip)))
        except BilevelError:  # early proposals may make singular systems
            sound = False
        if not sound:
            skipped += 1
            if skipped > ALLOWED_SKIPS * stage.updates:
                raise BilevelError(f"training diverged in stage {number + 1}: {skipped} updates failed; lower the rate")
            continue
        optimiser.step()
        total += float(loss.detach())
        bar.set_description(
            f"stage {number + 1}: {stage.size} nodes, {stage.rounds} rounds, loss {float(loss.detach()):.3f}"
        )
        bar.update()
    return total / max(1, stage.updates - skipped)


def _save(
    network: nn.Module, optimiser: torch.optim.Optimizer, made_for: dict[str, Any], losses: list[float], file: Path
) -> None:
    state = {
        "network": network.state_dict(),
        "optimiser": optimiser.state_dict(),
        "schedule": made_for,
        "losses": losses,
    }
    write_checkpoint(state, file)


def _resume(network: nn.Module, optimiser: torch.optim.Optimizer, made_for: dict[str, Any], file: Path) -> list[float]:
    state = read_checkpoint(made_for, file)
    network.load_state_dict(state["network"])
    optimiser.load_state_dict(state["optimiser"])
    return list(state["losses"])


def _sizes(network: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in network.state_dict().items()}
