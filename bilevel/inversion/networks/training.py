"""Training of unrolled networks: layer by layer, then all together; reproducible from a seed, resumable from checkpoints.

Layer k starts from layer k - 1 and is first trained alone, then with all layers before it at falling rates
(Chen, Liu, Wang, Yin 2018, appendix).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import Parameter
from tqdm import tqdm

from bilevel.inversion.networks.checkpoint import read_checkpoint, write_checkpoint
from bilevel.inversion.networks.network import UnrolledNetwork, UnrolledState, require_pairs
from bilevel.report import BilevelError, InputError


class Sampler(Protocol):
    """Draws training pairs (truth, data)."""

    def draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]: ...


def log_error(estimate: Tensor, truth: Tensor) -> Tensor:
    """log of the mean squared error: as the error falls by orders of magnitude, Adam's rates stay relative to it."""
    return (estimate - truth).square().mean().clamp_min(torch.finfo(estimate.dtype).tiny).log()


@dataclass(frozen=True)
class LayerwiseSchedule:
    """How long and how fast.

    alone: steps of each new layer alone at `rate`. together: steps of all layers so far at each of `refine` * rate.
    final: steps of the whole network, with the rate falling from `final_scale` * rate to zero along a cosine.
    matrix_rate: the rate of matrices, in place of `rate`. clip: the largest norm of a gradient; rare signals give huge ones.
    """

    batch: int = 128
    alone: int = 50
    together: int = 20
    refine: tuple[float, ...] = (0.2, 0.02)
    final: int = 500
    rate: float = 5e-3
    matrix_rate: float = 5e-4
    final_scale: float = 0.5
    clip: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.batch < 1 or min(self.alone, self.together, self.final) < 0:
            raise InputError("a schedule has batch >= 1 and no negative number of steps")
        if not min(self.rate, self.matrix_rate, self.final_scale, self.clip, *self.refine) > 0:
            raise InputError("the rates, their factors and the clipping norm of a schedule must be positive")


@dataclass(frozen=True)
class LayerStage:
    """`steps` gradient steps on layers first, ..., depth - 1 of a network cut to `depth` layers."""

    name: str
    first: int
    depth: int
    steps: int
    scale: float
    cosine: bool = False


def stages(depth: int, schedule: LayerwiseSchedule) -> Iterator[LayerStage]:
    """The stages of layer-wise training."""
    for k in range(depth):
        if schedule.alone:
            yield LayerStage(f"layer {k + 1}", k, k + 1, schedule.alone, 1.0)
        if schedule.together and k:
            for scale in schedule.refine:
                yield LayerStage(f"layers 1-{k + 1} x{scale:g}", 0, k + 1, schedule.together, scale)
    if schedule.final:
        yield LayerStage("all layers", 0, depth, schedule.final, schedule.final_scale, cosine=True)


def train(
    network: UnrolledNetwork,
    sampler: Sampler,
    schedule: LayerwiseSchedule,
    *,
    checkpoint: Path | str | None = None,
    progress: bool = False,
    loss: Callable[[Tensor, Tensor], Tensor] = log_error,
) -> list[float]:
    """Train in place and return the last loss of every stage.

    checkpoint: a file written after every stage; if it exists, training resumes after its last stage.
    Raises BilevelError if the loss becomes NaN, InputError if the checkpoint was made with another schedule, network or
    operator, or if the sampler's pairs do not fit the network.
    """
    checkpoint = None if checkpoint is None else Path(checkpoint)
    generator = torch.Generator().manual_seed(schedule.seed)
    plan = list(stages(network.depth, schedule))
    losses: list[float] = []
    if checkpoint is not None and checkpoint.exists():
        losses = _resume(network, schedule, generator, checkpoint)
    done = sum(stage.steps for stage in plan[: len(losses)])
    with tqdm(total=sum(stage.steps for stage in plan), initial=done, disable=not progress, unit="step") as bar:
        for stage in plan[len(losses) :]:
            bar.set_description(stage.name)
            if stage.first == stage.depth - 1 and stage.first:
                network.inherit(stage.first)
            losses.append(_run_stage(network, sampler, schedule, stage, generator, loss, bar))
            if checkpoint is not None:
                _save(network, schedule, generator, losses, checkpoint)
    return losses


