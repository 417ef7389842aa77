"""A program calibrated as a model of Python is, whatever it does: right, slow, killed, failing, silent."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bilevel import BilevelError
from bilevel.calibrate import Settings, calibrate, load_study
from bilevel.cli import app

PROGRAM = """\
import math, os, sys, time

numbers = {}
for line in open("input.txt"):
    name, _, value = line.partition("=")
    numbers[name.strip()] = float(value)
a, k = numbers["a"], numbers["k"]
times = [0.2 * i for i in range(10)]
with open("heads.csv", "w") as out:
    out.write("t,h\\n")
    for t in times:
        out.write(f"{t},{a * math.exp(-k * t) + k * t:.15g}\\n")
with open("log.txt", "w") as out:
    for t in times[:3]:
        out.write(f"step {t}: outflow = {a * k * math.exp(-k * t):.15g} m3/s\\n")
with open("jac.csv", "w") as out:
    out.write("a,k\\n")
    for t in times:
        e = math.exp(-k * t)
        out.write(f"{e!r},{-a * t * e + t!r}\\n")
    for t in times[:3]:
        e = math.exp(-k * t)
        out.write(f"{k * e!r},{a * e * (1 - k * t)!r}\\n")
"""
PYTHON = """\
import torch

def model(parameters, columns):
    a, k, t = parameters["a"], parameters["k"], columns["t"]
    e = torch.exp(-k * t)
    return torch.cat([a * e[:10] + k * t[:10], a * k * e[10:]])
"""
STUDY = f"""\
title: A program
model:
  kind: command
  command: ["{sys.executable}", -S, program.py]
  templates: [{{template: input.tpl, file: input.txt}}]
  files: [program.py]
  outputs:
    heads: {{file: heads.csv, column: h}}
    flows: {{file: log.txt, pattern: "outflow = (\\\\S+) m3/s"}}
  seconds: 60
  workers: 2
parameters:
  - {{name: a, value: 1, lower: 0.1, upper: 10, transform: log}}
  - {{name: k, value: 1, lower: 0.01, upper: 100}}
observations:
  - file: heads.csv
    value: h
    columns: {{t: t}}
    group: heads
  - file: flows.csv
    value: q
    columns: {{t: t}}
    group: flows
