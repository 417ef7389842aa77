"""Bad input: one line with file and line, what was expected, exit code 2, and nothing written."""

import pytest

pytestmark = pytest.mark.usefixtures("no_pictures")

CASES = {
    "unknown key": ("study.yml", "transform: log", "tansform: log", "study.yml, line 4", "unknown key 'tansform'; did you mean 'transform'?"),
    "unknown key at the top": ("study.yml", "title:", "titel: x\ntitle:", "study.yml, line 1", "did you mean 'title'?"),
    "unknown key in model": ("study.yml", "name: decay}", "name: decay, mesh: 3}", "study.yml, line 2", "unknown key 'mesh'"),
    "wrong type": ("study.yml", "lower: 0.1", "lower: low", "study.yml, line 4: parameters[1].lower", "expected a number, got 'low'"),
    "wrong start": ("study.yml", "value: 1, lower: 0.01", "value: one, lower: 0.01", "study.yml, line 5", "expected a number"),
    "missing key": ("study.yml", "title: Decay\n", "", "study.yml, line 1", "key 'title' is missing"),
    "key twice": ("study.yml", "    std: 2", "    std: 2\n    std: 3", "study.yml, line 12", "'std' is given twice"),
    "not YAML": ("study.yml", "title: Decay", "title: [Decay", "study.yml, line", "not valid YAML"),
    "missing column": ("study.yml", "column: t,", "column: time,", "data.csv, line", "there is no column 'time'"),
    "missing file": ("study.yml", "file: data.csv", "file: dat.csv", "study.yml, line 7", "dat.csv: there is no such file"),
    "NaN in data": ("data.csv", "98", "nan", "data.csv, line 6, column 'height'", "expected a finite number, got nan"),
    "empty cell": ("data.csv", "98", "", "data.csv, line 6, column 'height'", "got an empty cell"),
    "text in data": ("data.csv", "98", "9B", "data.csv, line 6, column 'height'", "expected a number, got '9B'"),
    "underscore in a number": ("data.csv", "98", "9_8", "data.csv, line 6, column 'height'", "expected a number, got '9_8'"),
    "another delimiter": ("data.csv", "t,gauge,height", "t;gauge;height", "data.csv, line", "expected 1 columns"),
    "short row": ("data.csv", "1.5,a,98", "1.5,98", "data.csv, line 6", "expected 3 columns as in the header, got 2"),
    "start outside": ("study.yml", "value: 1, lower: 0.1", "value: 20, lower: 0.1", "study.yml, line 4", "start value 20 is outside its bounds [0.1, 10]"),
    "lower above upper": ("study.yml", "lower: 0.1", "lower: 11", "study.yml, line 4", "lower bound 11 must be below upper bound 10"),
    "empty group": ("study.yml", "    std: 2", "    std: 2\n    groups: {c: {weight: 0}}", "study.yml, line", "group 'c' has no row"),
    "no rows": ("study.yml", "    std: 2", "    std: 2\n    where: {gauge: z}", "study.yml, line 7", "an observation group may not be empty"),
    "unknown unit": ("study.yml", "units: 1/h", "units: 1/hour", "study.yml, line 5", "'hour' is unknown"),
    "unknown unit of data": ("study.yml", "units: cm", "units: zm", "study.yml, line", "did you mean"),
    "duplicate parameter": ("study.yml", "name: rate", "name: amplitude", "study.yml, line 5", "'amplitude' is given more than once"),
    "unknown name in an expression": ("study.yml", "value: 1, lower: 0.01, upper: 100,", "expr: 2 * x,", "study.yml, line 5: parameters[2].expr", "'x' is not a parameter of this study"),
    "circle": ("study.yml", "value: 1, lower: 0.01, upper: 100,", "expr: 2 * rate,", "study.yml, line 5: parameters[2].expr", "in a circle"),
    "units of an expression": ("study.yml", "value: 1, lower: 0.01, upper: 100,", "expr: 2 * amplitude,", "study.yml, line 5: parameters[2].expr", "the expression '2 * amplitude' (m) do not convert to '1/h' (s^-1)"),
    "sum of different units": ("study.yml", "value: 1, lower: 0.01, upper: 100,", "expr: 1 + amplitude,", "study.yml, line 5: parameters[2].expr", "a pure number + m"),
    "a call in an expression": ("study.yml", "value: 1, lower: 0.01, upper: 100,", "expr: 'open(amplitude)',", "study.yml, line 5: parameters[2].expr", "not one of the functions"),
    "an attribute in an expression": ("study.yml", "value: 1, lower: 0.01, upper: 100,", "expr: amplitude.real,", "study.yml, line 5: parameters[2].expr", "is not understood"),
    "syntax of an expression": ("study.yml", "value: 1, lower: 0.01, upper: 100,", "expr: 2 *,", "study.yml, line 5: parameters[2].expr", "cannot be read"),
    "bounds of an expression": ("study.yml", "value: 1, lower: 0.01, upper: 100,", "expr: 2 * rate, upper: 3,", "study.yml, line 5", "so it has no 'upper'"),
    "value and expression": ("study.yml", "lower: 0.01, upper: 100,", "expr: 2 * rate,", "study.yml, line 5", "either value"),
    "neither value nor expression": ("study.yml", "value: 1, lower: 0.01, upper: 100,", "", "study.yml, line 5", "either value"),
    "all weights zero": ("study.yml", "std: 2", "weight: 0", "study.yml", "every observation has weight 0"),
    "std zero": ("study.yml", "std: 2", "std: 0", "study.yml, line", "std must be a positive number"),
    "weight and std": ("study.yml", "std: 2", "std: 2\n    weight: 1", "study.yml, line 7", "not both"),
    "unknown rule": ("study.yml", "std: 2", "weight: inverse", "study.yml, line 11", "inverse_mean_absolute"),
    "unknown model": ("study.yml", "kind: python, file: model.py, name: decay", "kind: pyton", "study.yml, line 2", "did you mean 'python'?"),
    "model without kind": ("study.yml", "kind: python, ", "", "study.yml, line 2", "'kind' is missing"),
    "function missing": ("study.yml", "name: decay", "name: decai", "study.yml, line 2", "no function or Model class called 'decai'"),
    "syntax of the model": ("model.py", "def decay(", "def decay((", "model.py, line 3", ""),
    "method": ("study.yml", "title: Decay", "title: Decay\ncalibration: {method: newton}", "study.yml, line 2", "'least_squares', 'lbfgsb' or 'krylov'"),
    "noptmax": ("study.yml", "title: Decay", "title: Decay\ncalibration: {noptmax: -2}", "study.yml, line 2", "-1"),
    "unknown experiment": ("study.yml", "units: 1/h", "units: 1/h, experiment: x", "study.yml", "there is no experiment 'x'"),
    "unknown offset": ("study.yml", "    std: 2", "    std: 2\n    offset: zero", "study.yml", "offset 'zero' is not a parameter"),
    "infinite": ("study.yml", "lower: 0.1", "lower: .nan", "study.yml, line 4", "expected a finite number"),
}  # fmt: skip


