"""Several starts find the deeper of two minima, alike with and without an executor."""

import json
import math
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from bilevel.calibrate.fit.executors import Workers
from bilevel.calibrate.fit.multistart import multistart
from bilevel.calibrate.fit.start_outcomes import StartOutcome, minima, starts_verdict
from bilevel.calibrate.function_problem import problem_from_function
from bilevel.calibrate.parameter import Parameter
from bilevel.calibrate.parameters import ParameterSet
from bilevel.calibrate.settings import Settings, Starts, StartSampling
from bilevel.report import BilevelError, InputError

X = torch.linspace(0.0, 6.0, 40)


def wave(p):
    return torch.sin(p["frequency"] * X)


@pytest.mark.slow
def test_the_right_frequency_is_found_from_a_start_that_is_trapped():
    problem = problem_from_function([Parameter("frequency", 7.0, 0.5, 8.0)], wave, torch.sin(2.3 * X))
    alone = multistart(problem, Starts(12))
    assert float(alone[0].values["frequency"]) == pytest.approx(2.3, rel=1e-8)
    assert alone[0].phi < 1e-12
    assert alone[-1].phi > 1.0
    with ThreadPoolExecutor(2) as pool:
        pooled = multistart(problem, Starts(12), workers=Workers(pool))
    np.testing.assert_allclose([o.phi for o in pooled], [o.phi for o in alone], rtol=1e-9, atol=1e-20)


def humps(p):
    """Residuals of Rastrigin's function (1974), which has a minimum near each pair of whole numbers."""
    x = torch.stack([p["x"], p["y"]])
    return torch.cat([x, math.sqrt(20) * torch.sin(math.pi * x)])


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_an_evolution_strategy_leads_to_the_deepest_of_a_hundred_minima(seed):
    pytest.importorskip("cma")
    parameters = [Parameter("x", 3.8, -5.12, 4.5), Parameter("y", -2.9, -5.12, 4.5)]
    problem = problem_from_function(parameters, humps, torch.zeros(4))
    settings = Settings(verify=False)
    found = multistart(problem, Starts(3, StartSampling.CMA_ES, seed), settings=settings)
    assert found[0].phi < 1e-6
    assert found[-1].number == 0
    assert found[-1].phi > 1
    again = multistart(problem, Starts(3, StartSampling.CMA_ES, seed), settings=settings)
    assert [(o.phi, o.number) for o in again] == [(o.phi, o.number) for o in found]
    assert "do not tell" in starts_verdict(problem.parameters, [found[0], found[0]])


def test_without_the_package_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "cma", None)
    problem = problem_from_function([Parameter("frequency", 7.0, 0.5, 8.0)], wave, torch.sin(2.3 * X))
    with pytest.raises(InputError, match=r"pip install 'bilevel\[evolution\]'"):
        multistart(problem, Starts(3, "cma_es"), settings=Settings(verify=False))


def test_bounds_are_needed():
    with pytest.raises(InputError, match="several starts need a lower and an upper bound"):
        multistart(problem_from_function([Parameter("frequency", 7.0)], wave, X), Starts(3))


def wavy(study):
    """A study whose phi has many minima along its rate."""
    study.edit(
        'torch.exp(-parameters["rate"] * columns["time"])',
        'torch.sin(parameters["rate"] * columns["time"])',
        "model.py",
    )
    study.edit("value: 1, lower: 0.01, upper: 100, units: 1/h", "value: 7, lower: 0.5, upper: 8, units: 1/h")
    times = np.linspace(0.0, 6.0, 40)
    heights = 200 * np.sin(2.3 * times) + 2 * np.random.default_rng(0).normal(size=40)
    rows = "\n".join(f"{t!r},a,{h!r}" for t, h in zip(times.tolist(), heights.tolist()))
    (study.folder / "data.csv").write_text(f"t,gauge,height\n{rows}\n")


def outcome(number, at, phi, converged=True):
    return StartOutcome(number, {}, {"x": np.array(at)}, phi, converged, "")


def test_ends_at_one_point_are_one_minimum():
    parameters = ParameterSet([Parameter("x", 0.0, -1.0, 1.0)])
    ends = [outcome(0, 0.5, 1.0), outcome(1, 0.5001, 1.0), outcome(2, -0.5, 3.0), outcome(3, 0.2, 0.5, False)]
    assert [[o.number for o in minimum.outcomes] for minimum in minima(parameters, ends)] == [[0, 1], [2]]


