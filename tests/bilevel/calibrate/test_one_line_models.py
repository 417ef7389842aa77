"""Models in one line, options of functions, and what `bilevel models` says."""

from __future__ import annotations

import pytest
import torch
from typer.testing import CliRunner

from bilevel.calibrate import load_study
from bilevel.cli import app

PYTHON = "{kind: python, file: model.py, name: decay}"
LINE = '{kind: expression, expr: "amplitude * exp(-rate * time)"}'


def predictions(study):
    problem = load_study(study.path).problem
    return problem.predict(torch.as_tensor(problem.parameters.start()))


def test_a_line_is_the_function_whatever_the_units(study):
    expected = predictions(study)
    study.edit(PYTHON, LINE)
    study.edit("units: 1/h}", "units: 1/min}")
    study.edit("value: 1, lower: 0.01", f"value: {1 / 60!r}, lower: 0.01")
    torch.testing.assert_close(predictions(study), expected, rtol=1e-14, atol=0)


def test_a_run_of_one_line(study, no_pictures):
    study.edit(PYTHON, LINE)
    assert study.call("check").code == 0
    assert study.call("run").code == 0


CASES = {
    "a name that nothing gives": ("rate * time", "rte * time", "needs a parameter 'rte'"),
    "a parameter that does not occur": (" * exp(-rate * time)", " * exp(-1)", "parameter 'rate' is not known to the model"),
    "dimensions": ("exp(-rate * time)", "exp(-rate) * time", "takes a pure number, not s^-1"),
    "dimensions of the values": ("amplitude *", "amplitude ** 2 *", "expr: makes m^2, and the values of 'a' are in 'cm' (m)"),
    "an entry": ("amplitude *", "amplitude[0] *", "is an entry of a field"),
    "no arithmetic": ("amplitude *", "amplitude @", "is not understood"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_refused(study, case):
    study.edit(PYTHON, LINE)
    old, new, says = CASES[case]
    study.edit(old, new)
    outcome = study.call("check")
    assert (outcome.code, outcome.err.count("\n")) == (2, 1), outcome
    assert "study.yml, line" in outcome.err
    assert says in outcome.err


def test_options_reach_the_function_and_what_prepares(study):
    study.edit(
        'decay(parameters, columns):\n    return parameters["amplitude"]',
        'decay(parameters, columns, mesh, power=1):\n    return mesh * parameters["amplitude"] ** power',
        "model.py",
    )
    study.edit("import torch\n", "import torch\n\ndef mesh(columns, factor):\n    return factor\n", "model.py")
    study.edit("value: 1, lower: 0.1", "value: 2, lower: 0.1")
    study.edit("name: decay}", "name: decay, prepare: mesh, options: {power: 3, factor: 0.5}}")
    assert float(predictions(study)[0]) == pytest.approx(4.0)
    study.edit("factor: 0.5", "factr: 0.5")
    outcome = study.call("check")
    assert outcome.code == 2
    assert "options: the function takes no 'factr'; did you mean 'factor'?" in outcome.err


def test_kinds_are_listed_with_all_that_they_take():
    run = CliRunner().invoke
    listed = run(app, ["models"]).output
    for kind in ("pumping_test", "python", "command", "expression"):
        assert kind in listed
    text = run(app, ["models", "pumping_test"]).output
    for part in ("keys under model:", "required", "columns: ", "values in: "):
        assert part in text
    assert "options" in run(app, ["models", "python"]).output
    wrong = run(app, ["models", "pumping"])
    assert wrong.exit_code == 2
    assert "did you mean 'pumping_test'?" in wrong.stderr
