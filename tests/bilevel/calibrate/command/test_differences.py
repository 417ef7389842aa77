"""Templates, outputs and increments by themselves."""

from __future__ import annotations

import numpy as np
import pytest

from bilevel import BilevelError, InputError
from bilevel.calibrate.command.broyden import Broyden
from bilevel.calibrate.command.differences import Differences, DifferenceScheme
from bilevel.calibrate.command.input_file import Template
from bilevel.calibrate.command.outputs import OutputSection


def template(tmp_path, text):
    (tmp_path / "a.tpl").write_text(text)
    return Template.read(tmp_path / "a.tpl", "a.txt")


def test_numbers_lose_no_digit_in_braces_and_keep_columns_in_marks_of_pest(tmp_path):
    braces = template(tmp_path, "k = {{k}}, {{ ss }}")
    assert braces.fill({"k": 1 / 3, "ss": 2e-300}) == f"k = {1 / 3!r}, 2e-300"
    pest = template(tmp_path, "ptf ~\n|~   k    ~| ~ss        ~\n")
    assert pest.names == ["k", "ss"]
    text = pest.fill({"k": -1 / 3, "ss": 1.5e-7})
    assert text == "|-0.3333333| " + "1.5e-07".rjust(12) + "\n"
    assert len(text.splitlines()[0].split("|")[1]) == len("~   k    ~")
    with pytest.raises(InputError, match="has no room"):
        template(tmp_path, "ptf ~\n~k~").fill({"k": 1 / 3})
    with pytest.raises(InputError, match="'k' is not a parameter"):
        braces.fill({"kk": 1.0, "ss": 1.0})


@pytest.mark.parametrize(
    ("keys", "content", "expected"),
    [
        ({"column": "q", "delimiter": ";"}, "t;q\n0;1.0D-02\n1;2\n", [0.01, 2]),
        ({"pattern": r"^Q\s*=\s*(\S+)"}, "Q = 1e3\nP = 2\nQ=-.5\n", [1000, -0.5]),
        ({"pointer": "/wells/1/head"}, '{"wells": [{}, {"head": 3}]}', [3]),
        ({"pointer": "/a~1b"}, '{"a/b": [1, 2.5]}', [1, 2.5]),
        ({"pointer": ""}, "[1, 2]", [1, 2]),
    ],
)
def test_outputs(tmp_path, keys, content, expected):
    (tmp_path / "out").write_text(content)
    np.testing.assert_array_equal(OutputSection(file="out", **keys).read(tmp_path), expected)


@pytest.mark.parametrize(
    ("keys", "content", "says"),
    [
        ({"pointer": "/a/0"}, '{"a": []}', "there is no '0'"),
        ({"pointer": "/a"}, '{"a": "1"}', "no finite number"),
        ({"pointer": "/a"}, '{"a": true}', "no finite number"),
        ({"pointer": "/a"}, '{"a": NaN}', "no finite number"),
        ({"pointer": "/a"}, "{", "cannot be read"),
        ({"pattern": "(x)"}, "x", "cannot be read"),
    ],
)
def test_outputs_that_are_none(tmp_path, keys, content, says):
    (tmp_path / "out").write_text(content)
    with pytest.raises(BilevelError, match=says):
        OutputSection(file="out", **keys).read(tmp_path)


def function(point, noise=0.0, dice=np.random.default_rng(0)):  # noqa: B008 - one stream for all calls
    a, b = point
    smooth = np.array([np.exp(a) * b, np.sin(a * b), a + b**2])
    return smooth * (1 + noise * dice.uniform(-1, 1, 3))


POINT = np.array([0.7, 1.9])
EXACT = np.array(
    [
        [np.exp(0.7) * 1.9, np.exp(0.7)],
        [1.9 * np.cos(0.7 * 1.9), 0.7 * np.cos(0.7 * 1.9)],
        [1.0, 2 * 1.9],
    ]
)


@pytest.mark.parametrize("scheme", [DifferenceScheme.FORWARD, DifferenceScheme.CENTRAL])
@pytest.mark.parametrize("noise", [1e-12, 1e-8, 1e-5])
def test_increments_respect_the_noise(scheme, noise):
    differences = Differences(scheme, noise)
    values, jacobian = differences(["a", "b"], POINT, [0, 1], lambda points: [function(p, noise) for p in points])
    np.testing.assert_allclose(values, function(POINT), rtol=2 * noise)
    error = abs(jacobian - EXACT).max() / abs(EXACT).max()
    assert error < 5 * differences.error
    too_short = Differences(scheme, noise, increment=noise)
    worse = too_short(["a", "b"], POINT, [0, 1], lambda points: [function(p, noise) for p in points])[1]
    assert abs(worse - EXACT).max() / abs(EXACT).max() > 3 * error


def test_switching_takes_two_sides_near_the_end():
    calls = []

    def runs(points):
        calls.append(len(points))
        return [function(p) for p in points]

    differences = Differences(DifferenceScheme.SWITCHING, 1e-10)
    for factor in (1.0, 1.2, 1.201):
        differences(["a", "b"], factor * POINT, [0, 1], runs)
    assert calls == [3, 3, 5]


def test_parameters_of_zero_need_an_increment_and_only_wanted_ones_are_moved():
    runs = lambda points: [function(p) for p in points]  # noqa: E731
    with pytest.raises(InputError, match="give its increment"):
        Differences(DifferenceScheme.FORWARD, 1e-10)(["a", "b"], np.array([0.0, 1.0]), [0], runs)
    jacobian = Differences(DifferenceScheme.CENTRAL, 1e-10, increments={"a": 1e-4})(
        ["a", "b"], np.array([0.0, 1.9]), [0], runs
    )[1]
    np.testing.assert_allclose(jacobian[:, 0], [1.9, 1.9, 1.0], rtol=1e-7)
    assert not jacobian[:, 1].any()


def test_broyden_s_update_explains_the_last_step_and_changes_nothing_across_it():
    """The secant equation holds; directions at right angles, in relative parameters, keep their derivative."""
    broyden = Broyden(limit=2)
    broyden.begin(POINT, function(POINT), EXACT)
    there = POINT * [1.1, 0.95]
    values, jacobian = broyden.update(there, function(there))
    np.testing.assert_allclose(jacobian @ (there - POINT), values - function(POINT), rtol=1e-12)
    step = (there - POINT) / POINT
    across = np.array([-step[1], step[0]]) * POINT
    np.testing.assert_allclose(jacobian @ across, EXACT @ across, rtol=1e-12)
    assert broyden.suits(POINT)
    broyden.update(POINT, function(POINT))
    assert not broyden.suits(there)
    again = Broyden(limit=2)
    again.restore(broyden.state())
    np.testing.assert_array_equal(again.jacobian, broyden.jacobian)
    assert again.count == 2