calibration: {{verify: false}}
"""
TEMPLATE = "a = {{a}}\nk = {{ k }}\n"
HEADS = [2.12, 1.94, 1.86, 1.77, 1.75, 1.75, 1.75, 1.81, 1.85, 1.95]
FLOWS = [1.67, 1.45, 1.21]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "study.yml").write_text(STUDY)
    (tmp_path / "program.py").write_text(PROGRAM)
    (tmp_path / "model.py").write_text(PYTHON)
    (tmp_path / "input.tpl").write_text(TEMPLATE)
    (tmp_path / "heads.csv").write_text("t,h\n" + "".join(f"{0.2 * i},{h}\n" for i, h in enumerate(HEADS)))
    (tmp_path / "flows.csv").write_text("t,q\n" + "".join(f"{0.2 * i},{q}\n" for i, q in enumerate(FLOWS)))
    return tmp_path


def edit(folder: Path, old: str, new: str, file: str = "study.yml") -> None:
    text = (folder / file).read_text()
    assert old in text
    (folder / file).write_text(text.replace(old, new, 1))


def exact(folder: Path):
    text = STUDY[: STUDY.index("model:")] + "model: {kind: python, file: model.py, name: model}\n"
    (folder / "python.yml").write_text(text + STUDY[STUDY.index("parameters:") :])
    return calibrate(load_study(folder / "python.yml").problem, settings=Settings(verify=False))


@pytest.mark.parametrize(
    "derivatives", ["increment: 1e-6\n  derivatives: forward", "noise: 1e-13", "jacobian: jac.csv"]
)
def test_the_answer_is_that_of_the_same_model_in_python(folder, derivatives):
    edit(folder, "seconds: 60", f"seconds: 60\n  {derivatives}")
    study = load_study(folder / "study.yml")
    found, expected = calibrate(study.problem, settings=study.settings), exact(folder)
    for ours, theirs in zip(found.estimates, expected.estimates):
        assert ours.value == pytest.approx(theirs.value, rel=1e-4)
        assert ours.std == pytest.approx(theirs.std, rel=1e-3)
    assert found.phi == pytest.approx(expected.phi, rel=1e-7)


@pytest.mark.slow
def test_updates_between_jacobians_spare_runs_and_the_end_has_a_jacobian_of_its_own(folder):
    edit(folder, "seconds: 60", "seconds: 60\n  increment: 1e-6\n  derivatives: central\n  runs: runs0\n  updates: 0")
    expected, runs = exact(folder), []
    for updates in (0, 3):
        edit(folder, "runs: runs0\n  updates: 0", f"runs: runs{updates}\n  updates: {updates}")
        study = load_study(folder / "study.yml")
        found = calibrate(study.problem, settings=study.settings)
        assert not found.evaluation.stale
        for ours, theirs in zip(found.estimates, expected.estimates):
            assert ours.value == pytest.approx(theirs.value, rel=1e-4)
            assert ours.std == pytest.approx(theirs.std, rel=1e-3)
        runs.append(len(list((folder / f"runs{updates}").iterdir())))
    print(f"runs without updates {runs[0]}, with {runs[1]}")
    assert runs[1] < runs[0]


def test_a_run_says_that_derivatives_are_not_exact(folder):
    outcome = CliRunner().invoke(app, ["run", str(folder / "study.yml")])
    assert outcome.exit_code == 0, outcome.output
    result = json.loads((folder / "results" / "result.json").read_text())
    assert "switching differences of the program, not exact" in result["derivatives"]["experiment"]
    assert "not exact" in (folder / "results" / "report.html").read_text()
    assert not (folder / "runs").exists()


def at_start(folder: Path):
    study = load_study(folder / "study.yml")
    return study.problem.evaluate(study.problem.parameters.start())


FAILURES = {
    "an exit code": ("import math", "import math, sys as s; print('no water', file=s.stderr); s.exit(3)", "ended with exit code 3, and said last: no water"),
    "a signal": ("import math", "import math, signal, os as o; o.kill(o.getpid(), signal.SIGKILL)", "was killed by signal SIGKILL"),
    "no end": ("import math", "import math, time as w; w.sleep(30)", "had not ended after 1 s"),
    "a program's own child": ("import math", f"import math, subprocess; subprocess.run(['{sys.executable}', '-c', 'import time; time.sleep(30)'])", "had not ended after 1 s"),
    "no output": ('open("heads.csv", "w")', 'open("other.csv", "w")', "there is no such file"),
    "another column": ('"t,h\\n"', '"t,x\\n"', "there is no column 'h'"),
    "too few numbers": ("range(10)", "range(9)", "heads.csv has 9 numbers for the 10 rows of group 'heads'"),
    "NaN": ("{a * math.exp(-k * t) + k * t:.15g}", "nan", "expected a finite number, got nan"),
    "nothing to match": ("outflow", "inflow", "matches nothing"),
}  # fmt: skip


@pytest.mark.parametrize("case", FAILURES)
def test_runs_that_fail_are_told_with_their_folder(folder, case):
    old, new, says = FAILURES[case]
    edit(folder, old, new, "program.py")
    edit(
        folder,
        "seconds: 60",
        "seconds: 1\n  runs: runs" if "no end" in says or "1 s" in says else "seconds: 60\n  runs: runs",
    )
    began = time.monotonic()
    with pytest.raises(BilevelError, match="the program failed at a = 1, k = 1") as error:
        at_start(folder)
    assert says in str(error.value)
    assert time.monotonic() - began < 25
    place = Path(str(error.value).split("(see ")[1].split(")")[0])
    assert (place / "input.txt").read_text() == "a = 1.0\nk = 1.0\n"


def test_a_run_that_fails_on_one_side_costs_that_side_only(folder):
    edit(folder, "a, k =", "if numbers['k'] > 1: raise SystemExit(1)\na, k =", "program.py")
    edit(folder, "workers: 2", "workers: 2\n  derivatives: forward\n  increment: 1e-6")
    from_below = at_start(folder).jacobian
    edit(folder, "if numbers['k'] > 1: raise SystemExit(1)\n", "", "program.py")
    assert abs(from_below - at_start(folder).jacobian).max() < 1e-5


@pytest.mark.slow
def test_points_at_which_the_program_fails_are_stepped_back_from(folder):
    edit(folder, "a, k =", "if numbers['a'] > 2.3: raise SystemExit(1)\na, k =", "program.py")
    edit(folder, "value: 1, lower: 0.1", "value: 0.2, lower: 0.1")
    study = load_study(folder / "study.yml")
    found = calibrate(study.problem, settings=study.settings)
    assert found.values["a"] == pytest.approx(exact(folder).values["a"], rel=1e-4)


def test_what_the_system_refuses_is_a_failed_run(folder):
    edit(folder, "file: input.txt", f"file: {'x' * 300}.txt")
    outcome = CliRunner().invoke(app, ["check", str(folder / "study.yml")])
    assert outcome.exit_code == 1, outcome.output
    assert outcome.stderr.startswith("error: the program failed at a = 1")
    assert "File name too long" in outcome.stderr


BAD = {
    "a mark that no parameter fills": ("input.tpl", "a = {{a}}", "a = {{b}}", "needs a parameter 'b'"),
    "a parameter without a mark": ("input.tpl", "a = {{a}}\n", "", "parameter 'a' is not known to the model"),
    "no marks": ("input.tpl", TEMPLATE, "nothing", "has no mark"),
    "an open mark of PEST": ("input.tpl", TEMPLATE, "ptf ~\na = ~a  \n", "line 2: a mark does not close"),
    "a program that is not there": ("study.yml", f'"{sys.executable}"', "no_such_program", "there is no program 'no_such_program'"),
    "no output of a group": ("study.yml", "group: flows", "group: flux", "there is none for the group 'flux' of the observations"),
    "a file that is not there": ("study.yml", "[program.py]", "[program.py, mesh.dat]", "mesh.dat: there is no such file"),
    "a device": ("study.yml", "[program.py]", "[program.py, /dev/zero]", "/dev/zero: is a device"),
    "a folder around the study": ("study.yml", "[program.py]", "[program.py, ..]", "the study itself is in it"),
    "an input file elsewhere": ("study.yml", "file: input.txt", "file: ../input.txt", "inside the folder in which the program runs"),
    "an output elsewhere": ("study.yml", "file: log.txt", "file: /log.txt", "inside the folder in which the program runs"),
    "a name that is too long": ("study.yml", "[program.py]", f"[{'x' * 3000}]", "there is no such file"),
    "a pattern without a group": ("study.yml", "(\\\\S+)", "x", "pattern needs one group"),
    "a pattern that is none": ("study.yml", "(\\\\S+)", "(", "is no regular expression"),
    "two places": ("study.yml", "column: h", "column: h, pointer: /a", "give one of column"),
    "a time that is none": ("study.yml", "seconds: 60", "seconds: 0", "greater than 0"),
    "an increment of nothing": ("study.yml", "workers: 2", "increments: {b: 1}", "increments: 'b' stands in no template"),
    "a negative increment": ("study.yml", "workers: 2", "increments: {a: -1}", "must be positive"),
    "an increment within the noise": ("study.yml", "workers: 2", "increment: 1e-6\n  noise: 1e-6", "drowns in the noise"),
    "a command that does not end": ("study.yml", f'command: ["{sys.executable}", -S, program.py]', "command: python 'x", "cannot be split"),
    "unit names that clash": ("study.yml", "value: h", "value: {column: h, units: cm}\n    offset: zero", "'zero'"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_refused(folder, case):
    file, old, new, says = BAD[case]
    edit(folder, old, new, file)
    outcome = CliRunner().invoke(app, ["check", str(folder / "study.yml")])
    assert outcome.exit_code == 2, outcome.output
    assert outcome.stderr.count("\n") == 1
    assert "study.yml, line" in outcome.stderr
    assert says in outcome.stderr


@pytest.mark.slow
@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="one core")
def test_two_workers_are_nearly_twice_as_fast(folder):
    """Waiting stands for work, so that other programs on this machine do not count."""
    edit(folder, "numbers = {}", "time.sleep(2.0)\nnumbers = {}", "program.py")
    seconds = []
    for workers in (1, 2):
        edit(folder, f"workers: {3 - workers}" if workers == 1 else "workers: 1", f"workers: {workers}")
        program = load_study(folder / "study.yml").problem.experiments[0].model.program
        began = time.monotonic()
        assert program.run_all([{"a": 1.0, "k": float(i)} for i in range(6)], lambda folder: 0) == [0] * 6
        seconds.append(time.monotonic() - began)
    print(f"speed-up {seconds[0] / seconds[1]:.2f}")
    assert seconds[0] / seconds[1] >= 1.7
