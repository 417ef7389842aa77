"""Every key is used or refused, and every number is held against what the model declares."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import Field

from bilevel import InputError
from bilevel.calibrate import Model, ModelConfig, ParameterDefault, load_study, register_model
from bilevel.calibrate.study.examples import write_example

pytestmark = pytest.mark.usefixtures("no_pictures")


class Bounded(Model):
    """Knows its parameters, and what they may be."""

    class Config(ModelConfig):
        porosity: float = 0.3
        layers: int = 1
        closed: bool = False
        name: str = ""
        depths: list[float] = Field(default=[])

    columns = {"time": "s"}  # noqa: RUF012
    value_units = "m"

    def parameter_defaults(self):
        return {
            "amplitude": ParameterDefault("m", lower=0.0, upper=20.0, transform="log"),
            "rate": ParameterDefault("1/s", lower=0.0, upper=1.0),
        }

    def simulate(self, parameters):
        return parameters["amplitude"] * (-parameters["rate"] * self.observations.columns["time"]).exp()


register_model("test_bounded", Bounded)
BOUNDED = "{kind: test_bounded}"
AMPLITUDE = "value: 1, lower: 0.1, upper: 10, units: m, transform: log"
RATE = "value: 1, lower: 0.01, upper: 100, units: 1/h"

CASES = {
    "yes is no number": ("value: 1, lower: 0.1", "value: yes, lower: 0.1", "line 4", "expected a number, a list of numbers"),
    "true is no number": ("lower: 0.1", "lower: true", "line 4: parameters[1].lower", "expected a number, got 'true'"),
    "true is no start": ("value: 1, lower: 0.1", "value: true, lower: 0.1", "line 4", "got 'true'"),
    "a list with true": ("value: 1, lower: 0.1", "value: [1, true], lower: 0.1", "line 4", "got a list"),
    "a text is no number": ("upper: 10,", "upper: '10',", "line 4", "expected a number, got the text '10'"),
    "1:30 is no number": ("std: 2", "std: 1:30", "line 11", "got '1:30'"),
    "1_000 is no number": ("upper: 10,", "upper: 1_000,", "line 4", "got the text '1_000'"),
    "no is no truth value": (AMPLITUDE, AMPLITUDE + ", fixed: no", "line 4", "expected true or false"),
    "1 is no truth value": (AMPLITUDE, AMPLITUDE + ", fixed: 1", "line 4", "expected true or false, got '1'"),
    "a truth value is no group": ("group: {column: gauge}", "group: true", "line 10", "a mapping of keys"),
    "a typo in where": ("    std: 2", "    std: 2\n    where: {gauge: [a, B]}", "line 7", "no row has 'B' in column 'gauge'"),
    "where on a missing column": ("    std: 2", "    std: 2\n    where: {gauges: a}", "line 7", "did you mean 'gauge'?"),
    "tolerance": ("title: Decay", "title: Decay\ncalibration: {tolerance: 1e10}", "line 2", "less than 1"),
    "plot": ("title: Decay", "title: Decay\nplot: {x: tiem}", "line 2: plot.x", "did you mean 'time'?"),
    "unit zero": ("units: cm", "units: 0 cm", "line 7", "zero or beyond"),
    "unit to the power of 200": ("units: cm", "units: cm^200", "line 7", "a power of 200 makes no unit"),
    "unit to the power of 0": ("units: cm", "units: cm^0", "line 7", "a power of 0 makes no unit"),
    "unit over zero": ("units: cm", "units: cm/0", "line 7", "zero or beyond"),
    "a number alone is no unit": ("units: cm", "units: 50", "line 7", "a number alone names no unit"),
    "absurdly many iterations": ("title: Decay", "title: Decay\ncalibration: {noptmax: 99999999999999999999}", "line 2", "less than or equal to"),
    "a very long unit": ("units: cm", "units: " + "(" * 5000, "line 7", "longer than"),
    "negative bound of a log": ("lower: 0.1", "lower: -0.1", "line 4", "negative lower bound"),
    "prior of a fixed parameter": (RATE, RATE + ", fixed: true, prior_mean: 1, prior_std: 1", "line 5", "a prior does nothing"),
    "fixed outside its bounds": (RATE, "value: 200, upper: 100, units: 1/h, fixed: true", "line 5", "outside its bounds"),
    "group without a name": ("group: {column: gauge}", "group: ''", "line 10", "the group's name is empty"),
    "an empty list of experiments": (RATE, RATE + ", experiment: []", "line 5", "at least 1 item"),
    "delimiter of two characters": ("    std: 2", "    std: 2\n    delimiter: ',,'", "line 12", "delimiter"),
    "a quote as delimiter": ("    std: 2", "    std: 2\n    delimiter: '\"'", "line 12", "delimiter"),
    "values from nowhere": ("value: 1, lower: 0.1", "value: {file: a.csv, column: b, number: 3}, lower: 0.1", "line 4", "expected a number"),
    "a device": ("file: data.csv", "file: /dev/zero", "line 7", "a folder or a device"),
    "a folder": ("file: data.csv", "file: .", "line 7", "a folder or a device"),
    "a zero byte": ("file: data.csv", 'file: "a\\0b"', "line 7", "cannot be read|no such file"),
    "a device as model": ("file: model.py", "file: /dev/zero", "line 2", "a folder or a device"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_refused(study, case):
    import re

    old, new, where, says = CASES[case]
    study.edit(old, new)
    outcome = study.call("check")
    assert outcome.code == 2, outcome
    assert f"study.yml, {where}" in outcome.err
    assert any(re.search(re.escape(part), outcome.err) for part in says.split("|"))
    assert outcome.err.count("\n") == 1


BOUNDED_CASES = {
    "start": ("value: 1, lower: 0.1", "value: 25, lower: 0.1", "line 4", "value 25 is not between 0 and 20 m"),
    "start in other units": (RATE, "value: 7200, units: 1/h", "line 5", "value 7200 is not between 0 and 3600 1/h"),
    "fixed": (RATE, "value: -1, units: 1/h, fixed: true", "line 5", "value -1 is not between"),
    "lower": (RATE, RATE.replace("0.01", "-5"), "line 5", "lower -5 is not between"),
    "prior": (RATE, RATE + ", prior_mean: -3, prior_std: 1", "line 5", "prior_mean -3 is not between"),
    "a truth value in a model's number": ("kind: test_bounded", "kind: test_bounded, porosity: true", "line 2: model.porosity", "expected a number, got 'true'"),
    "a text in a model's number": ("kind: test_bounded", "kind: test_bounded, layers: '3'", "line 2: model.layers", "expected a number, got the text '3'"),
    "yes in a model's truth value": ("kind: test_bounded", "kind: test_bounded, closed: yes", "line 2: model.closed", "expected true or false"),
    "a number in a model's truth value": ("kind: test_bounded", "kind: test_bounded, closed: 1", "line 2: model.closed", "expected true or false"),
    "a number in a model's text": ("kind: test_bounded", "kind: test_bounded, name: 5", "line 2: model.name", "expected a text"),
    "infinity": ("kind: test_bounded", "kind: test_bounded, porosity: .inf", "line 2: model.porosity", "finite"),
    "truth values in a model's list": ("kind: test_bounded", "kind: test_bounded, depths: [1, true]", "line 2: model.depths[2]", "expected a number"),
    "a sign of a label": ("columns: {time: {column: t, units: h}}", "columns: {time: {column: t, units: K}}", "line 7", "do not convert"),
}  # fmt: skip


@pytest.mark.parametrize("case", BOUNDED_CASES)
def test_numbers_outside_what_the_model_declares(study, case):
    study.edit("{kind: python, file: model.py, name: decay}", BOUNDED)
    old, new, where, says = BOUNDED_CASES[case]
    study.edit(old, new)
    outcome = study.call("check")
    assert outcome.code == 2, outcome
    assert f"study.yml, {where}" in outcome.err
    assert says in outcome.err


def test_texts_stay_as_they_are_written(study):
    table = (study.folder / "data.csv").read_text().replace(",a,", ",010,").replace(",b,", ",no,")
    (study.folder / "data.csv").write_text(table)
    study.edit("    std: 2", "    std: 010\n    where: {gauge: [010, no]}\n    groups: {no: {weight: 0}}")
    problem = load_study(study.path).problem
    assert problem.experiments[0].observations.groups == ("010", "no")
    np.testing.assert_allclose(problem.weight[:4], 10.0)  # 1 / (10 cm)
    study.edit("group: {column: gauge}", "group: 007")
    study.edit("    groups: {no: {weight: 0}}\n", "")
    assert load_study(study.path).problem.experiments[0].observations.groups == ("007",)


OBSERVATION = """\
  - file: ./data.csv
    value: {column: height, units: cm}
    columns: {time: {column: t, units: h}}
    group: again
    where: {gauge: b}
