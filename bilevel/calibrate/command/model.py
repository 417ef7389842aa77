"""`kind: command`: any program that reads text files and writes what it computes."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from bilevel.calibrate.command.broyden import Broyden
from bilevel.calibrate.command.differences import Differences, DifferenceScheme
from bilevel.calibrate.command.input_file import Template
from bilevel.calibrate.command.outputs import FileOfRun, OutputSection
from bilevel.calibrate.command.program import Program
from bilevel.calibrate.model import Model, ModelConfig, ParameterDefault
from bilevel.calibrate.observations import ObservationTable
from bilevel.calibrate.study.csv_file import read_csv
from bilevel.calibrate.study.validated import hint
from bilevel.report import BilevelError, InputError


class TemplateSection(ModelConfig):
    """A template and the input file that it makes."""

    template: str = Field(min_length=1)
    """beside the study; `{{name}}` stands for a parameter, or `~name  ~` where the first line is `ptf ~`"""
    file: FileOfRun
    """its name where the program runs"""


class CommandModel(Model):
    """A program of anyone's own, run in a folder of its own for each simulation; numbers are as the study writes them.

    Parameters are the marks of the templates. A group's predictions stand in its output, in the order of its rows.
    Derivatives are differences, or what the program itself writes; the report says which.
    """

    class Config(ModelConfig):
        command: str | list[str]
        """what is run, without a shell: a line, or a list of words"""
        templates: list[TemplateSection] = Field(min_length=1)
        """input files that hold parameters"""
        files: list[str] = Field(default=[])
        """other files and folders beside the study that the program needs"""
        outputs: dict[str, OutputSection] = Field(min_length=1)
        """where the predictions stand, by group"""
        seconds: float = Field(default=3600.0, gt=0)
        """after which a run is stopped and has failed"""
        workers: int = Field(default=0, ge=0, le=4096)
        """runs at a time; 0: one for each core"""
        derivatives: Literal["forward", "central", "switching"] = "switching"
        """runs for a derivative: one a parameter, two, or one until the parameters hardly move and then two"""
        noise: float | None = Field(default=None, gt=0, lt=0.1)
        """of the outputs, relative, as digits that are not written or solvers that stop early leave it; left out: 1e-6, or what suits an increment"""
        increment: float | None = Field(default=None, gt=0, lt=1)
        """of a parameter, relative; left out: what suits the noise"""
        increments: dict[str, float] = Field(default={})
        """absolute increments of single parameters, in their units"""
        updates: int = Field(default=0, ge=0, le=100)
        """Broyden's updates between two Jacobians by differences: one run in the place of one or two a parameter"""
        jacobian: FileOfRun | None = None
        """a table that the program writes, a column a parameter and a row a prediction, in place of differences"""
        runs: str | None = Field(default=None, min_length=1)
        """a folder beside the study in which all runs stay; left out: only those that failed stay"""

        @model_validator(mode="after")
        def _sound(self) -> CommandModel.Config:
            if not (self.command if isinstance(self.command, list) else _words(self.command)):
                raise ValueError("the command is empty")
            for name, step in self.increments.items():
                if not step > 0:
                    raise ValueError(f"the increment of '{name}' must be positive, not {step:g}")
            if self.increment is not None and self.noise is not None and self.increment < 10 * self.noise:
                raise ValueError(
                    f"an increment of {self.increment:g} drowns in the noise of {self.noise:g}; make it larger"
                )
            return self

        @property
        def relative_noise(self) -> float:
            """That of the outputs; an increment that was chosen is taken to suit it."""
            return self.noise or (1e-6 if self.increment is None else min(1e-6, self.increment**2))

    as_written = True
    forward_mode = False  # a program sees numbers, not the tensors of a forward sweep

    def __init__(self, config: Config, observations: ObservationTable, folder: Path) -> None:
        super().__init__(config, observations, folder)
        templates = [Template.read(folder / t.template, t.file) for t in config.templates]
        self.names = list(dict.fromkeys(name for template in templates for name in template.names))
        for name in config.increments:
            if name not in self.names:
                raise InputError(f"increments: '{name}' stands in no template{hint(name, self.names)}")
        files = [folder / name for name in config.files]
        for path in files:
            _require_copyable(path, folder)
        self._match_groups()
        words = config.command if isinstance(config.command, list) else _words(config.command)
        self.program = Program(
            _found(words, folder, files),
            templates,
            files,
            config.seconds,
            config.workers or os.cpu_count() or 1,
            None if config.runs is None else folder / config.runs,
        )
        self.broyden = Broyden(config.updates)
        self.differences = Differences(
            DifferenceScheme(config.derivatives), config.relative_noise, config.increment, config.increments
        )

    @property
    def derivatives(self) -> str:
        if self.config.jacobian is not None:
            return f"as the program writes them into {self.config.jacobian}"
        return f"{self.config.derivatives} differences of the program, not exact: relative error about {self.differences.error:.0e}"

    @property
    def precision(self) -> float:
        return self.config.relative_noise if self.config.jacobian is not None else self.differences.error

    def parameter_defaults(self) -> Mapping[str, ParameterDefault]:
        return {name: ParameterDefault(description="in a template") for name in self.names}

    def simulate(self, parameters: Mapping[str, Tensor]) -> Tensor:
        given = [parameters[name] for name in self.names]
        for name, value in zip(self.names, given):
            if value.dim():
                raise InputError(f"parameter '{name}' is a field; a mark in a template is one number")
        stacked = torch.stack(given)
        point = stacked.detach().numpy()
        wanted = [i for i, value in enumerate(given) if value.requires_grad and torch.is_grad_enabled()]
        if not wanted:
            return torch.as_tensor(self._require(self._runs([point]))[0])
        if self.config.jacobian is not None:
            values, jacobian = self._written(point)
        elif self.broyden.suits(point):
            values, jacobian = self.broyden.update(point, self._require(self._runs([point]))[0])
        else:
            self._require_room(point, wanted)
            values, jacobian = self.differences(self.names, point, wanted, self._runs)
            self.broyden.begin(point, values, jacobian)
        # The values, with a derivative that torch can follow: the differences' Jacobian.
        return torch.as_tensor(values) + torch.as_tensor(jacobian) @ (stacked - stacked.detach())

    @property
    def stale(self) -> bool:
        return self.broyden.count > 0

    def renew(self) -> None:
        self.broyden.count = self.broyden.limit

    def state(self) -> Mapping[str, Tensor]:
        last = self.differences.last
        return {} if last is None else {"last": torch.as_tensor(last), **self.broyden.state()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        self.differences.last = state["last"].numpy().copy() if "last" in state else None
        self.broyden.restore(state)

    def _runs(self, points: Sequence[np.ndarray]) -> list[np.ndarray | BilevelError]:
        named = [dict(zip(self.names, map(float, point))) for point in points]
        return self.program.run_all(named, self._predictions)

    def _written(self, point: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        named = dict(zip(self.names, map(float, point)))
        found = self.program.run_all([named], lambda folder: (self._predictions(folder), self._table(folder)))
        return self._require(found)[0]

    def _predictions(self, folder: Path) -> np.ndarray:
        """All rows, from the outputs of their groups."""
        predictions = np.empty(len(self.observations))
        for group in self.observations.groups:
            rows, numbers = self.observations.rows(group).numpy(), self.config.outputs[group].read(folder)
            if len(numbers) != len(rows):
                raise BilevelError(
                    f"{self.config.outputs[group].file} has {len(numbers)} numbers for the {len(rows)} rows of group '{group}'"
                )
            predictions[rows] = numbers
        return predictions

    def _table(self, folder: Path) -> np.ndarray:
        try:
            table = read_csv(folder / str(self.config.jacobian))
            jacobian = np.stack([table.numbers(name) for name in self.names], axis=1)
        except InputError as error:
            raise BilevelError(f"its derivatives cannot be read: {error}") from None
        if len(jacobian) != len(self.observations):
            raise BilevelError(
                f"{self.config.jacobian} has {len(jacobian)} rows for {len(self.observations)} predictions"
            )
        return jacobian

    def _require_room(self, point: np.ndarray, wanted: Sequence[int]) -> None:
        """InputError where a mark is so narrow that an increment would not reach the program."""
        for i in wanted:
            moved = point.copy()
            moved[i] += self.differences.step(self.names[i], point[i], self.differences.central(point))
            here, there = (dict(zip(self.names, map(float, p))) for p in (point, moved))
            if all(t.fill(here) == t.fill(there) for t in self.program.templates):
                raise InputError(
                    f"the mark of '{self.names[i]}' has no room for its increment; make it wider, or the increment larger"
                )

    def _match_groups(self) -> None:
        groups, outputs = set(self.observations.groups), set(self.config.outputs)
        for group in self.observations.groups:
            if group not in outputs:
                raise InputError(
                    f"outputs: there is none for the group '{group}' of the observations{hint(group, outputs)}"
                )
        for name in self.config.outputs:
            if name not in groups:
                raise InputError(f"outputs: there is no group '{name}' of observations{hint(name, groups)}")

    @staticmethod
    def _require(found):  # type: ignore[no-untyped-def]
        if isinstance(found[0], BilevelError):
            raise found[0]
        return found


def _require_copyable(path: Path, folder: Path) -> None:
    """InputError for what cannot be copied into every run: nothing, a device, a folder in which the study itself is."""
    if not os.path.exists(path):  # Path.exists raises for names that are too long
        raise InputError(f"files: {path}: there is no such file")
    if not (os.path.isfile(path) or os.path.isdir(path)):
        raise InputError(f"files: {path}: is a device; expected a file or a folder")
    if path.resolve() in (folder.resolve(), *folder.resolve().parents):
        raise InputError(f"files: {path}: the study itself is in it; name what the program needs")


def _words(line: str) -> list[str]:
    try:
        return shlex.split(line)
    except ValueError as error:
        raise ValueError(f"the command cannot be split into words: {error}; give a list of words") from None


def _found(words: Sequence[str], folder: Path, files: Sequence[Path]) -> list[str]:
    """The command with its program found: on the path, beside the study, or among the files of a run."""
    first = words[0]
    beside = folder / first
    if os.path.isfile(beside) and os.access(beside, os.X_OK):
        return [str(beside.resolve()), *words[1:]]
    if shutil.which(first) is None and first.removeprefix("./") not in {path.name for path in files}:
        raise InputError(f"command: there is no program '{first}' on the path or beside the study")
    return list(words)
