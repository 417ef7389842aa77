"""Pictures of many rows, of several units, and of several curves in one group."""

from __future__ import annotations

import io

import numpy as np
import pytest
from matplotlib import rc_context
from matplotlib.ticker import LogFormatter
from scipy.stats import probplot

from bilevel.calibrate import calibrate, load_study
from bilevel.calibrate.report.axes import new_figure
from bilevel.calibrate.report.data_pictures import DRAWN, data_pictures, series
from bilevel.calibrate.report.drawing_process import draw_here
from bilevel.calibrate.report.page import write_report
from bilevel.calibrate.report.pictures import _normal_quantiles
from bilevel.calibrate.report.rendering import power_of_ten, rendered


def curves(x, keys=None):
    x = np.asarray(x, float)
    keys = np.zeros((len(x), 0)) if keys is None else np.asarray(keys, float).reshape(len(x), -1)
    return [part.tolist() for part in series(x, keys)]


def test_one_curve_is_one_curve():
    assert curves([0, 1, 2, 3]) == [[0, 1, 2, 3]]
    assert curves([3, 2, 1, 0]) == [[0, 1, 2, 3]]
    assert curves([2]) == [[0]]


def test_rows_in_no_order_are_drawn_along_x():
    assert curves([3, 0, 2, 1, 5, 4]) == [[1, 3, 2, 0, 5, 4]]


def test_rows_of_different_keys_are_different_curves():
    assert curves([0, 0, 1, 1, 2, 2], [1, 2, 1, 2, 1, 2]) == [[0, 2, 4], [1, 3, 5]]


def test_a_column_that_varies_along_the_curve_is_no_key():
    assert curves([0, 1, 2, 3], [0.1, 0.4, 0.2, 0.3]) == [[0, 1, 2, 3]]


def test_loading_and_unloading_is_one_path_and_the_next_test_another():
    path = [0, 1, 2, 3, 4, 5, 6, 5, 4, 3, 4, 5, 6, 7, 8, 9]
    assert curves(path) == [list(range(16))]
    assert curves([*range(8), *range(8)]) == [list(range(8)), list(range(8, 16))]


def test_a_picture_drawn_once_is_the_one_that_matplotlib_saves():
    def drawn():
        figure, (above, below) = new_figure(2, 1, 5.4, sharex=True, height_ratios=[3, 1])
        above.loglog([0.2, 3.0, 40.0], [1.0, 2.0, 3000.0], "o-", label="a $ b")
        below.plot([0.2, 40.0], [-1e-7, 2e-7])
        above.legend()
        return figure

    with rc_context({"svg.hashsalt": "same"}):
        once, figure = rendered(drawn, "svg").content, drawn()
        for axes in figure.axes:
            for axis in (axes.xaxis, axes.yaxis)[: 1 + (axes is figure.axes[0])]:
                axis.set_major_formatter(power_of_ten)
                axis.set_minor_formatter(LogFormatter())
        saved = io.BytesIO()
        figure.savefig(saved, format="svg", dpi=160, metadata={"Date": None})
    assert once == saved.getvalue()


def test_powers_of_ten_are_text():
    assert [power_of_ten(x) for x in (1e-12, 0.1, 1.0, 1e3)] == ["10⁻¹²", "10⁻¹", "10⁰", "10³"]


@pytest.fixture
def long_study(study):
    t = np.linspace(0, 4, 100_000)
    rows = [
        f"{a:.6f},a,{b:.4f}" for a, b in zip(t, 200 * np.exp(-0.5 * t) + np.random.default_rng(0).normal(0, 2, len(t)))
    ]
    (study.folder / "data.csv").write_text("\n".join(["t,gauge,height", *rows]))
    return study


@pytest.mark.slow
def test_a_report_of_a_hundred_thousand_rows_is_small(long_study, tmp_path):
    study = load_study(long_study.path)
    result = calibrate(study.problem, settings=study.settings)
    write_report(study, result, tmp_path, draw_here)
    size = (tmp_path / "report.html").stat().st_size
    print(f"report.html: {size / 1e6:.2f} MB")
    assert size < 2e6
    (picture,) = data_pictures(result, study.problem.experiments[0], study.plot)
    assert max(len(line.get_xdata()) for line in picture.drawings[0]().axes[0].lines) == DRAWN
    assert "rows are drawn" in picture.caption


TWO_UNITS = """\
title: Two units
model: {kind: python, file: model.py, name: both}
parameters: [{name: a, value: 1}]
observations:
  - {file: data.csv, value: {column: height, units: cm}, columns: {time: t}, group: height, where: {gauge: a}}
  - {file: data.csv, value: {column: height, units: kPa}, columns: {time: t}, group: pressure, where: {gauge: b}}
"""


def test_groups_of_different_units_share_no_axis(study):
    study.path.write_text(TWO_UNITS)
    (study.folder / "model.py").write_text(
        "def both(parameters, columns):\n    return parameters['a'] * columns['time'] * 30\n"
    )
    loaded = load_study(study.path)
    result = calibrate(loaded.problem, settings=loaded.settings, on_fail="ignore")
    pictures = data_pictures(result, loaded.problem.experiments[0], loaded.plot)
    assert [p.title for p in pictures] == ["Data against model [cm]", "Data against model [kPa]"]
    assert [p.drawings[0]().axes[0].get_ylabel() for p in pictures] == ["value [cm]", "value [kPa]"]


@pytest.mark.slow
def test_a_printed_result_is_short(long_study):
    study = load_study(long_study.path)
    text = str(calibrate(study.problem, settings=study.settings))
    print(text)
    assert len(text.splitlines()) == 3
    assert "converged" in text
    assert "amplitude: 2.0" in text
    assert "+-" in text


AXIS = """\
title: An axis
model: {kind: expression, expr: amplitude * exp(-0.3 * time)}
parameters: [{name: amplitude, value: 1}]
observations: [{file: data.csv, value: height, columns: {time: t}}]
plot: {x: time, log: true}
"""


@pytest.mark.parametrize(
    ("times", "scale", "says"),
    [
        ([-1.0, 0.0, 1.0, 100.0], "log", "Rows of which time is not positive are not drawn: 2."),
        ([-3.0, -2.0, -1.0, 0.0], "linear", "not logarithmic as asked, since no time is positive"),
    ],
)
def test_a_logarithmic_axis_has_no_place_for_what_is_not_positive(study, times, scale, says):
    study.path.write_text(AXIS)
    rows = [f"{t},{2.0 * np.exp(-0.3 * t) + 0.01 * (-1) ** k}" for k, t in enumerate(times)]
    (study.folder / "data.csv").write_text("\n".join(["t,height", *rows]))
    loaded = load_study(study.path)
    result = calibrate(loaded.problem, settings=loaded.settings)
    (picture,) = data_pictures(result, loaded.problem.experiments[0], loaded.plot)
    above = picture.drawings[0]().axes[0]
    assert above.get_xscale() == scale
    assert says in picture.caption
    picture.drawings[0]().savefig(study.folder / "picture.png")
    if scale == "log":
        assert all((line.get_xdata() > 0).all() for line in above.lines)


def test_normal_quantiles_are_those_of_scipy():
    for count in (3, 4, 50):
        (theory, _), _ = probplot(np.arange(float(count)))
        np.testing.assert_allclose(_normal_quantiles(count), theory, rtol=1e-12)
