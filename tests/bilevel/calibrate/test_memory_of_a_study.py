"""A calibration that remembers its inner states finds what one without finds, sooner, and resumes as if never cut."""

from __future__ import annotations

import io
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

import bilevel
from bilevel.calibrate import Parameter, Settings, calibrate, problem_from_function
from bilevel.calibrate.fit.journal import Journal
from bilevel.calibrate.fit.memory_file import memory_bytes, memory_of
from bilevel.calibrate.settings import Ensemble, EnsembleMethod, Method
from bilevel.calibrate.statistics.ensemble import ensemble
from bilevel.calibrate.statistics.profile import profiles
from bilevel.implicit.visit import Visit
from bilevel.solvers import Newton, Tolerance

SIZE = 20
LOAD = torch.linspace(0.5, 2.0, SIZE, dtype=torch.float64)
TRUTH = {"stiffness": 3.0, "hardening": 0.4}
START = [Parameter("stiffness", 1.0, transform="log"), Parameter("hardening", 2.0, transform="log")]


def energy(u, p):
    return 0.5 * p["stiffness"] * torch.diff(u, prepend=u.new_zeros(1)).square().sum() + (
        0.25 * p["hardening"] * (u**4).sum() - (LOAD * u).sum()
    )


class Springs:
    """A chain of springs; keeps the reports of its solves."""

    def __init__(self, tolerance=1e-10):
        self.solver, self.reports = Newton(tolerance=Tolerance(tolerance)), []

    def __call__(self, parameters):
        solution = bilevel.argmin(energy, torch.zeros(SIZE, dtype=torch.float64), parameters, solver=self.solver)
        self.reports.append(solution.report)
        return solution.u

    @property
    def factorisations(self):
        return sum(report.counts.factorisations for report in self.reports) / len(self.reports)


def observed(noise):
    values = Springs(1e-14)({name: torch.tensor(value, dtype=torch.float64) for name, value in TRUTH.items()})
    return values * (1 + noise * torch.from_numpy(np.random.default_rng(0).standard_normal(SIZE)))


def fitted(model, data, **settings):
    problem = problem_from_function(START, model, data)
    return calibrate(problem, settings=Settings(**settings))


@pytest.mark.parametrize("method", [Method.LEAST_SQUARES, pytest.param(Method.LBFGSB, marks=pytest.mark.slow)])
def test_memory_on_and_off_find_the_same_parameters(method):
    data, warm, cold = observed(0.02), Springs(), Springs()
    on = fitted(warm, data, method=method, verify=False)
    off = fitted(cold, data, method=method, verify=False, memory=False)
    for name in TRUTH:
        assert on.values[name] == pytest.approx(off.values[name], rel=1e-8)
    np.testing.assert_allclose(on.statistics.std, off.statistics.std, rtol=1e-6)
    assert all(report.counts.warm_starts == 0 for report in cold.reports)
    assert warm.factorisations <= 0.5 * cold.factorisations


@pytest.mark.parametrize("noise", [0.0, 0.02])
def test_a_loose_inner_tolerance_leaves_no_noise_that_keeps_the_fit_from_converging(noise):
    result = fitted(Springs(1e-8), observed(noise))
    assert result.converged
    assert result.values["stiffness"] == pytest.approx(TRUTH["stiffness"], rel=1e-6 if noise == 0 else 0.1)


def test_the_file_of_a_memory_holds_all_that_was_found():
    x, tensors = torch.tensor([0.3, 0.5], dtype=torch.float64), torch.rand(4, 2, 3, 5, dtype=torch.float64)
    visit = Visit(x, ("a", "b"))
    visit.keep((0,), tensors[0], tensors[1], torch.rand(2, 3, 5, 5, dtype=torch.float64))
    visit.keep_tangent((0,), tensors[2:])
    visit.keep((1, 3), tensors[0, 0], tensors[1, 0])
    back = memory_of(np.load(io.BytesIO(memory_bytes({"tests / sand": visit}))))["tests / sand"]
    assert (back.frame, back.bytes) == (visit.frame, visit.bytes)
    assert torch.equal(back.x, x)
    for place, solve in visit.solves.items():
        for one, other in zip(vars(solve).values(), vars(back.solves[place]).values(), strict=True):
            assert other is None if one is None else torch.equal(one, other)


def test_checks_and_statistics_do_not_add_to_what_is_remembered():
    journal, model = Journal(), Springs()
    problem = problem_from_function(START, model, observed(0.02))
    result = calibrate(problem, settings=Settings(), journal=journal)
    points = {e["data"].x.numpy().tobytes() for e in journal.memory.evaluations}
    assert points <= {entry.evaluation.t.tobytes() for entry in journal.points.values()}
    assert result.jacobian_error < 1e-6


