"""Formulas: values and derivatives against Python's, dimensions, and parameters that follow from others in a fit."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from bilevel import BilevelError, InputError
from bilevel.calibrate import Parameter, calibrate, load_study, problem_from_function
from bilevel.calibrate.expression import Dimensional, Expression
from bilevel.calibrate.parameters import ParameterSet
from bilevel.calibrate.study.units import parse_unit


def quantity(value, units=""):
    unit = parse_unit(units)
    return Dimensional(torch.tensor(value, dtype=torch.float64) * unit.scale, unit.dimension)


@pytest.mark.parametrize(
    "text",
    ["2 * a * (1 + b)", "-a ** 2 / b", "exp(-a) + log(b) - sqrt(a * b)", "sin(pi * a) * cos(b) + tan(a)", "a ** b + +b",
     "log10(abs(-b)) + tanh(a) - atan(b)", "1e-3 - .5 * a"],
)  # fmt: skip
def test_values_and_derivatives(text):
    names = {name: getattr(math, name) for name in ("exp", "log", "log10", "sqrt", "sin", "cos", "tan", "tanh", "atan", "pi")}  # fmt: skip

    def python(a, b):
        return eval(text, {"abs": abs, "a": a, "b": b, **names})

    def ours(a, b):
        return Expression(text)({"a": Dimensional(a), "b": Dimensional(b)}).value

    a, b = (torch.tensor(x, dtype=torch.float64) for x in (0.7, 2.3))
    assert float(ours(a, b)) == pytest.approx(python(0.7, 2.3), rel=1e-15)
    torch.autograd.gradcheck(ours, (a.requires_grad_(), b.requires_grad_()))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("__import__('os')", "is not one of the functions"),
        ("a.__class__", "is not understood"),
        ("a if b else a", "is not understood"),
        ("[a for a in b]", "is not understood"),
        ("a and b", "is not understood"),
        ("a < b", "is not understood"),
        ("a // b", "is not understood"),
        ("'text'", "is not understood"),
        ("True", "is not understood"),
        ("1j * a", "is not understood"),
        ("9" * 400, "is not understood"),
        ("a[b + 1]", "no entry of a field"),
        ("exp(a, b)", "of one argument"),
        ("a +", "cannot be read"),
        ("", "cannot be read"),
        ("(" * 300 + "a" + ")" * 300, "expression"),
        ("-" * 1900 + "a", "expression"),
        ("a + " * 600 + "a", "longer than"),
    ],
)
def test_what_is_no_arithmetic_is_refused(text, says):
    with pytest.raises(InputError, match="the expression") as error:
        Expression(text)
    assert says in str(error.value)


def test_units_are_taken_care_of():
    known = {"E": quantity(30.0, "GPa"), "h": quantity(20.0, "cm"), "nu": quantity(0.25), "phi": quantity(30.0, "deg")}
    stiffness = Expression("E * h ** 3 / (12 * (1 - nu ** 2))")(known)
    assert float(stiffness.value) == pytest.approx(30e9 * 0.2**3 / (12 * (1 - 0.0625)))
    assert stiffness.dimension == parse_unit("N m").dimension
    assert Expression("sqrt(E / h)")(known).dimension == tuple(k / 2 for k in parse_unit("Pa/m").dimension)
    assert float(Expression("sin(phi)")(known).value) == pytest.approx(0.5)
    for text, says in [
        ("E + h", r"m\^-1 kg s\^-2 \+ m"), ("exp(h)", "takes a pure number, not m"), ("h ** nu", "no parameter"),
        ("nu ** h", "no pure number"), ("E + k", "'k' is not known"),
    ]:  # fmt: skip
        with pytest.raises(InputError, match=says):
            Expression(text)(known)


def test_parameters_in_different_units():
    given = [Parameter("shear", 12.0, units="GPa"), Parameter("nu", 0.25), Parameter("young", expr="2 * shear * (1 + nu)", units="MPa")]  # fmt: skip
    parameters = ParameterSet(given)
    assert float(parameters.by_label["young"].start) == pytest.approx(30e3)
    with pytest.raises(InputError, match="whose zero is arbitrary"):
        ParameterSet([Parameter("a", 1.0, units="degC"), Parameter("b", expr="a", units="K")])


def test_entries_of_fields_and_parameters_of_experiments():
    parameters = ParameterSet(
        [
            Parameter("k", [1.0, 2.0, 4.0], entries=("sand", "clay", "till")),
            Parameter("ratio", expr="k[sand] / k[till]"),
            Parameter("all", expr="3 * k"),
            Parameter("zero", 1.0, experiments=("one",)),
            Parameter("zero", 2.0, experiments=("two",)),
            Parameter("twice", expr="2 * zero", experiments=("two",)),
        ]
    )
    assert float(parameters.by_label["ratio"].start) == 0.25
    assert parameters.by_label["all"].start.tolist() == [3, 6, 12]
    assert float(parameters.by_label["twice@two"].start) == 4.0
    assert parameters.entry_labels[:3] == ["k[sand]", "k[clay]", "k[till]"]
    assert list(parameters.entries_of("one")) == [0, 1, 2, 3]
    for text, says in [("k[loam]", "no entry of a field"), ("zero", "'zero' is not a parameter of all experiments")]:
        with pytest.raises(InputError, match=says):
            ParameterSet([*parameters.parameters, Parameter("new", expr=text)])
    with pytest.raises(InputError, match="cannot be evaluated"):
        ParameterSet([Parameter("a", [1.0, 2.0]), Parameter("b", [1.0, 2.0, 3.0]), Parameter("c", expr="a * b")])


def test_parameters_that_are_named_after_zones_stand_in_formulas():
    given = [Parameter("k[sand]", 2.0), Parameter("k[clay]", expr="k[sand] / 4"), Parameter("ratio", expr="k[clay] / k[sand]")]  # fmt: skip
    by_label = ParameterSet(given).by_label
    assert (float(by_label["k[clay]"].start), float(by_label["ratio"].start)) == (0.5, 0.25)
    with pytest.raises(InputError, match="'k' is not a parameter"):
        ParameterSet([*given, Parameter("new", expr="k[loam]")])


X = torch.linspace(0.1, 2.0, 30)
NOISE = 0.01 * torch.as_tensor(np.random.default_rng(5).normal(size=30))


def test_a_fit_of_the_parts_is_the_fit_of_the_whole():
    """y = (a + b) x: with b = 3 a, and a prior on the sum that does nothing where it agrees."""
    data = 8 * X + NOISE
    plain = calibrate(problem_from_function([Parameter("s", 1.0)], lambda p: p["s"] * X, data))
    parts = [Parameter("a", 1.0), Parameter("b", expr="3 * a"), Parameter("s", expr="a + b")]
    result = calibrate(problem_from_function(parts, lambda p: p["s"] * X, data))
    s = {e.label: e for e in result.estimates}["s"]
    assert s.value == pytest.approx(plain.estimates[0].value, rel=1e-9)
    assert s.std == pytest.approx(plain.estimates[0].std, rel=1e-9)
    assert s.state == "= a + b"


def test_a_prior_on_what_follows_counts():
    """Only the sum is seen; a prior on the ratio a / b = 3 +- 0.3 splits it."""
    given = [Parameter("a", 3.0), Parameter("b", 3.0), Parameter("ratio", expr="a / b", prior_mean=3.0, prior_std=0.3)]
    result = calibrate(problem_from_function(given, lambda p: (p["a"] + p["b"]) * X, 8 * X + NOISE))
    found = {e.label: e for e in result.estimates}
    assert found["a"].value == pytest.approx(6.0, rel=1e-2)
    assert found["ratio"].value == pytest.approx(3.0, rel=1e-6)
    assert found["ratio"].std == pytest.approx(0.3, rel=1e-3)


def test_what_leaves_its_bounds_is_a_point_that_failed():
    given = [Parameter("a", 0.5), Parameter("rest", expr="1 - a", lower=0.0)]
    problem = problem_from_function(given, lambda p: p["a"] * X, X)
    with pytest.raises(BilevelError, match="parameter 'rest': its expression '1 - a' gives -1, not a number between 0 and inf"):  # fmt: skip
        problem.evaluate(np.array([2.0]))


def test_in_a_study(study, no_pictures):
    study.edit("parameters:\n", "parameters:\n  - {name: life, value: 30, units: min, lower: 1}\n")
    study.edit("value: 1, lower: 0.01, upper: 100, units: 1/h", "expr: 1 / life, units: 1/h")
    problem = load_study(study.path).problem
    assert float(problem.parameters.by_label["rate"].start) == pytest.approx(2.0)
    outcome = study.call("run")
    assert outcome.code == 0, outcome.err
    assert "= 1 / life" in outcome.out


def test_shares_that_sum_to_one_and_values_in_order():
    """The recipes of the page on readings: bounds of what stands in the formulas keep the constraint, exactly."""
    shares = [
        Parameter("first", 0.5, lower=0.0, upper=1.0),
        Parameter("part", 0.5, lower=0.0, upper=1.0),
        Parameter("second", expr="(1 - first) * part"),
        Parameter("third", expr="(1 - first) * (1 - part)"),
    ]
    curves = [torch.exp(-k * X) for k in (0.2, 1.0, 4.0)]
    data = 0.2 * curves[0] + 0.5 * curves[1] + 0.3 * curves[2] + 1e-3 * NOISE
    problem = problem_from_function(shares, lambda p: sum(p[n] * c for n, c in zip(("first", "second", "third"), curves)), data)  # fmt: skip
    values = calibrate(problem).values
    assert values["first"] + values["second"] + values["third"] == pytest.approx(1.0, abs=1e-15)
    assert values["second"] == pytest.approx(0.5, abs=0.01)
    ordered = [Parameter("low", 1.0), Parameter("step", 1.0, lower=0.0), Parameter("high", expr="low + step")]
    crossing = problem_from_function(ordered, lambda p: torch.cat([p["low"] * X, p["high"] * X]), torch.cat([3 * X, 2 * X]) + 1e-3 * torch.cat([NOISE, -NOISE]))  # fmt: skip
    result = calibrate(crossing)
    assert result.values["high"] == result.values["low"] == pytest.approx(2.5, abs=1e-3)
    assert {e.label: e.at_bound for e in result.estimates}["step"] == "lower"
