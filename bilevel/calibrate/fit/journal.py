"""The journal of a calibration: every evaluated point, so that an interrupted run can take the same way again.

A resumed run goes over the accepted points and on from the last one, or asks the optimiser's questions again and answers
them from the journal, bit by bit; so it walks the path of the uninterrupted run. Each point is a file of its own, put in
place in one step. Jacobians are large: only those of the last accepted and of the last evaluated point are kept. Inner
states, from which the next solves start, are kept as long as the memory holds them.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import torch
from torch import Tensor

from bilevel.calibrate.evaluation import Evaluation
from bilevel.calibrate.fit.memory_file import MEMORY, memory_bytes, memory_of
from bilevel.calibrate.fit.point_file import VERSION, array_bytes, arrays_of, packed, unpacked
from bilevel.calibrate.problem import CalibrationProblem
from bilevel.calibrate.study.files import write_atomically
from bilevel.implicit.memory import Memory
from bilevel.implicit.visit import Visit
from bilevel.report import InputError

_ABOUT, _PATH = "about.json", "path.jsonl"
_FORCED_FROM = 1.0
"""Seconds of an evaluation from which its files are forced to disk: a power cut may cost shorter ones, which take less than that."""

States = dict[str, dict[str, Tensor]]


@dataclass
class JournalEntry:
    """An evaluation (without its Jacobian) under the number of its file; with_jacobian: it had one."""

    number: int
    evaluation: Evaluation
    with_jacobian: bool


@dataclass(frozen=True)
class Accepted:
    """A point that the loop accepted, with what the loop needs to go on from there."""

    scope: str
    number: int
    loop: dict[str, Any]


class Journal:
    """Evaluations by the exact bytes of their point, kept in memory and, with a folder, on disk.

    scope: name of the stage that asks and remembers; the stages of a calibration share one journal. notes: what a
    reader must know of the journal itself. A file that is damaged costs one evaluation, no more. writes: whether points
    go into the folder as well, or are only read from it.
    """

    def __init__(self, folder: Path | None = None, writes: bool = True, memory: Memory | None = None) -> None:
        self.folder, self.writes = folder, writes and folder is not None
        self.count = 0
        self.scope = ""
        self.memory = memory or Memory()
        self.points: dict[tuple[str, bytes], JournalEntry] = {}
        self.path: list[Accepted] = []
        self.notes: list[str] = []
        self._replaced: set[int] = set()  # points that were evaluated once more, with better derivatives
        self._jacobians: dict[int, np.ndarray] = {}
        self._initial: States = {}
        self._written: dict[str, Visit] | None = None  # what the memory held last when a file was written
        if folder is not None:
            self._load(folder)

    @staticmethod
    def create(folder: Path, about: Mapping[str, Any]) -> Journal:
        """A new, empty journal; the folder appears together with `about`, or not at all."""
        young = folder.with_name(f".{folder.name}.new")
        shutil.rmtree(young, ignore_errors=True)
        young.mkdir(parents=True)
        write_atomically(young / _ABOUT, json.dumps(about))
        os.replace(young, folder)
        return Journal(folder)

    @staticmethod
    def about(folder: Path) -> dict[str, Any]:
        """What `create` was told; InputError if there is no journal."""
        try:
            return json.loads((folder / _ABOUT).read_text())
        except (OSError, ValueError):
            raise InputError(f"{folder}: there is no checkpoint; call bilevel run first") from None

    @property
    def seconds(self) -> float:
        """What all evaluations took."""
        return sum(point.evaluation.seconds for point in self.points.values())

    def find(self, t: np.ndarray) -> JournalEntry | None:
        """The point, its evaluation with the Jacobian where that is still at hand."""
        point = self.points.get((self.scope, t.tobytes()))
        if point is None or not point.with_jacobian:
            return point
        return replace(point, evaluation=replace(point.evaluation, jacobian=self._jacobian(point.number)))

    def used(self) -> Iterator[Evaluation]:
        """The evaluations of this scope, without Jacobians."""
        return (point.evaluation for (scope, _), point in self.points.items() if scope == self.scope)

    def append(self, evaluation: Evaluation, problem: CalibrationProblem) -> None:
        """Remember an evaluation, with the models' states after it."""
        number, self.count = self.count, self.count + 1
        if self.folder is not None and self.writes:
            forced = evaluation.seconds >= _FORCED_FROM
            if evaluation.jacobian is not None:
                write_atomically(self._jacobian_file(number), array_bytes(evaluation.jacobian), forced)
            self._write_memory(number, forced)
            states = {e.name: e.model.state() for e in problem.experiments}
            write_atomically(self.folder / f"{number:06d}.npz", packed(self.scope, evaluation, states), forced)
            self._forget()
        self._remember(number, self.scope, evaluation)
        if evaluation.jacobian is not None:
            self.keep_jacobian(number, evaluation.jacobian)

    def _write_memory(self, number: int, forced: bool) -> None:
        """Inner states found by this evaluation, before its own file: where that is, they are."""
        latest = self.memory.evaluations[-1:]
        if self.folder is not None and latest and latest[0] is not self._written:
            write_atomically(self.folder / f"{number:06d}{MEMORY}", memory_bytes(latest[0]), forced)
            self._written = latest[0]

    def _forget(self) -> None:
        """Let go of the files of what the memory does not hold any more."""
        assert self.folder is not None
        files = sorted(self.folder.glob(f"[0-9]*{MEMORY}"))
        for file in files[: len(files) - len(self.memory.evaluations)]:
            file.unlink(missing_ok=True)

    def keep_jacobian(self, number: int, jacobian: np.ndarray) -> None:
        """Hold this Jacobian and that of the last accepted point, and let go of all others."""
        self._jacobians[number] = jacobian
        kept = {number, *(accepted.number for accepted in self.path[-1:])}
        for old in set(self._jacobians) - kept:
            del self._jacobians[old]
        for file in self.folder.glob("[0-9]*.npy") if self.folder is not None and self.writes else ():
            if int(file.stem) not in kept:
                file.unlink(missing_ok=True)

    def accept(self, t: np.ndarray, loop: dict[str, Any]) -> None:
        """Note that the loop took a point as its next iterate, and what it needs to go on from there."""
        point = self.points[self.scope, t.tobytes()]
        accepted = Accepted(self.scope, point.number, loop)
        self.path.append(accepted)
        if self.folder is not None and self.writes:
            with open(self.folder / _PATH, "a", encoding="utf-8") as stream:
                stream.write(json.dumps(asdict(accepted)) + "\n")
                stream.flush()
                if point.evaluation.seconds >= _FORCED_FROM:
                    os.fsync(stream.fileno())

    def accepted(self) -> list[tuple[JournalEntry, dict[str, Any]]]:
        """The accepted points of this scope in order, up to the first that is missing, with what the loop noted."""
        by_number = {p.number: p for (scope, _), p in self.points.items() if scope == self.scope}
        found = []
        for accepted in self.path:
            if accepted.scope == self.scope and accepted.number not in self._replaced:
                if accepted.number not in by_number:
                    break
                found.append((by_number[accepted.number], accepted.loop))
        return found

    def restore(self, problem: CalibrationProblem) -> None:
        """Give the models the states that they had after the last evaluation on disk."""
        self._initial = {e.name: dict(e.model.state()) for e in problem.experiments}
        _give(problem, self._states_after(self.count - 1))

    def give_states_before(self, point: JournalEntry, problem: CalibrationProblem) -> None:
        """Give the models the states in which they met a point, so that it can be evaluated alike."""
        _give(problem, self._states_after(point.number - 1) or self._initial)

    def _load(self, folder: Path) -> None:
        for file in sorted(folder.glob("[0-9]*.npz")):
            number = int(file.stem)
            self.count = number + 1
            try:
                arrays = arrays_of(file)
            except (ValueError, OSError, zipfile.BadZipFile):
                self.notes.append(f"point {number} of the checkpoint is damaged; what it held is evaluated again")
                continue
            if "scope" not in arrays or int(arrays.get("version", 0)) != VERSION:
                raise InputError(f"{file}: the checkpoint is of an earlier version; start again with run --force")
            scope, evaluation, with_jacobian = unpacked(arrays)
            if (earlier := self.points.get((scope, evaluation.t.tobytes()))) is not None:
                self._replaced.add(earlier.number)
            self.points[scope, evaluation.t.tobytes()] = JournalEntry(number, evaluation, with_jacobian)
        self.memory.megabytes = math.inf  # there is as much as there was room for
        for file in sorted(folder.glob(f"[0-9]*{MEMORY}")):
            if int(file.stem) < self.count:  # else a kill came before the evaluation's own file
                try:
                    self.memory.add(memory_of(arrays_of(file)))
                except (ValueError, KeyError, OSError, zipfile.BadZipFile):
                    self.notes.append(f"inner states of point {int(file.stem)} of the checkpoint are damaged")
        self._written = self.memory.evaluations[-1] if self.memory.evaluations else None
        if (folder / _PATH).exists():
            self.path = list(_lines(folder / _PATH))

    def _remember(self, number: int, scope: str, evaluation: Evaluation) -> None:
        if (earlier := self.points.get((scope, evaluation.t.tobytes()))) is not None:
            self._replaced.add(earlier.number)
        bare = replace(evaluation, jacobian=None)
        self.points[scope, evaluation.t.tobytes()] = JournalEntry(number, bare, evaluation.jacobian is not None)

    def _jacobian(self, number: int) -> np.ndarray | None:
        if number in self._jacobians or self.folder is None:
            return self._jacobians.get(number)
        try:
            return np.load(self._jacobian_file(number), allow_pickle=False)
        except (OSError, ValueError, EOFError):
            return None

    def _jacobian_file(self, number: int) -> Path:
        return (self.folder or Path()) / f"{number:06d}.npy"

    def _states_after(self, number: int) -> States:
        for k in range(number, -1, -1) if self.folder is not None else ():
            assert self.folder is not None
            try:
                arrays = arrays_of(self.folder / f"{k:06d}.npz")
            except (ValueError, OSError, zipfile.BadZipFile):
                continue
            states: States = {}
            for name, value in arrays.items():
                if name.startswith("state/"):
                    quoted, _, key = name.removeprefix("state/").partition("/")
                    experiment = unquote(quoted)
                    states.setdefault(experiment, {})[key] = torch.from_numpy(value)
            return states
        return {}


def _give(problem: CalibrationProblem, states: States) -> None:
    for experiment in problem.experiments:
        if state := states.get(experiment.name):
            experiment.model.restore(state)


def _lines(file: Path) -> Iterator[Accepted]:
    """The lines of the path; the last one may be torn by a kill."""
    for line in file.read_text(encoding="utf-8").splitlines():
        try:
            yield Accepted(**json.loads(line))
        except (ValueError, TypeError):
            return
