"""family.yml: what `bilevel train-steps` reads, and which family a name means."""

from __future__ import annotations

import importlib
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt

from bilevel.acceleration.family import Family
from bilevel.calibrate.study.validated import unknown_key, validated
from bilevel.calibrate.study.yaml_lines import Document, read_yaml
from bilevel.extensions import installed, load
from bilevel.report import InputError

GROUP = "bilevel.families"


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class TrainingConfig(_Section):
    """The keys of family.yml.

    family: a name of the entry-point group `bilevel.families`, or module:Class. out: the file of weights, beside the YAML
    file unless it is absolute. systems: how many linear systems are learned one after another, each with a network of its
    own of `hidden` wide layers and `hops` exchanges between neighbours, from `instances` solved instances of about `size`
    nodes.
    """

    family: str
    out: Path
    seed: int = Field(0, ge=0)
    hidden: PositiveInt = 16
    hops: int = Field(2, ge=0)
    systems: PositiveInt
    size: int = Field(ge=16)
    instances: PositiveInt
    epochs: PositiveInt
    rate: PositiveFloat = 3e-3


def read_config(path: Path) -> TrainingConfig:
    """Read family.yml; InputError with file and line where it is not right."""
    document = read_yaml(path)
    config = validated(document, TrainingConfig, document.content)
    _require_family(document, config.family)
    return config.model_copy(update={"out": path.parent / config.out})


def find_family(name: str) -> Family:
    """The family of a name, or of module:Class; InputError, with the nearest known name, if there is none."""
    known = installed(GROUP)
    if name in known:
        return load(known[name])()
    if ":" not in name:
        hint = unknown_key(name, known).removeprefix("unknown key ")
        raise InputError(f"there is no family of the name {hint}")
    module, _, attribute = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise InputError(f"the family '{name}' cannot be imported: {error}") from None
    if not (isinstance(found, type) and issubclass(found, Family)):
        raise InputError(f"'{name}' is no subclass of bilevel.acceleration.family.Family")
    return found()


def _require_family(document: Document, name: str) -> None:
    try:
        find_family(name)
    except InputError as error:
        raise document.error(("family",), str(error)) from None
