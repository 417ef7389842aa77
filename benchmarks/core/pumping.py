"""A small study: the pumping test Oude Korendijk, fitted by us, by hand in NumPy, and by TTim where that is installed."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.record import Record, at_most, median, stated
from benchmarks.references.plain_pumping import PlainPumping
from bilevel.calibrate import calibrate, load_study

LINE = "Oude Korendijk: calibration and whole run against the same scheme by hand in NumPy, and against TTim"
DURATION = "1 minute"
STUDY = Path(__file__).resolve().parents[2] / "examples" / "oude_korendijk" / "study.yml"


def timed(run: Callable[[], Any], repeat: int) -> tuple[float, Any]:
    """Seconds of a warm run, and what it returned."""
    found = run()
    times = []
    for _ in range(repeat):
        started = time.perf_counter()
        found = run()
        times.append(time.perf_counter() - started)
    return median(times), found


def by_ttim(time_: np.ndarray, distance: np.ndarray, drawdown: np.ndarray) -> Callable[[], Any] | None:
    """TTim's own calibration of the same readings, or None where it is not installed."""
    try:
        import ttim
    except ImportError:
        return None

    def fit() -> Any:
        model = ttim.ModelMaq(kaq=30, z=[-18, -25], Saq=1e-4, tmin=1e-5, tmax=1)
        ttim.Well(model, xw=0, yw=0, rw=0.2, tsandQ=[(0, 788)], layers=0)
        model.solve(silent=True)
        calibration = ttim.Calibrate(model)
        calibration.set_parameter(name="kaq", layers=0, initial=30)
        calibration.set_parameter(name="Saq", layers=0, initial=1e-4)
        for radius in np.unique(distance):
            rows = distance == radius
            calibration.series(name=f"r{radius:g}", x=radius, y=0, t=time_[rows], h=-drawdown[rows], layer=0)
        calibration.fit(report=False)
        return calibration

    return fit


def seconds_of(*arguments: str) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, "-m", "bilevel", *arguments], check=True, capture_output=True)
    return time.perf_counter() - started


def run(quick: bool) -> list[Record]:
    repeat = 1 if quick else 5
    study = load_study(STUDY)
    model = study.problem.experiments[0].model
    drawdown: Any = model.readings.models[0]  # type: ignore[attr-defined]
    table = study.problem.experiments[0].observations
    readings = table.columns["time"].numpy(), table.value.numpy()
    plain = PlainPumping(drawdown, 7.0)
    ours, result = timed(lambda: calibrate(study.problem, settings=study.settings), repeat)
    hand, other = timed(lambda: plain.fit(np.array([30.0, 1e-4]), readings[1]), repeat)
    start = study.problem.parameters.start()
    evaluation, _ = timed(lambda: study.problem.evaluate(start), 3 * repeat)
    by_hand, _ = timed(lambda: plain(np.log([30.0, 1e-4])), 3 * repeat)
    distance = np.where(np.array(table.labels["well"]) == "P30", 30.0, 90.0)
    theirs = by_ttim(readings[0], distance, readings[1])
    with tempfile.TemporaryDirectory() as folder:
        whole = [seconds_of("run", str(STUDY), "--out", f"{folder}/{k}") for k in range(1 + repeat)][1:]
        check = [seconds_of("check", str(STUDY)) for _ in range(repeat)]
    rows = [
        stated("calibration with start and final checks, statistics, certificate", ours, "s"),
        stated("by hand in NumPy, fit alone", hand, "s"),
        at_most("calibration / by hand", ours / hand, 3.0),
        stated("one value and Jacobian", 1e3 * evaluation, "ms"),
        stated("one value and Jacobian by hand", 1e3 * by_hand, "ms"),
        at_most("difference of the parameters", float(np.abs(result.evaluation.t - other.x).max()), 1e-6),
        at_most("bilevel run", median(whole), 3.5, "s"),
        at_most("bilevel run outside the calibration", median(whole) - ours, 2.5, "s"),
        at_most("bilevel check", median(check), 3.0, "s"),
    ]
    if theirs is None:
        return [*rows, stated("TTim's fit", None, "s", "not installed")]
    fit, _ = timed(theirs, repeat)
    return [*rows, stated("TTim's fit, warm", fit, "s"), at_most("calibration / TTim's fit", ours / fit, 3.0)]
