"""kill -9 at any moment: the resumed run reaches the answer of the uninterrupted one."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from bilevel.calibrate.study.files import write_atomically

pytestmark = pytest.mark.usefixtures("no_pictures")

# Predictions depend on a warm start: without its state in the checkpoint a resumed run would differ.
WARM = """\
import torch
from bilevel.calibrate import Model

class Decay(Model):
    started = 0.0

    def simulate(self, parameters):
        import time
        time.sleep(PAUSE)
        y = parameters["amplitude"] * torch.exp(-parameters["rate"] * self.observations.columns["time"])
        self.started = 0.5 * self.started + 1e-6
        return y + self.started

    def state(self):
        return {"started": torch.tensor(self.started)}

    def restore(self, state):
        self.started = float(state["started"])
"""


def answer(study):
    result = json.loads((study.results / "result.json").read_text())
    numbers = [x for p in result["parameters"].values() for x in (p["value"], p["std"], *p["interval95"])]
    return [*numbers, result["phi"], result["iterations"], result["evaluations"]]


def prepared(study, pause="0.0"):
    (study.folder / "model.py").write_text(WARM.replace("PAUSE", pause))
    study.edit("name: decay", "name: Decay")
    return study


def test_cut_after_any_evaluation(fresh_study):
    whole = prepared(fresh_study())
    assert whole.call("run").code == 0
    expected = answer(whole)
    points = sorted((whole.results / "checkpoint").glob("*.npz"))
    assert len(points) > 5
    for kept in range(len(points)):
        cut = prepared(fresh_study())
        shutil.copytree(whole.results / "checkpoint", cut.results / "checkpoint")
        for point in points[kept:]:
            (cut.results / "checkpoint" / point.name).unlink()
        (cut.results / "checkpoint" / f".{points[kept].name}.1.tmp").write_bytes(points[kept].read_bytes()[:100])
        assert cut.call("resume").code == 0
        assert answer(cut) == pytest.approx(expected, rel=1e-10, abs=0)


def test_resume_of_a_finished_run_changes_nothing(study):
    assert study.call("run").code == 0
    expected = answer(study)
    assert study.call("resume").code == 0
    assert answer(study) == expected


def test_resume_keeps_the_settings_of_the_command_line(study):
    assert study.call("run", "--method", "lbfgsb").code == 0
    (study.results / "result.json").unlink()
    assert study.call("resume").code == 0
    assert json.loads((study.results / "result.json").read_text())["method"] == "lbfgsb"


def test_damaged_points_cost_an_evaluation_and_are_said(fresh_study):
    whole = prepared(fresh_study())
    whole.call("run")
    expected = answer(whole)
    for number in range(len(list((whole.results / "checkpoint").glob("*.npz")))):
        damaged = prepared(fresh_study())
        shutil.copytree(whole.results / "checkpoint", damaged.results / "checkpoint")
        (damaged.results / "checkpoint" / f"{number:06d}.npz").write_bytes(b"nonsense")
        outcome = damaged.call("resume")
        assert outcome.code == 0, outcome.err
        assert answer(damaged)[:-2] == pytest.approx(expected[:-2], rel=1e-6)
        assert f"point {number} of the checkpoint is damaged" in outcome.out


@pytest.mark.parametrize("files", ["*.npz", "*.npy", "path.jsonl"])
def test_files_that_a_power_cut_left_empty_cost_evaluations(study, files):
    study.call("run")
    expected = answer(study)
    for file in sorted((study.results / "checkpoint").glob(files))[-2:]:
        file.write_bytes(b"")
    outcome = study.call("resume")
    assert outcome.code == 0, outcome.err
    assert answer(study)[:-2] == pytest.approx(expected[:-2], rel=1e-6)


@pytest.mark.parametrize(("dear", "forced"), [(0.0, True), (60.0, False)])
def test_points_are_forced_to_disk_where_they_were_dear(study, monkeypatch, dear, forced):
    asked, forces = set(), []

    def write(path, content, forced=True):
        asked.add((path.suffix, forced))
        write_atomically(path, content, forced)

    monkeypatch.setattr("bilevel.calibrate.fit.journal._FORCED_FROM", dear)
    monkeypatch.setattr("bilevel.calibrate.fit.journal.write_atomically", write)
    monkeypatch.setattr("os.fsync", forces.append)
    study.call("run")
    assert asked == {(".json", True), (".npz", forced), (".npy", forced)}
    assert len(forces) > 20 if forced else 0 < len(forces) < 12  # else those of results alone


def test_jacobians_are_not_hoarded(study):
    assert study.call("run").code == 0
    checkpoint = study.results / "checkpoint"
    assert len(list(checkpoint.glob("*.npz"))) > 5
    assert len(list(checkpoint.glob("*.npy"))) <= 2
    with np.load(next(checkpoint.glob("*.npz"))) as point:
        assert "jacobian" not in point


def test_a_checkpoint_of_an_earlier_version_is_said(study):
    study.call("run")
    point = next((study.results / "checkpoint").glob("*.npz"))
    with np.load(point) as file:
        arrays = {name: value for name, value in file.items() if name != "scope"}
    np.savez(point, **arrays)
    outcome = study.call("resume")
    assert outcome.code == 2
    assert "earlier version" in outcome.err


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_kill_nine_at_random_moments(fresh_study, seed):
    """Real processes, killed after a random number of points and a random while, until one comes through."""
    whole, killed = prepared(fresh_study(), "0.05"), prepared(fresh_study(), "0.05")
    assert whole.call("run").code == 0
    dice = random.Random(seed)
    checkpoint, kills = killed.results / "checkpoint", 0
    for command in ["run", "resume", "resume"]:
        process = start(command, killed)
        wanted = len(list(checkpoint.glob("*.npz"))) + dice.randrange(1, 4)
        while process.poll() is None and len(list(checkpoint.glob("*.npz"))) < wanted:
            time.sleep(0.002)
        time.sleep(dice.random() * 0.15)
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
            kills += 1
        process.wait()
    assert kills >= 2
    if not (killed.results / "result.json").exists():
        assert killed.call("resume").code == 0
    assert answer(killed) == pytest.approx(answer(whole), rel=1e-10, abs=0)


def start(command, study):
    call = [sys.executable, "-c", "from bilevel.cli import main; main()", command, str(study.path)]
    return subprocess.Popen(call, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def test_kill_nine_once(fresh_study):
    """The quick one of the test above: one kill in the middle."""
    whole, killed = prepared(fresh_study(), "0.05"), prepared(fresh_study(), "0.05")
    assert whole.call("run").code == 0
    process = start("run", killed)
    while process.poll() is None and len(list((killed.results / "checkpoint").glob("*.npz"))) < 3:
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (killed.results / "result.json").exists()
    assert killed.call("resume").code == 0
    assert answer(killed) == pytest.approx(answer(whole), rel=1e-10, abs=0)
