"""Calibrations from laboratory tests: Hochstetten sand, Karlsruhe fine sand, 304L steel."""

from __future__ import annotations

import math
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.record import Record, at_most, stated
from benchmarks.shared_data import shared_data
from bilevel.calibrate import CalibrationResult, Settings, calibrate, load_study
from bilevel.calibrate.parameter import Parameter

LINE = "hypoplastic sand and Voce steel calibrated from laboratory tests"
DURATION = "5 minutes"

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
GENETIC = 10_000
"""Element tests that a genetic algorithm runs for such a calibration (Mendez et al. 2021)."""


def misfits(result: CalibrationResult) -> dict[str, float]:
    return {group.label: group.rmse for group in result.groups}


def hochstetten() -> list[Record]:
    started = time.perf_counter()
    study = load_study(EXAMPLES / "hochstetten_sand" / "study.yml")
    result = calibrate(study.problem, settings=study.settings, on_fail="ignore")
    seconds, found = time.perf_counter() - started, misfits(result)
    runs = study.problem.experiments[0].model.runs  # type: ignore[attr-defined]
    return [
        at_most("Hochstetten: rmse q", found["deviator"], 24.3, "kPa"),
        at_most("Hochstetten: rmse volumetric strain", found["volumetric_strain"], 0.16, "%"),
        at_most("Hochstetten: rmse void ratio", found["void_ratio"], 0.0032),
        at_most("Hochstetten: wall time", seconds, 60.0, "s", seconds),
        at_most("Hochstetten: element tests run", runs, GENETIC, seconds=seconds),
    ]


def karlsruhe(quick: bool) -> list[Record]:
    """Calibrated on thinned rows, judged on all rows of the tests with odd numbers."""
    folder = EXAMPLES / "karlsruhe_sand"
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        shutil.copy(folder / "study.yml", place)
        _prepare(folder, place, 12 if quick else 24)
        study = load_study(place / "study.yml")
        result = calibrate(study.problem, settings=Settings(noptmax=60, tolerance=1e-3, verify=False), on_fail="ignore")
        _prepare(folder, place, 1000)
        full = load_study(place / "study.yml").problem
        parameters = [_at(p, result) for p in full.parameters.parameters]
        judged = calibrate(
            type(full)(parameters, full.experiments),
            settings=Settings(noptmax=0, statistics=False, verify=False),
            on_fail="ignore",
        )
    groups = {group.label: group for group in judged.groups}
    share = 5.0 * math.sqrt(groups["deviator"].phi / groups["deviator"].rows)
    return [
        at_most("Karlsruhe: rms q over peak", share, 7.8, "%"),
        at_most("Karlsruhe: rms volumetric strain", groups["volumetric_strain"].rmse, 2.1, "%"),
        at_most("Karlsruhe: rms void ratio", groups["void_ratio"].rmse, 0.002),
        stated("Karlsruhe: element tests run", study.problem.experiments[0].model.runs),  # type: ignore[attr-defined]
    ]


def _prepare(folder: Path, out: Path, rows: int) -> None:
    command = [sys.executable, str(folder / "prepare.py"), str(shared_data()), "--out", str(out)]
    subprocess.run([*command, "--rows", str(rows)] if rows else command, check=True)


def _at(parameter: Parameter, result: CalibrationResult) -> Parameter:
    from dataclasses import replace

    return replace(parameter, value=float(result.values[parameter.label]))


def steel() -> list[Record]:
    folder = EXAMPLES / "steel_304l"
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        shutil.copy(folder / "study.yml", place)
        subprocess.run(
            [sys.executable, str(folder / "prepare.py"), str(shared_data()), "--out", str(place)], check=True
        )
        study = load_study(place / "study.yml")
        result = calibrate(study.problem, settings=study.settings)
    total = math.sqrt(sum(g.rmse**2 * g.rows for g in result.groups) / sum(g.rows for g in result.groups))
    records = [at_most("304L: rmse of true stress", total, 11.5, "MPa")]
    for estimate in result.estimates:
        if estimate.state == "free":
            records.append(stated(f"304L: {estimate.label}", estimate.value, estimate.units))
            records.append(stated(f"304L: std of {estimate.label}", estimate.std, estimate.units))
    return records


def run(quick: bool) -> list[Record]:
    return [*hochstetten(), *steel(), *karlsruhe(quick)]
