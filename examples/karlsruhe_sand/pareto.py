"""The Pareto front of stress and volumetric curves: the calibration at several weights of the one against the other.

Every point is a full calibration, started from the point before; `pareto.csv` and `pareto.png` are the result.
"""

from __future__ import annotations

import argparse
import csv
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from bilevel.calibrate import CalibrationProblem, Experiment, Settings, calibrate
from bilevel.calibrate.study.loading import load_study

HERE = Path(__file__).parent
FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
PEAK_SHARE = 0.05
"""The deviator's standard deviations are this share of each test's peak."""


def weighted(problem: CalibrationProblem, factor: float, starts: dict[str, float]) -> CalibrationProblem:
    """The same problem with the weights of the volumetric strains multiplied by a factor, from other start values."""
    experiments = []
    for experiment in problem.experiments:
        table = experiment.observations
        scale = torch.tensor([factor if group.startswith("volumetric_strain") else 1.0 for group in table.group])
        changed = replace(table, weight=table.weight * scale.to(table.weight))
        experiments.append(Experiment(experiment.name, experiment.model, changed))
    parameters = [replace(p, value=starts.get(p.label, p.value)) for p in problem.parameters.parameters]
    return CalibrationProblem(parameters, experiments)


def front(study_file: Path, factors: tuple[float, ...] = FACTORS, noptmax: int = 15) -> list[dict[str, float]]:
    """Root-mean-square misfits at every weight: q in percent of the peak, volumetric strain in percent, void ratio."""
    problem = load_study(study_file).problem
    starts: dict[str, float] = {}
    rows = []
    for factor in factors:
        settings = Settings(noptmax=noptmax, tolerance=1e-2, verify=False)
        result = calibrate(weighted(problem, factor, starts), settings=settings, on_fail="ignore")
        starts = {label: float(value) for label, value in result.values.items()}
        misfit = {group.label: group for group in result.groups}
        deviator = misfit["deviator"]
        rows.append(
            {
                "weight_of_volume": factor,
                "q_percent_of_peak": 100 * PEAK_SHARE * math.sqrt(deviator.phi / deviator.fitted),
                "volumetric_strain_percent": misfit["volumetric_strain"].rmse,
                "void_ratio": misfit["void_ratio"].rmse,
            }
        )
        print(rows[-1], flush=True)
    return rows


def draw(rows: list[dict[str, float]], file: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.0, 4.5), layout="constrained")
    axes = figure.add_subplot()
    x, y = (np.array([row[k] for row in rows]) for k in ("q_percent_of_peak", "volumetric_strain_percent"))
    axes.plot(x, y, "o-")
    for row, a, b in zip(rows, x, y):
        axes.annotate(f"{row['weight_of_volume']:g}", (a, b), textcoords="offset points", xytext=(5, 5))
    axes.set_xlabel("rms misfit of q [% of peak]")
    axes.set_ylabel("rms misfit of volumetric strain [%]")
    axes.set_title("numbers: weight of the volumetric curves")
    axes.grid(True, alpha=0.3)
    figure.savefig(file, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--study", type=Path, default=HERE / "study.yml")
    rows = front(parser.parse_args().study)
    with (HERE / "pareto.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    draw(rows, HERE / "pareto.png")


if __name__ == "__main__":
    main()
