"""Jacobians against finite differences: wrong ones are found before the fit is paid for, right ones are not accused."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import bilevel
from bilevel.calibrate import Parameter, Settings, Stage, calibrate, problem_from_function, staged
from bilevel.calibrate.fit.multistart import multistart
from bilevel.calibrate.settings import Method, Starts
from bilevel.calibrate.statistics.derivative_check import check_derivatives
from bilevel.report import BilevelError, InputError

X = torch.linspace(0.1, 4.0, 12)


def plain(value):
    """The number in a tensor, as a model has it that leaves the graph."""
    while torch._C._functorch.is_functorch_wrapped_tensor(value):
        value = torch._C._functorch.get_unwrapped(value)
    return float(value.detach().reshape(-1)[0])


CUTS = {
    "float": lambda b: plain(b),
    "detach": lambda b: b.detach(),
    "round": torch.round,
    "rebuilt": lambda b: torch.tensor(plain(b)),
}


def problem(function, *start):
    parameters = [Parameter(name, value) for name, value in zip("abc", start)]
    return problem_from_function(parameters, function, 2 * X + 3)


@pytest.mark.parametrize("method", [Method.LEAST_SQUARES, Method.LBFGSB])
@pytest.mark.parametrize("cut", CUTS)
def test_a_model_that_cuts_the_graph_is_refused_at_the_start(cut, method):
    made = problem(lambda p: p["a"] * X + CUTS[cut](p["b"]), 1.0, 1.3)
    with pytest.raises(InputError, match=r"the predictions change with b .* the model cuts the graph"):
        calibrate(made, settings=Settings(method=method))


def test_one_that_cuts_it_in_part_is_refused_too():
    made = problem(lambda p: p["a"] * X + p["b"] + p["a"].detach() * X, 1.0, 1.3)
    with pytest.raises(InputError, match="differs from finite differences by"):
        calibrate(made)


def test_stages_and_several_starts_check_first():
    made = problem_from_function(
        [Parameter("a", 1.0, 0.1, 9.0), Parameter("b", 1.3, 0.1, 9.0)],
        lambda p: p["a"] * X + p["b"].detach(),
        2 * X + 3,
    )
    for run in (lambda: staged(made, [Stage("one", ("a",))]), lambda: multistart(made, Starts(3))):
        with pytest.raises(InputError, match="cuts the graph"):
            run()


def test_unchecked_it_is_told_at_the_end():
    made = problem(lambda p: p["a"] * X + p["b"].detach(), 1.0, 1.3)
    check = check_derivatives(made, made.evaluate(made.parameters.start()))
    assert list(check.cut) == ["b"]
    assert check.error < 1e-9


def test_a_parameter_without_effect_is_not_accused():
    made = problem(lambda p: p["a"] * X + 0 * p["b"], 1.0, 1.3)
    result = calibrate(made)
    assert result.identifiability.sentences == {"b": "b is not identifiable: no fitted observation depends on it"}
    assert result.values["b"] == 1.3


def test_a_flat_spot_of_the_model_is_not_a_cut():
    """A yield stress above all stresses has no effect, and would have one further down."""
    made = problem(lambda p: torch.minimum(p["a"] * X, p["b"].expand(12)), 1.0, 6.0)
    assert not check_derivatives(made, made.evaluate(made.parameters.start())).cut


def test_a_start_on_a_bound_is_checked_inwards():
    made = problem_from_function(
        [Parameter("a", 0.0, lower=0.0), Parameter("b", 2.0, upper=2.0)],
        lambda p: torch.sqrt(p["a"] + 1e-300 + X**2) * torch.exp(-p["b"]) + torch.log(2.0 - p["b"] + 1.0),
        X,
    )
    check = check_derivatives(made, made.evaluate(made.parameters.start()), apart=True)
    assert max(check.errors.values()) < 1e-4
    assert not check.sentences


def test_limits_of_the_model_s_own_shorten_the_moves():
    def guarded(p):
        if plain(p["b"]) > 1.001:
            raise BilevelError("b must lie below 1.001")
        return p["a"] * X ** p["b"]

    made = problem(guarded, 1.0, 1.0)
    check = check_derivatives(made, made.evaluate(made.parameters.start(), with_jacobian=True), apart=True)
    assert check.errors["b"] < 1e-6


def test_collinear_parameters_do_not_make_it_cry():
    """Their effects cancel in any one direction; the scale is that of each."""
    made = problem(lambda p: (p["a"] + p["b"]) * torch.exp(0.1 * X), 0.2, 0.2)
    check = check_derivatives(made, made.evaluate(made.parameters.start()))
    assert check.error < 1e-9


def test_a_finite_prediction_with_a_derivative_that_is_not():
    made = problem(lambda p: p["b"] * X + torch.sqrt((p["a"] * X) ** 2), 0.0, 1.0)
    with pytest.raises(BilevelError, match=r"derivative of the prediction for row 0 .* with respect to a is NaN"):
        calibrate(made)
    with pytest.raises(BilevelError, match="with respect to a is NaN"):
        calibrate(made, settings=Settings(method=Method.LBFGSB, verify=False))


def chain_of_bars(p):
    """Three nodes between held ends: the stiffness E drops out, the grading nu does not."""

    def energy(u, q):
        strain = torch.diff(torch.cat([torch.zeros(1), u, torch.ones(1)]))
        return q["E"] * (0.5 * strain**2 * (1 + q["nu"] * torch.arange(1.0, 5.0))).sum()

    return bilevel.argmin(energy, torch.zeros(3), {"E": p["E"], "nu": p["nu"]}).u


@pytest.mark.parametrize("method", [Method.LEAST_SQUARES, Method.LBFGSB])
@pytest.mark.parametrize("transform", ["none", "log"])
def test_a_column_of_round_off_is_a_zero_column(transform, method):
    """Displacement control determines nu alone; E stays where it started."""
    data = chain_of_bars({"E": torch.tensor(2e11), "nu": torch.tensor(2 / 7)})
    made = problem_from_function(
        [Parameter("E", 1e11, transform=transform), Parameter("nu", 0.2, 0.0, 0.49)],
        chain_of_bars,
        data + 1e-4 * torch.tensor([1.0, -2.0, 1.0]),
    )
    result = calibrate(made, settings=Settings(method=method))
    assert result.values["E"] == pytest.approx(1e11, rel=1e-9)
    assert result.values["nu"] == pytest.approx(2 / 7, abs=3 * result.estimates[1].std)
    assert result.identifiability.sentences == {"E": "E is not identifiable: no fitted observation depends on it"}
    assert np.isinf(result.estimates[0].std)


PLAIN = """\
import torch
from bilevel.calibrate import works_in

