"""Runs of one study that differ in some keys, side by side."""

from __future__ import annotations

import json

import pytest
import torch

from bilevel.calibrate import load_study

pytestmark = pytest.mark.usefixtures("no_pictures")

RUNS = """\
runs:
  slow: {parameters: {rate: {value: 0.5, fixed: true}}, title: Slow decay}
  twice: {parameters: {rate: {expr: 0.2 * amplitude / metre, }, metre: {value: 2}}}
  quick: {calibration: {noptmax: 0}}
  other: {model: {name: other}}
"""


MODEL = """
@works_in("m", columns={"time": "s"}, parameters={"amplitude": "m", "rate": "1/s"})
def other(parameters, columns):
    return 0 * columns["time"]
"""


@pytest.fixture
def runs(study):
    study.edit("title: Decay\n", RUNS + "title: Decay\n")
    with (study.folder / "model.py").open("a") as model:
        model.write(MODEL)
    return study


def test_keys_of_a_run_take_the_place_of_the_study_s(runs):
    plain, slow = load_study(runs.path), load_study(runs.path, "slow")
    assert (plain.title, slow.title) == ("Decay", "Slow decay")
    assert [p.label for p in slow.problem.parameters.free] == ["amplitude"]
    assert slow.problem.parameters.by_label["rate"].upper == 100
    assert load_study(runs.path, "quick").settings.noptmax == 0
    other = load_study(runs.path, "other").problem
    assert not other.predict(torch.as_tensor(other.parameters.start())).any()


def test_each_run_has_its_folder_and_all_stand_in_one_table(runs):
    for options in ((), ("--run", "slow"), ("--run", "quick")):
        outcome = runs.call("run", *options)
        assert outcome.code == 0, outcome.err
    assert json.loads((runs.results / "slow" / "result.json").read_text())["title"] == "Slow decay"
    table = runs.call("compare").out.splitlines()
    assert table[0].split() == ["study", "quick", "slow"]
    rate = next(line for line in table if line.startswith("rate"))
    assert "0.5 1/h" in rate
    assert "1 1/h" in rate
    assert runs.call("run", "--run", "slow").code == 2
    assert runs.call("uncertainty", "--run", "slow").code == 0
    assert runs.call("resume", "--run", "slow").code == 0


def test_another_run_s_keys_do_not_make_results_stale(runs):
    assert runs.call("run", "--run", "quick").code == 0
    runs.edit("fixed: true", "fixed: false")
    assert runs.call("uncertainty", "--run", "quick").code == 0


CASES = {
    "a run that is not there": ("", "", "slw", "there is no run 'slw'; did you mean 'slow'?", ""),
    "a parameter that is not there": ("", "", "twice", "there is no parameter 'metre'", "line 3"),
    "a key that runs do not have": ("{calibration: {noptmax: 0}}", "{stages: []}", "quick", "not 'stages'", "line 4"),
    "a value that is none": ("value: 0.5", "value: half", "slow", "expected a number", "line 2"),
    "an unknown key of a parameter": ("fixed: true", "fxed: true", "slow", "did you mean 'fixed'?", "line"),
    "nothing": ("{calibration: {noptmax: 0}}", "5", "quick", "expected keys that differ, got '5'", "line 4"),
    "a folder of results": ("  quick:", "  state:", "state", "is a folder of results already", "line 4"),
    "a name that is none": ("  quick:", "  ../quick:", "slow", "should match pattern", "line 4"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_refused(runs, case):
    old, new, name, says, where = CASES[case]
    runs.edit(old, new)
    outcome = runs.call("check", "--run", name)
    assert (outcome.code, outcome.err.count("\n")) == (2, 1), outcome
    assert says in outcome.err
    assert f"study.yml, {where}" in outcome.err if where else "study.yml" in outcome.err


def test_nothing_to_compare(runs):
    assert "holds no result" in runs.call("compare").err