def test_whether_the_optimum_looks_global_is_the_share_of_the_space_not_met():
    """Boender and Rinnooy Kan: two minima from 12 starts leave 2 * 3 / (12 * 11) of the space, from 4 starts a half."""
    parameters = ParameterSet([Parameter("x", 0.0, -1.0, 1.0)])

    def starts(n):
        return [outcome(k, 0.5 if k else -0.5, 1.0 if k else 2.0) for k in range(n)]

    assert "11 of 12 starts ended at the least phi, 1; 1 other minima were met (phi 2)" in starts_verdict(
        parameters, starts(12)
    )
    assert "expected in 4.5 % of the space of starts: the optimum looks global" in starts_verdict(
        parameters, starts(12)
    )
    assert "expected in 50 % of the space of starts: more starts are needed" in starts_verdict(parameters, starts(4))
    assert "met once only" in starts_verdict(parameters, starts(2))
    twins = [outcome(k, 0.5 if k % 2 else -0.5, 1.0) for k in range(8)]
    assert "which the data do not tell apart" in starts_verdict(parameters, twins)


def test_a_study_from_several_starts_finds_what_one_misses(study, no_pictures):
    wavy(study)
    study.call("run")
    trapped = json.loads((study.results / "result.json").read_text())
    started = study.call("multistart", "--count", "12")
    assert started.code == 0
    best = json.loads((study.results / "multistart" / "result.json").read_text())
    assert best["phi"] < 0.1 * trapped["phi"]
    assert best["parameters"]["rate"]["value"] == pytest.approx(2.3, rel=0.01)
    assert len(best["starts"]) == 12
    assert "starts ended at the least phi" in started.out
    again = study.call("resume", "--out", str(study.results / "multistart"))
    assert again.code == 0
    assert json.loads((study.results / "multistart" / "result.json").read_text())["starts"] == best["starts"]


def test_starts_need_bounds_and_say_where(study):
    study.edit("title: Decay", "title: Decay\nstarts: 4")
    study.edit("lower: 0.01, upper: 100, ", "")
    ran = study.call("run")
    assert ran.code == 2
    assert "line 2: starts: parameter 'rate': several starts need a lower and an upper bound" in ran.err


@pytest.mark.slow
def test_64_starts_are_the_same_bit_for_bit_in_this_process_and_in_others(study, no_pictures):
    wavy(study)
    study.edit("title: Decay", "title: Decay\ncalibration: {noptmax: 15, tolerance: 1e-3}")
    found = []
    for options in (
        ["--executor", "serial"],
        ["--executor", "processes", "--workers", "1"],
        ["--executor", "processes", "--workers", "2"],
    ):
        assert study.call("multistart", "--count", "64", "--force", *options).code == 0
        result = json.loads((study.results / "multistart" / "result.json").read_text())
        found.append((result["starts"], result["parameters"], result["phi"]))
    assert found[0] == found[1] == found[2]


@pytest.mark.slow
def test_a_driver_that_is_killed_loses_no_finished_start(study, no_pictures):
    wavy(study)
    assert study.call("multistart", "--count", "12").code == 0
    whole = json.loads((study.results / "multistart" / "result.json").read_text())
    other = study.folder / "killed"
    command = [sys.executable, "-m", "bilevel", "multistart", str(study.path), "--count", "12", "--out", str(other)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    kept = other / ".checkpoint.next" / "tasks"
    while process.poll() is None and len(list(kept.glob("*.json"))) < 3:
        time.sleep(0.02)
    process.kill()
    process.wait()
    done = {file: file.stat().st_mtime_ns for file in kept.glob("*.json")}
    assert 3 <= len(done) < 12
    assert study.call("resume", "--out", str(other)).code == 0
    resumed = json.loads((other / "result.json").read_text())
    assert (resumed["starts"], resumed["parameters"]) == (whole["starts"], whole["parameters"])
    for file, when in done.items():
        assert (other / "checkpoint" / "tasks" / file.name).stat().st_mtime_ns == when


def test_a_model_that_fails_everywhere_is_told_by_the_strategy():
    pytest.importorskip("cma")

    def broken(p):
        raise ValueError("no licence")

    problem = problem_from_function([Parameter("frequency", 7.0, 0.5, 8.0)], broken, torch.sin(2.3 * X))
    with pytest.raises(BilevelError, match="wherever the evolution strategy looked; it said: no licence"):
        multistart(problem, Starts(3, "cma_es"), settings=Settings(verify=False))