@works_in("m", columns={"time": "h"}, parameters={"amplitude": "m", "rate": "1/h"})
def decay(parameters, columns):
    times = columns["time"].numpy()
    mesh = torch.as_tensor(times.copy())
    return parameters["amplitude"] * torch.exp(-parameters["rate"] * mesh)
"""


def test_columns_are_constants_under_every_transform(study, no_pictures):
    (study.folder / "model.py").write_text(PLAIN)
    checked = study.call("check")
    assert checked.code == 0, checked.err
    assert "verdict: right" in checked.out
    outcome = study.call("run")
    assert outcome.code == 0, outcome.err


PREPARED = """\
import torch
from bilevel.calibrate import works_in

calls = []

def setting(columns):
    calls.append(1)
    return torch.linspace(0.0, 1.0, len(calls)), columns["time"].numpy()

@works_in("m", columns={"time": "h"}, parameters={"amplitude": "m", "rate": "1/h"})
def decay(parameters, columns, prepared):
    once, times = prepared
    assert len(once) == len(calls) == 1
    return parameters["amplitude"] * torch.exp(-parameters["rate"] * torch.as_tensor(times))
"""


def test_what_is_made_once_is_made_once(study, no_pictures):
    (study.folder / "model.py").write_text(PREPARED)
    study.edit("name: decay}", "name: decay, prepare: setting}")
    outcome = study.call("run")
    assert outcome.code == 0, outcome.err
    study.edit("prepare: setting", "prepare: seting")
    assert "has no function called 'seting' to prepare with" in study.call("check").err