def test_another_equilibrium_than_that_of_a_cold_start_is_said():
    """Two wells; from its own start the model always falls into the left one, but at first there is only the right one."""
    wells = torch.linspace(0.9, 1.1, 8, dtype=torch.float64)

    def well(u, p):
        return (0.25 * (u**2 - wells) ** 2 - p["force"] * u).sum()

    def model(parameters):
        return bilevel.argmin(well, torch.full((8,), -1.0, dtype=torch.float64), parameters).u

    def data(force, start):
        p = {"force": torch.tensor(force, dtype=torch.float64)}
        return bilevel.argmin(well, torch.full((8,), start, dtype=torch.float64), p).u

    problem = problem_from_function([Parameter("force", 0.6)], model, data(0.1, 1.0))
    result = calibrate(problem, settings=Settings())
    assert any("memory: false" in note for note in result.notes)


STUDY = """\
title: Springs
model: {kind: python, file: model.py, name: springs}
parameters:
  - {name: stiffness, value: 1, transform: log}
  - {name: hardening, value: 2, transform: log}
observations:
  - {file: data.csv, value: {column: u}}
calibration: {verify: false}
"""
MODEL = """\
import torch, bilevel

def springs(parameters, columns):
    load = torch.linspace(0.5, 2.0, 20, dtype=torch.float64)

    def energy(u, p):
        stretch = torch.diff(u, prepend=u.new_zeros(1))
        return 0.5 * p["stiffness"] * stretch.square().sum() + 0.25 * p["hardening"] * (u**4).sum() - (load * u).sum()

    start = torch.zeros(20, dtype=torch.float64)
    return bilevel.argmin(energy, start, {name: parameters[name] for name in ("stiffness", "hardening")}).u
"""


def numbers(folder):
    result = json.loads((folder / "result.json").read_text())
    return {name: result[name] for name in ("parameters", "phi", "iterations", "evaluations", "notes")}


def prepared(study):
    (study.folder / "model.py").write_text(MODEL)
    (study.folder / "data.csv").write_text("u\n" + "\n".join(f"{u:.17g}" for u in observed(0.02)) + "\n")
    study.path.write_text(STUDY)
    return study


@pytest.mark.parametrize("every", [4, pytest.param(1, marks=pytest.mark.slow)])
def test_a_resumed_run_starts_its_solves_as_the_whole_one_did(fresh_study, no_pictures, monkeypatch, every):
    """Cut after every evaluation, with the checkpoint as it was then; the results are the same to the last bit."""
    whole, copies = prepared(fresh_study()), []
    append = Journal.append

    def copied(journal, evaluation, problem):
        append(journal, evaluation, problem)
        copies.append(whole.folder / f"copy{len(copies)}")
        shutil.copytree(journal.folder, copies[-1])

    monkeypatch.setattr(Journal, "append", copied)
    assert whole.call("run").code == 0
    monkeypatch.undo()
    expected = numbers(whole.results)
    assert len(copies) > 5
    assert list(copies[-1].glob("*.memory"))
    for copy in copies[3:-1:every]:
        cut = prepared(fresh_study())
        shutil.copytree(copy, cut.results / "checkpoint")
        outcome = cut.call("resume")
        assert outcome.code == 0, outcome
        assert numbers(cut.results) == expected


def test_the_key_of_the_study_turns_it_off(study, no_pictures):
    prepared(study)
    study.path.write_text(STUDY.replace("verify", "memory: false, noptmax: 1, verify"))
    study.call("run")
    assert list((study.results / "checkpoint").glob("*.npz"))
    assert not list((study.results / "checkpoint").glob("*.memory"))


WORK: list[int] = []
"""Factorisations of the members of ensembles and of the points of profiles, wherever their problem was copied to."""


def counted(parameters):
    solution = bilevel.argmin(
        energy, torch.zeros(SIZE, dtype=torch.float64), parameters, solver=Newton(tolerance=Tolerance(1e-10))
    )
    WORK.append(solution.report.counts.factorisations)
    return solution.u


@pytest.mark.slow
@pytest.mark.parametrize("method", [EnsembleMethod.RML, EnsembleMethod.SMOOTHER])
def test_members_of_an_ensemble_start_from_the_optimum(method):
    priors = [replace(p, prior_mean=m, prior_log_std=0.3) for p, m in zip(START, (3.0, 0.4))]
    problem = problem_from_function(priors, counted, observed(0.02))
    found = {}
    for memory in (True, False):
        settings = Settings(verify=False, memory=memory)
        result = calibrate(problem, settings=settings)
        WORK.clear()
        members = ensemble(problem, result.evaluation, Ensemble(10, method), settings=settings)
        found[memory] = members.values, np.mean(WORK)
    np.testing.assert_allclose(found[True][0], found[False][0], rtol=1e-6)
    assert found[True][1] <= 0.6 * found[False][1]


@pytest.mark.slow
def test_points_of_a_profile_start_from_each_other():
    problem = problem_from_function(START, counted, observed(0.02))
    found = {}
    for memory in (True, False):
        settings = Settings(verify=False, memory=memory)
        result = calibrate(problem, settings=settings)
        WORK.clear()
        (profile,) = profiles(problem, result.evaluation, ["hardening"], settings=settings)
        found[memory] = (profile.lower, profile.upper), np.mean(WORK)
    np.testing.assert_allclose(found[True][0], found[False][0], rtol=1e-6)
    assert found[True][1] <= 0.6 * found[False][1]
