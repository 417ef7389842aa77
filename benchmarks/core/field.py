"""A conductivity field with a value in every cell from heads at few places, its smoothness by the discrepancy principle."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks.alone import alone
from benchmarks.record import Record, at_most, between, stated
from bilevel.calibrate.matrix_free.prior import SparsePrior
from bilevel.calibrate.study.loading import load_study
from bilevel.calibrate.study.session import Session

LINE = "transmissivity in 100,000 cells from 500 heads: discrepancy principle, standard deviation in every cell"
DURATION = "10 minutes"
LENGTH, STD, NOISE = 1000.0, 1.0, 0.05

STUDY = """\
title: Transmissivity in every cell
model:
  kind: darcy
  mesh: {{lengths: [{length}, {length}], cells: [{cells}, {cells}]}}
  geometry: plan
  spread: {{transmissivity: {{layout: cells, reference: 100 m2/d, std: {std}, correlation_length: 300 m}}}}
  boundaries: {{left: {{head: 10 m}}, right: {{head: 0 m}}}}
  recharge: {{all: 2 mm/d}}
parameters:
- {{name: transmissivity, value: {{file: start.npy}}, units: m2/d}}
observations:
- file: heads.csv
  value: {{column: head, units: m}}
  columns: {{sensor: sensor, x: {{column: x, units: m}}, y: {{column: y, units: m}}}}
  std: {noise}
calibration: {{noise: known, tolerance: 1e-3}}
strength: discrepancy
"""


def study(folder: Path, cells: int, heads: int) -> np.ndarray:
    """Write a study of heads that follow from a field drawn from its prior; returns the field's logarithm (cells^2,)."""
    generator = np.random.default_rng(0)
    places = generator.uniform(0.03 * LENGTH, 0.97 * LENGTH, (heads, 2))
    np.save(folder / "start.npy", np.full(cells * cells, 100.0))
    write(folder, places, np.zeros(heads))
    (folder / "study.yml").write_text(STUDY.format(cells=cells, length=LENGTH, std=STD, noise=NOISE))
    problem = load_study(folder / "study.yml").problem
    start = problem.parameters.start()
    truth = start + SparsePrior.of(problem, start).samples(1, generator)[0]
    with torch.no_grad():
        clean = problem.predict(torch.as_tensor(truth)).numpy()
    write(folder, places, clean + NOISE * generator.normal(size=heads))
    return truth


def write(folder: Path, places: np.ndarray, values: np.ndarray) -> None:
    rows = [f"head,{x!r},{y!r},{h!r}" for (x, y), h in zip(places.tolist(), values.tolist())]
    (folder / "heads.csv").write_text("\n".join(["sensor,x,y,head", *rows]) + "\n")


def cost(cells: int, heads: int) -> dict[str, float]:
    """Seconds of the whole study, how well it fits, and how often its 95 % intervals hold the field that made the heads."""
    with tempfile.TemporaryDirectory() as name:
        truth = study(Path(name), cells, heads)
        began, worked = time.perf_counter(), time.process_time()
        result = Session.beside(load_study(Path(name) / "study.yml")).run()
        seconds, worked = time.perf_counter() - began, time.process_time() - worked
    assert result.statistics is not None
    assert result.posterior is not None
    off = (result.evaluation.t - truth) / result.statistics.std_t
    return {
        "seconds": seconds,
        "worked": worked,
        "misfit": result.groups[0].phi / heads,
        "strength": result.problem.strength,
        "fits": float(len(result.strength.fits)) if result.strength else 0.0,
        "evaluations": float(result.evaluations),
        "directions": float(len(result.posterior.eigenvalues)),
        "determined": result.posterior.determined,
        "inside": float(np.mean(np.abs(off) < 1.96)),
        "error": float(np.sqrt(np.mean((result.evaluation.t - truth) ** 2))),
        "converged": float(result.converged),
    }


def run(quick: bool) -> list[Record]:
    cells, heads = (60, 100) if quick else (316, 500)
    found = alone("benchmarks.core.field:cost", timeout=5400.0, cells=cells, heads=heads)
    if "error" not in found or "seconds" not in found:
        return [stated(f"{cells} x {cells}: {found.get('error')}", None)]
    size = f"{cells * cells} cells, {heads} heads"
    return [
        at_most(f"whole study, {size}", found["seconds"], 600.0, "s"),
        stated(f"processors' time, {size}", found["worked"], "s"),
        between(f"phi by reading, {size}", found["misfit"], 0.95, 1.05),
        stated(f"strength found, {size}", found["strength"]),
        stated(f"fits until the strength was at rest, {size}", found["fits"]),
        stated(f"directions of the posterior, {size}", found["directions"]),
        stated(f"parameters that the heads determine, {size}", found["determined"]),
        stated(f"cells whose 95 % interval holds the true value, {size}", 100 * found["inside"], "%"),
        stated(f"error of the field's logarithm, {size}", found["error"]),
    ]
