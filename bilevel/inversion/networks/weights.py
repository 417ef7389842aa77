"""Weights on disk together with what made them: the operator's fingerprint, the schedule with its seed, command, versions."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from bilevel.inversion.networks.checkpoint import read_file, write_file
from bilevel.inversion.networks.network import UnrolledNetwork
from bilevel.inversion.networks.training import LayerwiseSchedule
from bilevel.linalg.linear_map import Fingerprint
from bilevel.report import InputError


@dataclass(frozen=True)
class Provenance:
    """What made a file of weights."""

    network: str
    depth: int
    operator: Fingerprint
    schedule: dict[str, Any]
    command: str
    versions: dict[str, str] = field(default_factory=dict)


def save_weights(
    network: UnrolledNetwork,
    file: Path | str,
    schedule: LayerwiseSchedule,
    command: str | None = None,
    overwrite: bool = False,
) -> Provenance:
    """Write the learned parameters and their provenance; the operator itself is not stored, only its fingerprint.

    Raises InputError where the file exists, unless `overwrite`.
    """
    file = Path(file)
    if file.exists() and not overwrite:
        raise InputError(f"{file} exists; choose another name, or overwrite=True to replace what may have taken hours")
    made_by = Provenance(
        type(network).__name__,
        network.depth,
        network.operator.fingerprint(),
        asdict(schedule),
        " ".join(sys.argv) if command is None else command,
        {name: version(name) for name in ("bilevel", "torch", "numpy")},
    )
    learned = {name: value.detach().cpu() for name, value in network.named_parameters()}
    write_file({"weights": learned, "provenance": asdict(made_by)}, file)
    return made_by


def load_weights(network: UnrolledNetwork, file: Path | str) -> Provenance:
    """Read weights into a network of the same kind and operator; raises InputError where either differs."""
    file = Path(file)
    content = read_file(file, "file of weights")
    try:
        raw = dict(content["provenance"])
        raw["operator"] = Fingerprint(*(tuple(part) for part in raw["operator"].values()))
        made_by = Provenance(**raw)
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{file} is not a file of weights written by save_weights ({type(error).__name__})") from error
    if (made_by.network, made_by.depth) != (type(network).__name__, network.depth):
        raise InputError(
            f"{file} holds a {made_by.network} with {made_by.depth} layers, not a {type(network).__name__} with {network.depth}"
        )
    if not made_by.operator.matches(network.operator.fingerprint()):
        raise InputError(
            f"the weights in {file} were made for another operator "
            f"({made_by.operator.domain} -> {made_by.operator.range}, other entries); train again or use that operator"
        )
    with torch.no_grad():
        own = dict(network.named_parameters())
        if set(own) != set(content["weights"]) or any(own[k].shape != v.shape for k, v in content["weights"].items()):
            raise InputError(f"the weights in {file} have other names or sizes than this {type(network).__name__}'s")
        for name, value in content["weights"].items():
            own[name].copy_(value)
    return made_by
