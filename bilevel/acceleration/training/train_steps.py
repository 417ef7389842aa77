"""`bilevel train-steps`: from family.yml to a file of weights and its model card."""

from __future__ import annotations

import time
from pathlib import Path

import torch
from torch import nn

from bilevel.acceleration.family import Family
from bilevel.acceleration.networks.node_network import NodeNetwork
from bilevel.acceleration.training.config import TrainingConfig, find_family, read_config
from bilevel.acceleration.training.loop import Objective, train
from bilevel.acceleration.training.supervised import Supervision, train_supervised
from bilevel.acceleration.training.train_study import train_study
from bilevel.acceleration.training.unrolled_guess import UnrolledGuess, network_for
from bilevel.acceleration.training.unrolled_step import UnrolledStep
from bilevel.acceleration.weights_file import Kind, Weights, versions
from bilevel.calibrate.study.yaml_lines import read_yaml
from bilevel.report import InputError
from bilevel.solvers.cellwise.unrolled import UnrolledProblem


def train_steps(file: Path, progress: bool = True, overwrite: bool = False) -> Path:
    """Train as family.yml says, or for the family of a study, write the weights and the card; the file of the weights.

    A training that was interrupted goes on from its last finished stage, or network: the file `out` with .checkpoint.
    Raises InputError for a file that is not right, a family that does not fit, or weights that exist, unless `overwrite`.
    """
    if "model" in read_yaml(file).content:
        return train_study(file, progress, overwrite)
    config = read_config(file)
    if config.out.exists() and not overwrite:
        raise InputError(f"{config.out} exists; name another file under `out`, or replace it with --force")
    family = find_family(config.family)
    started = time.perf_counter()
    if config.unrolled is not None:
        networks, losses = _unrolled(config, family, progress)
    else:
        networks, losses = _supervised(config, family, progress), []
    made_by = {
        "command": f"bilevel train-steps {file.name}",
        "settings": config.model_dump(mode="json", exclude={"out"}),
        "losses": losses,
        "seconds": time.perf_counter() - started,
        "threads": torch.get_num_threads(),
        "versions": versions(),
    }
    weights = Weights(config.learn, family.name, family.version, networks, made_by)
    weights.save(config.out)
    _checkpoint(config).unlink(missing_ok=True)
    return config.out


def _unrolled(config: TrainingConfig, family: Family, progress: bool) -> tuple[tuple[nn.Module, ...], list[float]]:
    assert config.unrolled is not None
    systems = config.unrolled.systems
    torch.manual_seed(config.seed)
    example = family.instance(config.schedule.stages[0].size, 0)
    network: nn.Module
    objective: Objective
    if config.learn is Kind.GUESS:
        cellwise = example.cellwise
        if not isinstance(cellwise, UnrolledProblem):
            raise InputError(f"the linear systems of '{family.name}' are not differentiable; train it supervised")
        network = network_for(cellwise, config.hidden, config.hops)
        objective = UnrolledGuess(systems)
    else:
        graph = example.read_by_steps
        static = graph.node_features.shape[1], graph.edge_features.shape[1]
        network = NodeNetwork(*static, hidden=config.hidden, rounds=config.hops)
        objective = UnrolledStep()
    losses = train(network, family, objective, config.schedule, checkpoint=_checkpoint(config), progress=progress)
    return (network,) * (systems or 1), losses


def _supervised(config: TrainingConfig, family: Family, progress: bool) -> tuple[nn.Module, ...]:
    given = config.supervised
    assert given is not None
    if family.instance(given.size, 0).cellwise is None:
        raise InputError(f"the family '{family.name}' has no linear systems to predict; learn steps instead")
    plan = Supervision(**given.model_dump(), hidden=config.hidden, hops=config.hops, seed=config.seed)
    return train_supervised(family, plan, checkpoint=_checkpoint(config), progress=progress)


def _checkpoint(config: TrainingConfig) -> Path:
    return config.out.with_suffix(".checkpoint")
