"""`solver: learned` and `follow_path` in a study of a body whose law is a third party's."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from mesh_studies import study, write_rows

from bilevel.acceleration.study_family import StudyFamily
from bilevel.acceleration.training.train_steps import train_steps
from bilevel.acceleration.training.train_study import Effort, train_study
from bilevel.calibrate.study.study import Study
from bilevel.implicit.memory import Memory
from bilevel.report import InputError
from physics.discretisation import Shape, rectangle
from physics.discretisation.write import write_gmsh

LITTLE = Effort(seconds=0.1, probed=1, shown=1, draws=(2, 2), epochs=(3, 3))

GENT = """
import torch
from physics.constitutive import LawParameter, LawParameters, determinant
from physics.constitutive.elastic.law import SplitElasticLaw

PARAMETERS = LawParameters(
    LawParameter("mu", "Pa", lower=0.0), LawParameter("jm", lower=0.0), LawParameter("bulk_modulus", "Pa", lower=0.0)
)


class Gent(SplitElasticLaw):
    parameters = PARAMETERS

    def distortional(self, x, params):
        stretched = (x * x).sum((-2, -1)) - 3.0 - 2.0 * determinant(x).log()
        return -0.5 * params["mu"] * params["jm"] * torch.log1p(-stretched / params["jm"])

    def volumetric(self, change, params):
        return 0.5 * params["bulk_modulus"] * change.square()
"""

BAR = """\
title: A bar of Gent's rubber, pulled
model:
  kind: solid
  mesh: {file: bar.msh, units: m}
  kinematics: plane_strain
  law: gent
  mean_dilatation: MEAN
  supports:
    left: {x: 0 m, y: 0 m}
    right: {x: 0.7 m, y: 0.3 m}
  sensors:
    pull: {through: right, quantity: force_x}
    shear: {through: right, quantity: force_y}
    bottom: {at: [0.7 m, 0.1 m], quantity: uy}
  KEYS
parameters:
  - {name: mu, value: 0.5, lower: 0.3, upper: 1, units: MPa}
  - {name: jm, value: 20, lower: 10, upper: 60}
  - {name: bulk_modulus, value: 3, lower: 2, upper: 6, units: MPa}
observations:
  - {file: forces.csv, value: {column: value, units: N}, columns: {sensor: sensor}, group: forces, std: 1}
  - {file: lengths.csv, value: {column: value, units: mm}, columns: {sensor: sensor}, group: lengths, std: 1}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A study's folder, and a package with the law that pip might have installed."""
    package = tmp_path / "site"
    known = package / "gentle-1.0.dist-info"
    known.mkdir(parents=True)
    (package / "gentle.py").write_text(GENT)
    (known / "METADATA").write_text("Metadata-Version: 2.1\nName: gentle\nVersion: 1.0\n")
    (known / "entry_points.txt").write_text("[bilevel.laws]\ngent = gentle:Gent\n")
    monkeypatch.syspath_prepend(str(package))
    write_gmsh(tmp_path / "bar.msh", rectangle(4, 2, (2.0, 1.0), Shape.QUADRILATERAL))
    write_rows(tmp_path / "forces.csv", "sensor,value", [("pull", 1e5), ("shear", 1e4)])
    write_rows(tmp_path / "lengths.csv", "sensor,value", [("bottom", 10.0)])
    return tmp_path


def bar(folder: Path, keys: str = "", mean: bool = True) -> Study:
    return study(folder, BAR.replace("KEYS", keys).replace("MEAN", str(mean).lower()))


