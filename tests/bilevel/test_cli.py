"""The command line itself: help at once, and the template that runs at once."""

import subprocess
import sys
import time

import pytest
from typer.testing import CliRunner

import bilevel
from bilevel.calibrate import load_study
from bilevel.cli import app


def test_help_imports_nothing_heavy():
    code = (
        "import sys, bilevel.cli; print([m for m in ('torch', 'scipy', 'matplotlib', 'pydantic') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_help_is_quick():
    call = [sys.executable, "-c", "from bilevel.cli import main; main()", "--help"]
    times = []
    for _ in range(3):
        began = time.process_time_ns(), time.perf_counter()
        found = subprocess.run(call, capture_output=True, text=True, check=True)
        times.append(time.perf_counter() - began[1])
    print(f"bilevel --help: {min(times):.2f} s")
    assert all(
        command in found.stdout for command in ("init", "check", "run", "resume", "jacobian", "uncertainty", "plot")
    )
    assert min(times) < 2.0  # 0.25 s on an idle machine; a busy one may take longer


def test_a_file_that_is_not_there_is_told_before_anything_heavy_is_loaded():
    code = (
        "import atexit, sys; from bilevel.cli import main; "
        "atexit.register(lambda: print([m for m in ('torch', 'scipy', 'matplotlib') if m in sys.modules])); main()"
    )
    found = subprocess.run([sys.executable, "-c", code, "run", "nowhere.yml"], capture_output=True, text=True)
    assert (found.returncode, found.stderr) == (2, "error: nowhere.yml: there is no such file\n")
    assert found.stdout.strip() == "[]"


def test_template_runs_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr("bilevel.calibrate.study.session.write_report", lambda *arguments: [])
    runner = CliRunner()
    folder = tmp_path / "new"
    assert runner.invoke(app, ["init", str(folder)]).exit_code == 0
    assert runner.invoke(app, ["check", str(folder / "study.yml")]).exit_code == 0
    result = runner.invoke(app, ["run", str(folder / "study.yml")])
    assert result.exit_code == 0
    assert "converged" in result.stdout
    assert "cooling_time" in result.stdout


@pytest.mark.parametrize("arguments", [["run"], ["run", "x.yml", "--noptmax", "-2"], ["profile"]])
def test_wrong_usage_is_exit_code_2(arguments):
    assert CliRunner().invoke(app, arguments).exit_code == 2


@pytest.mark.parametrize("module", ["bilevel", "bilevel.cli"])
def test_modules_are_the_command(module):
    found = subprocess.run([sys.executable, "-m", module, "--version"], capture_output=True, text=True)
    assert (found.returncode, found.stdout) == (0, f"bilevel {bilevel.__version__}\n")


def test_examples_are_listed_and_written(tmp_path, monkeypatch):
    runner = CliRunner()
    listed = runner.invoke(app, ["init", "--example"])
    names = [line.split()[0] for line in listed.stdout.splitlines()]
    assert {"dalem", "nist", "treloar", "hochstetten_sand", "footing"} <= set(names)
    monkeypatch.chdir(tmp_path)
    for name in names:
        assert runner.invoke(app, ["init", "--example", name]).exit_code == 0
        assert (tmp_path / name / "README.md").exists()
    for study in ["dalem/study.yml", "dalem/without_P30.yml", "nist/hahn1/study.yml", "treloar/study.yml"]:
        assert load_study(tmp_path / study).problem.parameters.size > 0
    assert runner.invoke(app, ["init", "--example", "dalem"]).exit_code == 2
    missing = runner.invoke(app, ["init", "--example", "dalen"])
    assert missing.exit_code == 2
    assert "did you mean 'dalem'?" in missing.stderr


@pytest.mark.parametrize("arguments", [["init"], ["init", "a", "b"]])
def test_init_says_what_it_needs(arguments):
    outcome = CliRunner().invoke(app, arguments)
    assert outcome.exit_code == 2
    assert "bilevel init FOLDER" in outcome.stderr
