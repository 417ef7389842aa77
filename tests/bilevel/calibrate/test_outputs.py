"""The files of a run: complete, consistent with each other, self-contained, and safe against what users write."""

import csv
import json
import re

import numpy as np
import pytest

from bilevel.calibrate.model import Model, ModelFigure
from bilevel.calibrate.study.registry import register_model

HEADINGS = [
    "Verdict",
    "Parameters",
    "Misfit",
    "Data against model",
    "Residuals",
    "The way there",
    "Correlation",
    "Identifiability",
    "Gradient certificate",
    "How to reproduce",
]


def rows(path):
    with open(path, newline="") as stream:
        return list(csv.DictReader(stream))


def test_all_files_and_what_they_say(study):
    outcome = study.call("run")
    assert outcome.code == 0, outcome.err
    assert f"report: {study.results / 'report.html'}" in outcome.out
    result = json.loads((study.results / "result.json").read_text())
    amplitude = result["parameters"]["amplitude"]
    assert amplitude["units"] == "m"
    assert amplitude["at_bound"] is False
    low, high = amplitude["interval95"]
    assert low < amplitude["value"] < high
    for row in rows(study.results / "case.par.csv"):
        assert float(row["value"]) == result["parameters"][row["parameter"]]["value"]
        assert float(row["std"]) == result["parameters"][row["parameter"]]["std"]
    residuals = rows(study.results / "case.rei.csv")
    assert [float(r["measured"]) for r in residuals] == pytest.approx([203, 158, 117, 98, 71, 59, 43, 29], rel=1e-12)
    assert {r["units"] for r in residuals} == {"cm"}
    phi = sum((float(r["weight"]) * float(r["residual"])) ** 2 for r in residuals)
    assert result["phi"] == pytest.approx(phi, rel=1e-9)
    assert sum(result["phi_by_group"].values()) == pytest.approx(result["phi"], rel=1e-12)
    group_a = [float(r["residual"]) for r in residuals if r["group"] == "a"]
    assert result["rmse_by_group"]["a"]["value"] == pytest.approx(np.sqrt(np.mean(np.square(group_a))), rel=1e-9)
    saved = np.load(study.results / "case.jac.npz")
    gram = np.linalg.inv(saved["jacobian"].T @ saved["jacobian"]) * phi / 6
    covariance = rows(study.results / "case.post.cov.csv")
    found = [[float(row[label]) for label in saved["parameters"]] for row in covariance]
    np.testing.assert_allclose(found, gram, rtol=1e-8)
    assert [row["transform"] for row in covariance] == ["log", "none"]
    record = (study.results / "case.rec").read_text()
    assert "iteration 0: phi" in record
    assert "amplitude" in outcome.out
    assert "rmse" in outcome.out


def test_report_is_one_self_contained_page(study):
    study.edit("title: Decay", "title: Decay <script>alert(1)</script> & more\ndescription: '<b>bold</b>'")
    study.call("run")
    page = (study.results / "report.html").read_text()
    assert 'name=viewport content="width=device-width' in page
    assert "<script>" not in page
    assert "<b>bold" not in page
    assert "Decay &lt;script&gt;" in page
    assert not re.search(r'(src|href)="?(?!["d])|https?://', re.sub(r'src="data:[^"]*"', "", page))
    assert page.count("data:image/svg+xml;base64,") >= 6
    for heading in HEADINGS:
        assert heading in page
    assert "All free parameters are identifiable" in page


def test_report_says_what_is_not_identifiable(study, no_pictures):
    study.edit("value: 1, lower: 0.01, upper: 100", "value: 0.05, lower: 0.01, upper: 0.1")
    outcome = study.call("run")
    assert "rate is not identifiable: it ran to its upper bound 0.1 1/h" in outcome.out
    result = json.loads((study.results / "result.json").read_text())
    assert result["parameters"]["rate"]["at_bound"] == "upper"
    assert result["parameters"]["rate"]["std"] is None
    assert "rate" in result["not_identifiable"]


class Drawn(Model):
    """Has a picture and a state file of its own."""

    def simulate(self, parameters):
        return parameters["amplitude"] * self.observations.columns["time"] + parameters["rate"]

    def write_state(self, parameters, folder):
        assert float(parameters["amplitude"]) < 1
        (folder / "state.vtu").write_text("state")
        return [folder / "state.vtu"]

    def figures(self, parameters):
        from matplotlib.figure import Figure

        figure = Figure(figsize=(7, 3))
        figure.add_subplot().plot([0, float(parameters["amplitude"])])
        return [ModelFigure("The model's own <picture>", figure, "caption")]


def test_models_add_pictures_and_state(study):
    register_model("test_drawn", Drawn)
    study.edit("kind: python, file: model.py, name: decay", "kind: test_drawn")
    assert study.call("run").code == 0
    assert (study.results / "state" / "state.vtu").read_text() == "state"
    assert "The model&#39;s own &lt;picture&gt;" in (study.results / "report.html").read_text()


def test_other_commands(study, no_pictures):
    outcome = study.call("check")
    assert outcome.code == 0
    assert "study.yml: valid" in outcome.out
    assert "verdict: right" in outcome.out
    assert "group a: 4 rows, 4 fitted" in outcome.out
    assert not study.results.exists()
    assert study.call("uncertainty").code == 2
    outcome = study.call("jacobian")
    assert outcome.code == 0
    assert (study.results / "jacobian" / "case.jac.npz").exists()
    assert study.call("run").code == 0
    before = {p: p.stat().st_mtime_ns for p in study.results.iterdir()}
    outcome = study.call("uncertainty", "--noise", "known")
    assert outcome.code == 0
    assert "correlation" in outcome.out
    assert {p: p.stat().st_mtime_ns for p in study.results.iterdir()} == before
    outcome = study.call("plot")
    assert outcome.code == 0
    for line in outcome.out.split():
        with open(line, "rb") as picture:
            assert picture.read(8) == b"\x89PNG\r\n\x1a\n"


def test_noptmax_zero_writes_a_report_without_statistics(study):
    assert study.call("run", "--noptmax", "0").code == 0
    result = json.loads((study.results / "result.json").read_text())
    assert result["iterations"] == 0
    assert result["parameters"]["amplitude"]["value"] == 1
    assert result["correlation"] is None
    assert "nothing was fitted" in (study.results / "report.html").read_text()
    assert not (study.results / "case.jac.npz").exists()
