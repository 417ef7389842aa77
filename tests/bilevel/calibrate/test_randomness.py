"""Residuals that are no noise are told, with what that does to the standard deviations; noise passes."""

import json
import re

import numpy as np
import pytest
import torch

from bilevel.calibrate.fit.run import calibrate
from bilevel.calibrate.function_problem import problem_from_function
from bilevel.calibrate.parameter import Parameter
from bilevel.calibrate.statistics.randomness import randomness, sentence
from bilevel.calibrate.statistics.uncertainty import linear_statistics
from bilevel.calibrate.study.loading import load_study

ROWS = 40


def autoregressive(r: float, generator: np.random.Generator) -> np.ndarray:
    noise = generator.normal(size=ROWS)
    for i in range(1, ROWS):
        noise[i] = r * noise[i - 1] + np.sqrt(1 - r**2) * noise[i]
    return noise


def fitted(noise: np.ndarray):
    """A constant fitted to 1 + noise, at its minimum."""
    problem = problem_from_function(
        [Parameter("level", 0.0)], lambda p: p["level"].expand(len(noise)), torch.as_tensor(1.0 + noise)
    )
    return problem, problem.evaluate(np.array([1.0 + noise.mean()]))


def judged(noise: np.ndarray):
    """The verdict on its residuals."""
    return randomness(*fitted(noise))[0]


def test_independent_noise_is_hardly_ever_called_systematic():
    generator = np.random.default_rng(1)
    alarms = sum(not judged(autoregressive(0.0, generator)).random for _ in range(300))
    assert alarms <= 4


def test_correlated_errors_are_noticed_and_their_effect_on_the_mean_is_foretold():
    generator = np.random.default_rng(2)
    samples = [autoregressive(0.8, generator) for _ in range(300)]
    verdicts = [judged(noise) for noise in samples]
    assert sum(not v.random for v in verdicts) >= 270
    naive = np.mean([noise.std(ddof=1) / np.sqrt(ROWS) for noise in samples])
    true = np.std([noise.mean() for noise in samples])
    told = np.median([linear_statistics(*fitted(noise)).factors.get("level", 1.0) for noise in samples[:50]])
    assert true / naive > 2.5
    assert 1.0 <= told / (true / naive) <= 3.0  # short series cannot exclude a long correlation: on the safe side


def test_alternating_errors_are_no_cause_for_alarm():
    verdict = judged(np.tile([1.0, -1.0], ROWS // 2))
    assert (verdict.runs, verdict.random) == (ROWS, True)
    assert verdict.autocorrelation == pytest.approx(-(ROWS - 1) / ROWS)
    assert sentence([verdict], {}) == ""


def test_a_wrong_model_is_told_in_one_note():
    x = torch.linspace(0.0, 1.0, 30)
    problem = problem_from_function([Parameter("a", 0.0), Parameter("b", 0.0)], lambda p: p["a"] + p["b"] * x, x**2)
    (note,) = calibrate(problem).notes
    assert "3 runs of equal sign where noise has" in note
    assert "standard deviations are too small" in note


def test_the_verdict_names_the_factors_of_the_table_and_no_other(study):
    times = np.linspace(0.0, 4.0, 60)
    heights = 200 * np.exp(-times) + 20 * np.sin(2.0 * times)
    rows = "\n".join(f"{t:.4f},a,{h:.3f}" for t, h in zip(times, heights, strict=True))
    (study.folder / "data.csv").write_text(f"t,gauge,height\n{rows}\n")
    result = calibrate(load_study(study.path).problem)
    note = next(note for note in result.notes if "not random" in note)
    told = {label: float(factor) for factor, label in re.findall(r"([\d.]+) \((amplitude|rate)\)", note)}
    assert told == {e.label: round(e.std_correlated / e.std, 1) for e in result.estimates}
    assert min(told.values()) > 1.5


def test_every_output_carries_the_note(study):
    times = np.linspace(0.0, 4.0, 24)
    heights = 200 * np.exp(-times) + 20 * np.sin(2.0 * times)  # a tide that the model does not know
    rows = "\n".join(f"{t:.4f},a,{h:.3f}" for t, h in zip(times, heights, strict=True))
    (study.folder / "data.csv").write_text(f"t,gauge,height\n{rows}\n")
    assert study.call("run").code == 0
    result = json.loads((study.results / "result.json").read_text())
    assert result["randomness_by_group"]["a"]["random"] is False
    (note,) = result["notes"]
    assert "The residuals of a (" in note
    assert "standard deviations are too small" in (study.results / "case.rec").read_text()
    assert "standard deviations are too small" in (study.results / "report.html").read_text()
