"""Units of users' functions: as written, or declared and converted; never converted behind their backs."""

from __future__ import annotations

import pytest
import torch

from bilevel import InputError
from bilevel.calibrate import load_study, works_in

STUDY = """\
title: Darcy
model: {kind: python, file: model.py, name: flux}
parameters:
  - {name: K, value: 20, units: m/d}
observations:
  - file: data.csv
    value: {column: q, units: m/d}
    columns: {drop: {column: drop, units: m}}
"""
MODEL = """\
import torch
from bilevel.calibrate import works_in

assert torch.get_default_dtype() is torch.float64
FACTOR = torch.tensor([2.0])

def flux(parameters, columns):
    assert FACTOR.dtype is torch.tensor([1.0]).dtype is torch.float64
    return parameters["K"] * columns["drop"]

daily = works_in("m/d", columns={"drop": "m"}, parameters={"K": "m/d"})(flux)
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "study.yml").write_text(STUDY)
    (tmp_path / "model.py").write_text(MODEL)
    (tmp_path / "data.csv").write_text("drop,q\n1,20\n2,40\n")
    return tmp_path


def test_a_function_that_declares_nothing_gets_numbers_as_written(folder):
    problem = load_study(folder / "study.yml").problem
    torch.testing.assert_close(problem.predict(torch.as_tensor(problem.parameters.start())), torch.tensor([20.0, 40.0]))
    torch.testing.assert_close(problem.value, torch.tensor([20.0, 40.0]))
    assert problem.experiments[0].observations.units_of("data").name == "m/d"


def test_a_function_that_declares_its_units_gets_them_whatever_the_study_has(folder):
    text = STUDY.replace("name: flux", "name: daily").replace("value: 20, units: m/d", "value: 240, units: cm/h")
    (folder / "study.yml").write_text(text.replace("units: m}", "units: km}").replace("title", "title"))
    problem = load_study(folder / "study.yml").problem
    expected = 57.6 * 1000.0 * torch.tensor([1.0, 2.0])
    torch.testing.assert_close(problem.predict(torch.as_tensor(problem.parameters.start())), expected)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("units: m}", "units: cm}", "has both 'm' and 'cm'"),
        ("units: m/d}\n    columns", "units: m/s}\n    columns", "has both 'd' and 's'"),
        ("name: flux", "name: daily}\n#", "needs a parameter|units"),
    ],
)
def test_mixed_units_without_a_declaration_are_refused(folder, old, new, says):
    text = STUDY.replace(old, new, 1)
    if "daily" in new:
        text = STUDY.replace("name: flux", "name: daily").replace(", units: m/d}\nobs", "}\nobs")
    (folder / "study.yml").write_text(text)
    with pytest.raises(InputError, match=says):
        load_study(folder / "study.yml")


def test_percent_and_degrees_do_not_clash(folder):
    (folder / "study.yml").write_text(
        STUDY.replace("units: m/d}\nobs", "units: deg}\nobs").replace("units: m}", "units: '%'}")
    )
    load_study(folder / "study.yml")


def test_a_declaration_with_a_wrong_unit_is_refused():
    with pytest.raises(InputError, match="'metre' is unknown"):
        works_in("metre")(lambda parameters, columns: 0)


def test_the_default_type_of_the_caller_stays(folder):
    torch.set_default_dtype(torch.float32)
    try:
        problem = load_study(folder / "study.yml").problem
        assert problem.predict(torch.as_tensor(problem.parameters.start())).dtype is torch.float64
        assert torch.get_default_dtype() is torch.float32
    finally:
        torch.set_default_dtype(torch.float64)