@pytest.mark.parametrize("command", ["run", "check"])
@pytest.mark.parametrize("case", CASES)
def test_one_clear_line(study, case, command):
    file, old, new, where, says = CASES[case]
    study.edit(old, new, file)
    before = {p.name for p in study.folder.iterdir()} - {"__pycache__"}
    outcome = study.call(command)
    assert outcome.code == 2
    assert outcome.out == ""
    assert outcome.err.count("\n") == 1
    assert outcome.err.startswith("error: ")
    assert where in outcome.err
    assert says in outcome.err
    assert {p.name for p in study.folder.iterdir()} - {"__pycache__"} == before


def test_missing_study(study):
    study.path.unlink()
    assert study.call("run").err == f"error: {study.path}: there is no such file\n"


def test_results_are_not_overwritten(study):
    assert study.call("run").code == 0
    (study.results / "mine.txt").write_text("keep me")
    before = (study.results / "result.json").read_bytes()
    outcome = study.call("run")
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert "--force" in outcome.err
    assert (study.results / "result.json").read_bytes() == before
    assert study.call("run", "--out", str(study.folder / "other")).code == 0
    assert study.call("run", "--force").code == 0
    assert (study.results / "mine.txt").read_text() == "keep me"


def test_interrupted_run_is_not_overwritten_and_a_changed_study_is_not_resumed(study):
    study.call("run")
    for path in study.results.iterdir():
        if path.is_file() and path.name != ".lock":
            path.unlink()
    outcome = study.call("run")
    assert outcome.code == 2
    assert "bilevel resume" in outcome.err
    study.edit("98", "99", "data.csv")
    outcome = study.call("resume")
    assert outcome.code == 2
    assert "changed since this run began" in outcome.err