def _run_stage(
    network: UnrolledNetwork,
    sampler: Sampler,
    schedule: LayerwiseSchedule,
    stage: LayerStage,
    generator: torch.Generator,
    loss: Callable[[Tensor, Tensor], Tensor],
    bar: tqdm,
) -> float:
    parameters = network.shared_parameters()
    for k in range(stage.first, stage.depth):
        parameters += network.layer_parameters(k)
    optimiser = torch.optim.Adam(_groups(parameters, schedule, stage.scale))
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, stage.steps) if stage.cosine else None
    value = torch.tensor(torch.nan)
    for step in range(stage.steps):
        truth, data = sampler.draw(schedule.batch, generator)
        if step == 0:
            require_pairs(network, truth, data)
        with torch.no_grad():
            state = network.run(data, network.start(data), 0, stage.first)
        estimate = network.run(data, UnrolledState(state.x, state.memory), stage.first, stage.depth).x
        if step == 0:
            _require_alive(network, estimate, stage)
        value = loss(estimate, truth)
        if not bool(torch.isfinite(value)):
            raise BilevelError(
                f"training diverged in stage '{stage.name}': the loss is {float(value.detach())}; lower the rates"
            )
        optimiser.zero_grad()
        value.backward()
        torch.nn.utils.clip_grad_norm_(parameters, schedule.clip)
        optimiser.step()
        if decay is not None:
            decay.step()
        bar.update()
    return float(value.detach())


def _require_alive(network: UnrolledNetwork, estimate: Tensor, stage: LayerStage) -> None:
    """Where every entry of every sample is below its threshold, all derivatives are zero and training goes nowhere."""
    if not bool((estimate != 0).any()):
        raise BilevelError(
            f"the {type(network).__name__} returns zero for every signal in stage '{stage.name}', so nothing can be learned: its "
            "thresholds are above all entries; start from smaller ones, or give the signals larger units"
        )


def _groups(parameters: list[Parameter], schedule: LayerwiseSchedule, scale: float) -> list[dict]:
    """Scalars learn at `rate`, matrices at `matrix_rate`."""
    small = [p for p in parameters if p.dim() < 2]
    large = [p for p in parameters if p.dim() >= 2]
    pairs = ((small, schedule.rate), (large, schedule.matrix_rate))
    return [{"params": group, "lr": rate * scale} for group, rate in pairs if group]


def _save(
    network: UnrolledNetwork, schedule: LayerwiseSchedule, generator: torch.Generator, losses: list[float], file: Path
) -> None:
    state = {
        "kind": type(network).__name__,
        "network": network.state_dict(),
        "schedule": asdict(schedule),
        "generator": generator.get_state(),
        "losses": losses,
    }
    write_checkpoint(state, file)


def _resume(
    network: UnrolledNetwork, schedule: LayerwiseSchedule, generator: torch.Generator, file: Path
) -> list[float]:
    state = read_checkpoint(asdict(schedule), file)
    own = network.state_dict()
    if state["kind"] != type(network).__name__ or {k: v.shape for k, v in own.items()} != {
        k: v.shape for k, v in state["network"].items()
    }:
        raise InputError(f"{file} was written by a training of another network, a {state['kind']}; remove it")
    if any(
        not torch.allclose(v, state["network"][k]) for k, v in network.operator.state_dict(prefix="operator.").items()
    ):
        raise InputError(f"{file} was written by a training for another operator; remove it or use that operator")
    network.load_state_dict(state["network"])
    generator.set_state(state["generator"])
    return list(state["losses"])