def evaluated(loaded: Study, t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    found = loaded.problem.evaluate(t)
    assert found.jacobian is not None
    return found.prediction, found.jacobian


@pytest.mark.parametrize(
    "mean", [pytest.param(True, marks=pytest.mark.slow), False], ids=["mean dilatation", "whole law"]
)
def test_a_learned_guess_leaves_state_and_gradient_what_they_are(
    folder: Path, capsys: pytest.CaptureFixture[str], mean: bool
) -> None:
    classical = bar(folder, mean=mean)
    with pytest.raises(InputError, match=r"guess\.pt; make them by `bilevel train-steps`"):
        bar(folder, "solver: learned", mean).problem.predict(torch.as_tensor(classical.problem.parameters.start()))
    train_study(folder / "study.yml", progress=False, effort=LITTLE)
    said = capsys.readouterr().out
    assert re.search(r"training takes about \d+ minutes .* a solve from the model's own start takes", said)
    assert re.search(r"unseen draws: .* it (pays after [\d,]+ solves|never pays)", said)
    learned, t = bar(folder, "solver: learned", mean), classical.problem.parameters.start()
    for one, other in zip(evaluated(learned, t), evaluated(classical, t), strict=True):
        assert np.abs(one - other).max() <= 1e-8 * np.abs(other).max()
    report = learned.problem.experiments[0].model.reports().solves[0]
    assert 1 <= report.counts.inferences <= 2
    assert report.reached_from == "a learned guess"
    with pytest.raises(InputError, match="--force"):
        train_steps(folder / "study.yml", progress=False)
    refuse_another_law(folder)


def refuse_another_law(folder: Path) -> None:
    """Weights know what they were trained on."""
    text = BAR.replace("KEYS", "solver: learned").replace("MEAN", "false").replace("law: gent", "law: yeoh")
    text = text.replace("name: mu,", "name: c1,").replace("- {name: jm, value: 20, lower: 10, upper: 60}", "")
    text = text.replace("parameters:\n", "parameters:\n  - {name: c2, value: 0, units: MPa, fixed: true}\n")
    text = text.replace("parameters:\n", "parameters:\n  - {name: c3, value: 0, units: MPa, fixed: true}\n")
    other = study(folder, text)
    with pytest.raises(InputError, match="trained on the family 'gent in"):
        other.problem.predict(torch.as_tensor(other.problem.parameters.start()))


def test_follow_path_goes_along_the_loads_and_says_so(folder: Path) -> None:
    loaded, free = bar(folder, "follow_path: true", mean=False), bar(folder, mean=False)
    t = torch.as_tensor(loaded.problem.parameters.start())
    memories = Memory(), Memory()
    for point, whence in ((t, "the start"), (t + 1e-3, "an earlier state")):
        with memories[0].remembering():  # the second solve has a neighbour to begin at, and does not take it
            found = loaded.problem.predict(point)
        report = loaded.problem.experiments[0].model.reports().solves[0]
        assert report.reached_from == "a path of loads"
        assert report.counts.warm_starts == 0
        with memories[1].remembering():
            expected = free.problem.predict(point)
        assert free.problem.experiments[0].model.reports().solves[0].reached_from == whence
    assert float((found - expected).abs().max()) <= 1e-7 * float(expected.abs().max())


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("KEYS", "solver: learned\n  follow_path: true", "line .*: .*a solve along the loads takes no guess"),
        ("KEYS", "solver: learned\n  time: {end: 1, steps: 2}", "line .*: .*begins each step at the one before"),
        (
            "kinematics: plane_strain",
            "kinematics: axisymmetric\n  solver: learned",
            "first guesses know bodies in plane",
        ),
    ],
)
def test_what_does_not_fit_is_refused(folder: Path, old: str, new: str, sentence: str) -> None:
    text = BAR.replace(old, new).replace("KEYS", "").replace("MEAN", "true")
    with pytest.raises(InputError, match=sentence):
        study(folder, text)


def test_a_study_without_a_body_is_no_family(folder: Path) -> None:
    (folder / "line.py").write_text("def line(parameters, columns):\n    return parameters['a'] * columns['x']\n")
    write_rows(folder / "line.csv", "x,y", [(1.0, 2.0), (2.0, 4.0)])
    loaded = study(
        folder,
        """\
        title: A line
        model: {kind: python, file: line.py, name: line}
        parameters:
          - {name: a, value: 1}
        observations:
          - {file: line.csv, value: {column: y}, columns: {x: x}, group: line, std: 1}
        """,
    )
    with pytest.raises(InputError, match="no inner solve that can be guessed"):
        StudyFamily(loaded.problem)
