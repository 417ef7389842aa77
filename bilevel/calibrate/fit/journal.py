"""The journal of a calibration: every evaluated point, so that an interrupted run can take the same way again.

A resumed run starts the optimiser anew and answers its questions from the journal, bit by bit, until the journal ends;
so it walks the path of the uninterrupted run. Each point is a file of its own, put in place in one step.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import zipfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bilevel.calibrate.problem import CalibrationProblem, Evaluation
from bilevel.calibrate.study.files import write_atomically
from bilevel.report import Counts, InputError

_SCALARS = ("inner_solves", "inner_iterations", "gradient_error", "seconds", "sentence")
_ABOUT = "about.json"


class Journal:
    """Evaluations by the exact bytes of their point, kept in memory and, with a folder, on disk.

    scope: name of the stage that asks and remembers; the stages of a calibration share one journal.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder
        self.count = 0
        self.scope = ""
        self.evaluations: dict[tuple[str, bytes], Evaluation] = {}
        self.state: dict[str, dict[str, Tensor]] = {}
        for path in sorted(folder.glob("*.npz")) if folder is not None else []:
            scope, evaluation, self.state = _unpacked(path)
            self.evaluations[scope, evaluation.t.tobytes()] = evaluation
            self.count += 1

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

    def find(self, t: np.ndarray) -> Evaluation | None:
        return self.evaluations.get((self.scope, t.tobytes()))

    def append(self, evaluation: Evaluation, problem: CalibrationProblem) -> None:
        """Remember an evaluation, with the models' states after it."""
        number, self.count = self.count, self.count + 1
        self.evaluations[self.scope, evaluation.t.tobytes()] = evaluation
        if self.folder is not None:
            states = {e.name: e.model.state() for e in problem.experiments}
            write_atomically(self.folder / f"{number:06d}.npz", _packed(self.scope, evaluation, states))

    def restore(self, problem: CalibrationProblem) -> None:
        """Give the models the states that they had after the last evaluation on disk; once, for they move on from there."""
        for experiment in problem.experiments:
            if state := self.state.get(experiment.name):
                experiment.model.restore(state)
        self.state = {}


def _packed(scope: str, evaluation: Evaluation, states: Mapping[str, Mapping[str, Tensor]]) -> bytes:
    arrays: dict[str, np.ndarray] = {
        "scope": np.array(scope),
        "t": evaluation.t,
        "residual": evaluation.residual,
        "gradient": evaluation.gradient,
        "prediction": evaluation.prediction,
        "counts": np.array(list(asdict(evaluation.counts).values())),
    }
    arrays |= {name: np.array(getattr(evaluation, name)) for name in _SCALARS}
    if evaluation.jacobian is not None:
        arrays["jacobian"] = evaluation.jacobian
    for experiment, state in states.items():
        arrays |= {f"state/{experiment}/{key}": value.detach().cpu().numpy() for key, value in state.items()}
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def _unpacked(path: Path) -> tuple[str, Evaluation, dict[str, dict[str, Tensor]]]:
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file.items())
    except (ValueError, OSError, zipfile.BadZipFile):
        raise InputError(f"{path}: the checkpoint is damaged; start again with run --force") from None
    states: dict[str, dict[str, Tensor]] = {}
    for name, value in arrays.items():
        if name.startswith("state/"):
            _, experiment, key = name.split("/", 2)
            states.setdefault(experiment, {})[key] = torch.from_numpy(value)
    if "scope" not in arrays:
        raise InputError(f"{path}: the checkpoint is of an earlier version; start again with run --force")
    evaluation = Evaluation(
        t=arrays["t"],
        residual=arrays["residual"],
        gradient=arrays["gradient"],
        jacobian=arrays.get("jacobian"),
        prediction=arrays["prediction"],
        counts=Counts(*(int(k) for k in arrays["counts"])),
        **{name: arrays[name].item() for name in _SCALARS},
    )
    return arrays["scope"].item(), evaluation, states
