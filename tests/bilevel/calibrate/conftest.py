"""A small study on disk, whose text tests may change, and the command line called in this process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bilevel.cli import app

STUDY = """\
title: Decay
model: {kind: python, file: model.py, name: decay}
parameters:
  - {name: amplitude, value: 1, lower: 0.1, upper: 10, units: m, transform: log}
  - {name: rate, value: 1, lower: 0.01, upper: 100, units: 1/h}
observations:
  - file: data.csv
    value: {column: height, units: cm}
    columns: {time: {column: t, units: h}}
    group: {column: gauge}
    std: 2
"""
MODEL = """\
import torch

def decay(parameters, columns):
    return parameters["amplitude"] * torch.exp(-parameters["rate"] * columns["time"])

from bilevel.calibrate import works_in
decay = works_in("m", columns={"time": "s"}, parameters={"amplitude": "m", "rate": "1/s"})(decay)
"""
DATA = """\
# made up
t,gauge,height
0,a,203
0.5,a,158
1,a,117
1.5,a,98
2,b,71
2.5,b,59
3,b,43
4,b,29
"""


@dataclass
class Outcome:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str


@dataclass
class StudyFolder:
    """A study's folder; `edit` replaces a text in one of its files."""

    folder: Path

    @property
    def path(self) -> Path:
        return self.folder / "study.yml"

    @property
    def results(self) -> Path:
        return self.folder / "results"

    def edit(self, old: str, new: str, file: str = "study.yml") -> None:
        text = (self.folder / file).read_text()
        assert old in text
        (self.folder / file).write_text(text.replace(old, new, 1))

    def call(self, command: str, *options: str) -> Outcome:
        result = CliRunner().invoke(app, [command, str(self.path), *options])
        return Outcome(result.exit_code, result.stdout, result.stderr)


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs in this process draw nothing, which is most of the time of a small study."""

    def write(study: object, result: object, folder: Path, drawing: object) -> list[str]:
        (folder / "report.html").write_text("no pictures in this test")
        return []

    monkeypatch.setattr("bilevel.calibrate.study.session.write_report", write)


@pytest.fixture
def study(tmp_path: Path) -> StudyFolder:
    for name, text in {"study.yml": STUDY, "model.py": MODEL, "data.csv": DATA}.items():
        (tmp_path / name).write_text(text)
    return StudyFolder(tmp_path)


@pytest.fixture
def fresh_study(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], StudyFolder]:
    """Makes further studies."""

    def make() -> StudyFolder:
        folder = tmp_path_factory.mktemp("study")
        for name, text in {"study.yml": STUDY, "model.py": MODEL, "data.csv": DATA}.items():
            (folder / name).write_text(text)
        return StudyFolder(folder)

    return make
