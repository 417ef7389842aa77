"""Published pumping tests, calibrated through the numerical model with exact Jacobians and checked in closed form."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import least_squares

from physics.flow.pumping import Drawdown, PumpingTest
from physics.flow.well_functions import hantush, theis

SHIPPED = Path(__file__).parents[3] / "physics" / "data"


@dataclass
class Readings:
    well: np.ndarray
    distance: np.ndarray
    time: np.ndarray
    drawdown: np.ndarray

    def only(self, *wells):
        keep = np.isin(self.well, wells)
        return Readings(self.well[keep], self.distance[keep], self.time[keep], self.drawdown[keep])


@dataclass
class Fit:
    values: np.ndarray
    rmse: float
    std: np.ndarray
    """Relative standard deviations."""


def rows_of(path):
    with open(path) as file:
        return list(csv.DictReader(line for line in file if not line.startswith("#")))


def shipped(name, time_column, per_day):
    rows = rows_of(SHIPPED / f"{name}.csv")
    columns = [np.array([float(row[c]) for row in rows]) for c in ("distance_m", time_column, "drawdown_m")]
    return Readings(np.array([row["well"] for row in rows]), columns[0], columns[1] / per_day, columns[2])


def published(folder, name):
    rows = [row for row in rows_of(folder / "aquifer_tests.csv") if row["test"] == name]
    columns = [np.array([float(row[c]) for row in rows]) for c in ("r_m", "t_s", "drawdown_m")]
    return Readings(np.array([row["well"] for row in rows]), columns[0], columns[1] / 86400.0, columns[2])


def summary(solution, n):
    jacobian, x = solution.jac, solution.x
    covariance = np.linalg.pinv(jacobian.T @ jacobian) * 2.0 * solution.cost / (n - len(x))
    return Fit(np.exp(x), float(np.sqrt(2.0 * solution.cost / n)), np.sqrt(np.diag(covariance)))


def calibrate(test, readings, start):
    """Least squares in the logarithms of the parameters, with the Jacobian by forward sweeps."""
    model = Drawdown(test, readings.time, readings.distance)
    measured = torch.from_numpy(readings.drawdown)

    def residual(x):
        return model(*torch.exp(x).unbind()) - measured

    solution = least_squares(
        lambda x: residual(torch.from_numpy(x)).numpy(),
        np.log(start),
        lambda x: torch.func.jacfwd(residual)(torch.from_numpy(x)).numpy(),
        method="lm",
        xtol=1e-6,
    )
    return summary(solution, len(measured))


def calibrate_closed_form(function, readings, start):
    solution = least_squares(
        lambda x: function(np.exp(x), readings.time, readings.distance) - readings.drawdown, np.log(start), method="lm"
    )
    return summary(solution, len(readings.time))


OUDE_KORENDIJK = PumpingTest(7.0, [(0.0, 788.0)], well_radius=0.2)


@pytest.fixture(scope="module")
def oude_korendijk():
    return shipped("oude_korendijk", "time_min", 1440.0)


def test_oude_korendijk_both_wells(oude_korendijk):
    assert len(oude_korendijk.time) == 69
    fit = calibrate(OUDE_KORENDIJK, oude_korendijk, [50.0, 1e-4])
    print("Oude Korendijk", fit)
    assert fit.values[0] == pytest.approx(66.09, rel=0.005)
    assert fit.values[1] == pytest.approx(2.541e-5, rel=0.015)
    assert fit.rmse == pytest.approx(0.0501, abs=0.0003)
    assert fit.std[0] == pytest.approx(0.025, abs=0.003)
    assert fit.std[1] == pytest.approx(0.095, abs=0.01)

    def closed(x, t, r):
        return theis(t, r, 7.0 * x[0], 7.0 * x[1], 788.0)

    check = calibrate_closed_form(closed, oude_korendijk, [50.0, 1e-4])
    np.testing.assert_allclose(fit.values, check.values, rtol=1e-3)
    assert fit.rmse == pytest.approx(check.rmse, abs=1e-5)


@pytest.mark.parametrize(
    ("well", "conductivity", "storage", "rmse"), [("P30", 68.64, 1.607e-5, 0.03166), ("P90", 71.58, 2.911e-5, 0.02272)]
)
def test_oude_korendijk_one_well(oude_korendijk, well, conductivity, storage, rmse):
    fit = calibrate(OUDE_KORENDIJK, oude_korendijk.only(well), [60.0, 5e-5])
    print("Oude Korendijk", well, fit)
    assert fit.values[0] == pytest.approx(conductivity, rel=0.002)
    assert fit.values[1] == pytest.approx(storage, rel=0.005)
    assert fit.rmse == pytest.approx(rmse, abs=1e-4)


def test_sioux(shared_data):
    test = PumpingTest(15.24, [(0.0, 0.076455486 * 86400.0)], well_radius=0.1524)
    fit = calibrate(test, published(shared_data, "sioux"), [100.0, 1e-3])
    print("Sioux", fit)
    assert fit.values[0] == pytest.approx(282.8, rel=0.002)
    assert fit.values[1] == pytest.approx(4.208e-3, rel=0.005)
    assert fit.rmse == pytest.approx(0.00397, abs=3e-5)


DALEM = PumpingTest(37.0, [(0.0, 761.0), (0.34, 0.0)])


def test_dalem_leaky():
    readings = shipped("dalem", "time_d", 1.0)
    assert len(readings.time) == 51
    fit = calibrate(DALEM, readings, [30.0, 1e-4, 500.0])
    print("Dalem", fit)
    assert fit.values[0] == pytest.approx(45.33, rel=0.005)
    assert fit.values[2] == pytest.approx(331.0, rel=0.01)
    assert fit.rmse == pytest.approx(0.00592, abs=2e-5)

    def closed(x, t, r):
        return hantush(t, r, 37.0 * x[0], 37.0 * x[1], x[2], 761.0)

    check = calibrate_closed_form(closed, readings, [30.0, 1e-4, 500.0])
    np.testing.assert_allclose(fit.values, check.values, rtol=5e-3)


def test_shipped_tables_are_the_published_ones(shared_data, oude_korendijk):
    for name, table in (("oude_korendijk", oude_korendijk), ("dalem", shipped("dalem", "time_d", 1.0))):
        other = published(shared_data, name)
        assert table.well.tolist() == other.well.tolist()
        np.testing.assert_allclose(table.time, other.time, rtol=1e-5)
        np.testing.assert_allclose(table.drawdown, other.drawdown, rtol=1e-9)
