"""Whole studies whose workers die or hang, or whose scheduler goes away: the answer is that of a run without trouble."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900), pytest.mark.usefixtures("no_pictures")]

MODEL = """\
import os, time
from pathlib import Path

import torch

from bilevel.calibrate import works_in

TROUBLE = Path(__file__).parent / "trouble"

def decay(parameters, columns):
    if TROUBLE.exists() and (found := TROUBLE.read_text()):
        TROUBLE.write_text("")  # once
        os.kill(os.getpid(), 9) if found == "dies" else time.sleep(600)
    return parameters["amplitude"] * torch.sin(parameters["rate"] * columns["time"])

decay = works_in("m", columns={"time": "s"}, parameters={"amplitude": "m", "rate": "1/s"})(decay)
"""


def prepared(study, executor="serial"):
    (study.folder / "model.py").write_text(MODEL)
    study.edit("title: Decay", f"title: Decay\nstarts: 6\nexecutor: {executor}\ncalibration: {{noptmax: 30}}")
    study.edit("lower: 0.01, upper: 100, units: 1/h", "lower: 0.1, upper: 2, units: 1/h")
    return study


def answer(study):
    result = json.loads((study.results / "result.json").read_text())
    return result["starts"], result["parameters"]


@pytest.mark.filterwarnings("ignore")  # what dask says as its workers die
@pytest.mark.parametrize("kind", ["processes", "dask"])
@pytest.mark.parametrize("trouble", ["dies", "hangs"])
def test_a_worker_that_dies_or_hangs_changes_nothing(fresh_study, kind, trouble):
    if kind == "dask":
        pytest.importorskip("distributed")
    whole = prepared(fresh_study())
    assert whole.call("run").code in (0, 1)
    limit = ", timeout: 30" if trouble == "hangs" else ""
    study = prepared(fresh_study(), f"{{kind: {kind}, workers: 2{limit}}}")
    study.edit(
        "calibration: {noptmax: 30}", "calibration: {noptmax: 30, verify: false}"
    )  # the first call is a worker's
    (study.folder / "trouble").write_text(trouble)
    assert study.call("run").code in (0, 1)
    assert (study.folder / "trouble").read_text() == ""
    assert answer(study)[0] == answer(whole)[0]
    for label, found in answer(study)[1].items():
        assert found["value"] == answer(whole)[1][label]["value"]


EXPERIMENTS = """experiments:
  - name: first
    observations: [{file: data.csv, value: {column: height, units: cm}, columns: {time: {column: t, units: h}}, group: a, where: {gauge: a}, std: 2}]
  - name: second
    observations: [{file: data.csv, value: {column: height, units: cm}, columns: {time: {column: t, units: h}}, group: b, where: {gauge: b}, std: 2}]
calibration: {verify: false}
"""


def of_two_experiments(study, executor):
    (study.folder / "model.py").write_text(MODEL.replace("torch.sin(", "torch.exp(-"))
    text = study.path.read_text().split("observations:")[0]
    study.path.write_text(f"{text}{EXPERIMENTS}executor: {executor}\n")
    return study


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("trouble", ["", "dies", "hangs"])
def test_experiments_on_processes_that_die_or_hang(fresh_study, trouble):
    """Two experiments side by side: bit for bit what they give here, whatever befalls a worker."""
    whole = of_two_experiments(fresh_study(), "serial")
    assert whole.call("run").code == 0
    study = of_two_experiments(fresh_study(), "{kind: processes, workers: 2, timeout: 20}")
    (study.folder / "trouble").write_text(trouble)
    assert study.call("run").code == 0
    assert (study.folder / "trouble").read_text() == ""
    for name in ("parameters", "phi", "notes"):
        assert (
            json.loads((study.results / "result.json").read_text())[name]
            == json.loads((whole.results / "result.json").read_text())[name]
        )


def scheduler_of_dask(port):
    command = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--port", str(port), "--no-dashboard"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for _ in range(600):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return process
        time.sleep(0.1)
    raise AssertionError("the scheduler did not start")


def worker_of_dask(port):
    command = [sys.executable, "-m", "distributed.cli.dask_worker", f"tcp://127.0.0.1:{port}", "--nthreads", "1"]
    return subprocess.Popen(
        [*command, "--no-nanny", "--no-dashboard"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


@pytest.mark.filterwarnings("ignore")
def test_a_scheduler_that_is_restarted_loses_nothing(fresh_study):
    """Killed in mid-study, another one takes its place at the same address; what was done is not done again."""
    pytest.importorskip("distributed")
    whole = prepared(fresh_study())
    assert whole.call("run").code in (0, 1)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    study = prepared(fresh_study(), f"tcp://127.0.0.1:{port}")
    running = [scheduler_of_dask(port), worker_of_dask(port)]
    command = [sys.executable, "-m", "bilevel", "run", str(study.path)]
    driver = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        kept = study.results / ".checkpoint.next" / "tasks"
        while driver.poll() is None and not list(kept.glob("*.json")):
            time.sleep(0.02)
        for process in running:
            process.kill()
            process.wait()
        running = [scheduler_of_dask(port), worker_of_dask(port)]
        try:
            driver.wait(timeout=60)
        except subprocess.TimeoutExpired:  # it waits for what nobody does: end it, as a user would
            driver.kill()
            driver.wait()
        done = study.call("resume") if not (study.results / "result.json").exists() else None
        assert done is None or done.code in (0, 1)
    finally:
        for process in [driver, *running]:
            process.kill()
            process.wait()
    assert answer(study)[0] == answer(whole)[0]
