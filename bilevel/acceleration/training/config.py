"""family.yml: what `bilevel train-steps` reads, and which family a name means."""

from __future__ import annotations

import importlib
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, model_validator

from bilevel.acceleration.family import Family
from bilevel.acceleration.training.loop import CurriculumStage, TrainingSchedule
from bilevel.acceleration.weights_file import Kind
from bilevel.calibrate.study.validated import unknown_key, validated
from bilevel.calibrate.study.yaml_lines import Document, read_yaml
from bilevel.extensions import installed, load
from bilevel.report import InputError

GROUP = "bilevel.families"


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class CurriculumSection(_Section):
    """One stage of the curriculum."""

    size: int = Field(ge=16)
    rounds: PositiveInt
    updates: PositiveInt


class UnrolledSection(_Section):
    """How the unrolled training runs; see `TrainingSchedule`.

    systems: how many of the first linear systems a guess asks its network for; all of them if absent.
    """

    stages: list[CurriculumSection] = Field(min_length=1)
    systems: int | None = Field(None, ge=2)
    groups: PositiveInt = 20
    batch: PositiveInt = 8
    rate: PositiveFloat = 4e-3
    discount: float = Field(0.1, gt=0.0, lt=1.0)
    accuracy: float = Field(0.1, gt=0.0, lt=1.0)


class SupervisedSection(_Section):
    """How many linear systems are learned one after another, each with a network of its own, and from what."""

    systems: PositiveInt
    size: int = Field(ge=16)
    instances: PositiveInt
    epochs: PositiveInt
    rate: PositiveFloat = 3e-3


class TrainingConfig(_Section):
    """The keys of family.yml.

    family: a name of the entry-point group `bilevel.families`, or module:Class. learn: guess or step. out: the file of
    weights, beside the YAML file unless it is absolute. One of `unrolled` and `supervised` says how it is taught.
    """

    family: str
    learn: Kind
    out: Path
    seed: int = Field(0, ge=0)
    hidden: PositiveInt = 16
    hops: int = Field(2, ge=0)
    unrolled: UnrolledSection | None = None
    supervised: SupervisedSection | None = None

    @model_validator(mode="after")
    def _one_teacher(self) -> TrainingConfig:
        if (self.unrolled is None) == (self.supervised is None):
            raise ValueError("expected one of the keys 'unrolled' and 'supervised'")
        if self.learn is Kind.STEP and self.unrolled is None:
            raise ValueError("steps are trained unrolled; give the key 'unrolled'")
        if self.learn is Kind.STEP and self.unrolled is not None and self.unrolled.systems is not None:
            raise ValueError("a step is asked for in every iteration; leave out the key 'systems'")
        return self

    @property
    def schedule(self) -> TrainingSchedule:
        """The schedule of an unrolled training."""
        assert self.unrolled is not None
        given = self.unrolled.model_dump(exclude={"stages", "systems"})
        stages = tuple(CurriculumStage(s.size, s.rounds, s.updates) for s in self.unrolled.stages)
        return TrainingSchedule(stages, self.seed, **given)


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