def test_a_run_that_failed_before_its_first_evaluation_leaves_no_obstacle(study):
    sound = (study.folder / "model.py").read_text()
    study.edit("return ", "from bilevel import InputError; raise InputError('no water'); return ", "model.py")
    outcome = study.call("run")
    assert (outcome.code, "no water" in outcome.err) == (2, True)
    (study.folder / "model.py").write_text(sound)
    assert study.call("run").code == 0


def test_a_folder_in_use_is_refused(study):
    from bilevel.calibrate.study.files import locked

    with locked(study.results):
        outcome = study.call("run")
    assert outcome.code == 2
    assert "another run is in progress" in outcome.err


def test_nothing_to_resume(study):
    outcome = study.call("resume")
    assert (outcome.code, "no checkpoint" in outcome.err) == (2, True)
    assert not study.results.exists()


def test_an_error_inside_the_users_model_is_one_line(study):
    study.edit("torch.exp(", "(1 / 0) * (", "model.py")
    outcome = study.call("run")
    assert outcome.code == 1
    assert outcome.err == f"error: {study.folder / 'model.py'}, line 4: ZeroDivisionError: division by zero\n"


def test_not_finite_at_the_start_is_exit_code_1(study):
    study.edit("return ", "return float('nan') * ", "model.py")
    outcome = study.call("run")
    assert outcome.code == 1
    assert "data.csv, line 3" in outcome.err
    assert "NaN or infinite" in outcome.err


def test_not_converged_is_exit_code_1_with_all_outputs(study):
    outcome = study.call("run", "--noptmax", "1")
    assert outcome.code == 1
    assert "NOT CONVERGED after 1 iterations" in outcome.err
    assert (study.results / "report.html").exists()


def test_template_is_not_written_over(study):
    from typer.testing import CliRunner

    from bilevel.cli import app

    result = CliRunner().invoke(app, ["init", str(study.folder)])
    assert result.exit_code == 2
    assert "is there already" in result.stderr


def test_semicolons_are_recognised(study):
    table = study.folder / "data.csv"
    table.write_text(table.read_text().replace(",", ";"))
    outcome = study.call("run")
    assert outcome.code == 2
    assert "data.csv, line 2: there is no column" in outcome.err  # line 1 is a comment
    assert 'delimiter: ";"' in outcome.err


def test_a_parameter_that_the_function_misses_is_named(study):
    study.edit("name: rate", "name: rat")
    study.edit("units: cm", "units: m")
    study.edit("decay = works_in", "declared = works_in", "model.py")
    study.edit("(decay)\n", "(lambda *_: None)\n", "model.py")
    outcome = study.call("run")
    assert outcome.code == 2
    assert "the model asks for 'rate', which the study does not give; did you mean 'rat'?" in outcome.err
