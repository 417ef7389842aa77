"""`bilevel train-steps`: from family.yml to a file of weights and its model card."""

from __future__ import annotations

import time
from pathlib import Path

import torch

from bilevel.acceleration.training.config import find_family, read_config
from bilevel.acceleration.training.supervised import Supervision, train_supervised
from bilevel.acceleration.training.train_study import train_study
from bilevel.acceleration.weights_file import Weights, versions
from bilevel.calibrate.study.yaml_lines import read_yaml
from bilevel.report import InputError


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
    if family.instance(config.size, 0).cellwise is None:
        raise InputError(f"the family '{family.name}' has no linear systems to predict")
    started = time.perf_counter()
    plan = Supervision(**config.model_dump(exclude={"family", "out"}))
    checkpoint = config.out.with_suffix(".checkpoint")
    networks = train_supervised(family, plan, checkpoint=checkpoint, progress=progress)
    made_by = {
        "command": f"bilevel train-steps {file.name}",
        "settings": config.model_dump(mode="json", exclude={"out"}),
        "seconds": time.perf_counter() - started,
        "threads": torch.get_num_threads(),
        "versions": versions(),
    }
    Weights(family.name, family.version, networks, made_by).save(config.out)
    checkpoint.unlink(missing_ok=True)
    return config.out
