"""Weights on disk: plain tensors together with the family, the features and the training that they belong to."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any, Protocol

from torch import nn

from bilevel.acceleration.family import Family
from bilevel.acceleration.networks.cell_network import CellNetwork
from bilevel.inversion.networks.checkpoint import read_file, write_file
from bilevel.report import InputError
from bilevel.solvers.cellwise import split


class Named(Protocol):
    """What weights were trained on, by its name and the version of what it makes."""

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> int: ...


KIND = "guess"
"""What the networks do, as files say."""


@dataclass(frozen=True)
class Weights:
    """Trained networks: one for all linear systems of a guess, or one for each of its first ones.

    family, family_version: the family that they were trained on. made_by: seeds, schedule, command, versions, numbers.
    """

    family: str
    family_version: int
    networks: tuple[nn.Module, ...]
    made_by: dict[str, Any] = field(default_factory=dict)

    def save(self, file: Path) -> None:
        """Write the tensors to `file` and what made them to the model card beside it, `file` with .json."""
        content = {
            "kind": KIND,
            "family": self.family,
            "family_version": self.family_version,
            "feature_version": split.FEATURE_VERSION,
            "networks": [{"settings": _settings(n), "weights": n.state_dict()} for n in self.networks],
            "made_by": self.made_by,
        }
        write_file(content, file)
        card = {key: value for key, value in content.items() if key != "networks"}
        card["parameters"] = sum(p.numel() for n in self.networks for p in n.parameters())
        text = json.dumps(card, indent=1, ensure_ascii=False)
        file.with_suffix(".json").write_text(text + "\n", encoding="utf-8")

    @staticmethod
    def load(file: str | Path, family: Named) -> Weights:
        """Read weights for a family; InputError for a missing or damaged file, another family, or other features."""
        file = Path(file)
        content = _content(file)
        if content["family"] != family.name:
            raise InputError(
                f"the weights in {file} were trained on the family '{content['family']}', not on '{family.name}'; "
                "train again with `bilevel train-steps`, or use that family"
            )
        expected = (family.version, split.FEATURE_VERSION)
        found = (content["family_version"], content["feature_version"])
        if found != expected:
            raise InputError(
                f"the weights in {file} read version {found[0]}.{found[1]} of the features of '{family.name}', this "
                f"program makes version {expected[0]}.{expected[1]}; train again with `bilevel train-steps`"
            )
        networks = tuple(_network(one, file) for one in content["networks"])
        return Weights(family.name, family.version, networks, content["made_by"])


def shipped(family: Family) -> Path:
    """The file of the weights that come with the package; InputError where there are none."""
    file = Path(str(files("bilevel.acceleration"))) / "weights" / f"{family.name}_{KIND}.pt"
    if not file.exists():
        raise InputError(f"no weights are shipped for the family '{family.name}'; train your own")
    return file


def versions() -> dict[str, str]:
    """Of the packages that a training depends on."""
    return {name: version(name) for name in ("bilevel", "torch", "numpy", "scipy")}


def _content(file: Path) -> dict[str, Any]:
    wanted = {"kind", "family", "family_version", "feature_version", "networks", "made_by"}
    content = read_file(file, "file of weights")
    if set(content) != wanted or content["kind"] != KIND:
        raise InputError(f"{file} is not a file of weights written by `bilevel train-steps`")
    return content


def _settings(network: nn.Module) -> dict[str, int]:
    assert isinstance(network, CellNetwork)
    names = ("features", "outputs", "pairs", "hidden", "hops")
    return {name: getattr(network, name) for name in names}


def _network(one: dict[str, Any], file: Path) -> nn.Module:
    try:
        made = CellNetwork(**one["settings"])
        made.load_state_dict(one["weights"])
    except (TypeError, KeyError, RuntimeError) as error:
        raise InputError(f"the weights in {file} have other names or sizes than this program's networks") from error
    return made.eval().requires_grad_(False)