"""


def test_the_same_row_counts_once(study):
    study.edit("    std: 2\n", "    std: 2\n" + OBSERVATION)
    outcome = study.call("check")
    assert outcome.code == 2
    assert "line 12: observations[2]" in outcome.err
    assert "data.csv, line 7: 'height' of this row is an observation already" in outcome.err


def test_another_column_of_the_same_row_is_another_observation(study):
    study.edit("    std: 2\n", "    std: 2\n" + OBSERVATION.replace("column: height", "column: t"))
    assert load_study(study.path).problem.value.shape == (12,)


def test_repeated_rows_are_noted_in_check_and_result(study):
    study.edit("1,a,117\n", "1,a,117\n1,a,117\n", "data.csv")
    assert "note: " in study.call("check").out
    outcome = study.call("run")
    assert "line 6 repeats line 5; each counts" in outcome.out


@pytest.mark.parametrize(
    ("array", "says"),
    [
        (np.array([1 + 2j]), "no real numbers"),
        (np.array(["a"]), "no real numbers"),
        (np.ones((2, 2)), "array of shape"),
    ],
)
def test_start_values_that_are_no_vector_of_real_numbers(study, array, says):
    np.save(study.folder / "start.npy", array)
    study.edit("value: 1, lower: 0.1", "value: {file: start.npy}, lower: 0.1")
    outcome = study.call("check")
    assert outcome.code == 2
    assert says in outcome.err


@pytest.mark.parametrize("content", [b"", b"nonsense", b"\x93NUMPY\x01\x00\xff\xff{'descr': '<f8', 'shape': (10**15,)"])
def test_damaged_arrays_are_one_sentence(study, content):
    (study.folder / "start.npy").write_bytes(content)
    study.edit("value: 1, lower: 0.1", "value: {file: start.npy}, lower: 0.1")
    outcome = study.call("check")
    assert outcome.code == 2
    assert "cannot be read as numbers" in outcome.err


def test_a_model_whose_setting_up_fails_is_named_with_its_line(study):
    (study.folder / "model.py").write_text(
        "from bilevel.calibrate import Model\nclass decay(Model):\n"
        "    def __init__(self, *a):\n        super().__init__(*a)\n        1 / 0\n    def simulate(self, p):\n        pass\n"
    )
    outcome = study.call("check")
    assert outcome.code == 2
    assert "study.yml, line 2: model: setting up the model failed with ZeroDivisionError" in outcome.err


def test_a_model_file_that_exits_is_one_line(study):
    study.edit("import torch", "import torch; raise SystemExit(0)", "model.py")
    outcome = study.call("check")
    assert outcome.code == 2
    assert "model.py, line 1: importing it failed with SystemExit" in outcome.err


def test_a_path_as_text_will_do(study):
    assert load_study(str(study.path)).title == "Decay"


@pytest.mark.parametrize(
    ("row", "says"), [(0, "the void ratio must be positive"), (4, "a void ratio must be positive")]
)
def test_a_negative_void_ratio_is_no_sand(tmp_path, row, says):
    write_example("hochstetten_sand", tmp_path / "sand")
    table = tmp_path / "sand" / "oedometer.csv"
    lines = table.read_text().splitlines()
    first = next(i for i, line in enumerate(lines) if not line.startswith("#")) + 1
    column = lines[first - 1].split(",").index("void_ratio")
    cells = lines[first + row].split(",")
    cells[column] = "-0.7"
    lines[first + row] = ",".join(cells)
    table.write_text("\n".join(lines))
    with pytest.raises(InputError, match=says):
        load_study(tmp_path / "sand" / "study.yml")
