"""Parameters: what is refused, ties, fields, priors, and what each experiment sees."""

import math

import numpy as np
import pytest
import torch

from bilevel.calibrate import Noise, Settings, calibrate, problem_from_function
from bilevel.calibrate.parameter import Parameter
from bilevel.calibrate.parameters import ParameterSet
from bilevel.calibrate.study.units import parse_unit
from bilevel.report import InputError


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"value": 5, "lower": 10}, "start value 5 is outside its bounds [10, inf]"),
        ({"value": 5, "lower": 10, "upper": 1}, "lower bound 10 must be below upper bound 1"),
        ({"value": float("nan")}, "NaN"),
        ({"value": -1, "transform": "log"}, "positive start value, not -1"),
        ({"value": 1, "transform": "exp"}, "none, log or logit, not 'exp'"),
        ({"value": 1, "transform": "logit", "lower": 0}, "both a lower and an upper bound"),
        ({"value": 0, "transform": "logit", "lower": 0, "upper": 1}, "strictly between"),
        ({"value": 1, "prior_mean": 1}, "give them together"),
        ({"value": 1, "prior_log_std": 1}, "give them together"),
        ({"value": 1, "prior_mean": 1, "prior_std": 1, "prior_log_std": 1}, "either prior_std or prior_log_std"),
        ({"value": 1, "prior_mean": -1, "prior_log_std": 1}, "needs a positive prior_mean"),
        ({"value": [1, 2], "prior_mean": [1, 2, 3], "prior_std": 1}, "prior_mean has 3 entries, the value has 2"),
        ({"value": 1, "prior_mean": 1, "prior_std": 0}, "prior_std must be positive"),
        ({"fixed": True, "expr": "b"}, "neither fixed nor transformed"),
        ({"expr": "b", "transform": "log"}, "neither fixed nor transformed"),
        ({"value": [1.0, 2.0], "entries": ("sand",)}, "2 values for the 1 entries sand"),
        ({"value": [[1.0, 2.0]]}, "not an array of shape (1, 2)"),
    ],
)
def test_refused(arguments, says):
    with pytest.raises(InputError) as error:
        Parameter("a", **arguments)
    assert says in str(error.value)
    assert "parameter 'a'" in str(error.value)


def test_duplicate_unknown_name_and_circle():
    with pytest.raises(InputError, match="'a' is given more than once"):
        ParameterSet([Parameter("a", 1), Parameter("a", 2)])
    with pytest.raises(InputError, match="'z' is not a parameter of this study"):
        ParameterSet([Parameter("a", expr="2 * z")])
    with pytest.raises(InputError, match=r"in a circle: (a -> b -> a|b -> a -> b)"):
        ParameterSet([Parameter("a", expr="2 * b"), Parameter("b", expr="a + c"), Parameter("c", 1)])
    with pytest.raises(InputError, match="'a / b' gives inf, not a number"):
        ParameterSet([Parameter("a", 1), Parameter("b", 0), Parameter("c", expr="a / b")])


def test_expressions_follow_through_a_chain():
    parameters = ParameterSet(
        [Parameter("c", expr="2 * b"), Parameter("b", expr="2 * a"), Parameter("a", 2, transform="log")]
    )
    assert {p.label: float(p.start) for p in parameters.parameters} == {"c": 8, "b": 4, "a": 2}
    natural = parameters.natural(torch.log(torch.tensor([5.0])))
    assert {k: float(v) for k, v in natural.items()} == pytest.approx({"c": 20, "b": 10, "a": 5})


def test_fields_scalars_and_fixed_share_one_vector():
    parameters = ParameterSet(
        [Parameter("k", np.array([1.0, 2.0, 4.0]), transform="log"), Parameter("f", 7, fixed=True), Parameter("s", -3)]
    )
    assert parameters.size == 4
    assert parameters.entry_labels == ["k[0]", "k[1]", "k[2]", "s"]
    np.testing.assert_allclose(parameters.start(), [0, np.log(2), np.log(4), -3])
    natural = parameters.natural(torch.as_tensor(parameters.start()))
    np.testing.assert_allclose(natural["k"], [1, 2, 4])
    np.testing.assert_allclose(parameters.slopes(torch.as_tensor(parameters.start())), [1, 2, 4, 1])


def test_models_get_their_own_units_and_their_own_nuisances():
    conversion = parse_unit("m/d").to(parse_unit("m/s"))
    parameters = ParameterSet(
        [
            Parameter("k", 86400.0, units="m/d", conversion=conversion),
            Parameter("offset", 1.0, experiments=("one",)),
            Parameter("offset", 2.0, experiments=("two",)),
        ]
    )
    natural = parameters.natural(torch.as_tensor(parameters.start()))
    assert {k: float(v) for k, v in parameters.for_experiment(natural, "two").items()} == pytest.approx(
        {"k": 1.0, "offset": 2.0}
    )
    assert list(parameters.entries_of("one")) == [0, 1]
    assert list(parameters.entries_of("two")) == [0, 2]


def test_priors_on_the_logarithm_and_by_entry():
    """Whatever is calibrated in their place, with the slopes of finite differences."""
    for transform in ("none", "log"):
        own = Parameter("k", [2.0, 8.0], transform=transform, prior_mean=[4.0, 4.0], prior_log_std=[0.5, 2.0])
        t = torch.as_tensor(ParameterSet([own]).start())
        found = ParameterSet([own]).prior_residual(t)
        np.testing.assert_allclose(found, [math.log(0.5) / 0.5, math.log(2.0) / 2.0])
        slope = own.prior_slope(torch.tensor([2.0, 8.0]))
        np.testing.assert_allclose(slope, [1 / (0.5 * 2), 1 / (2.0 * 8)])


def test_a_prior_on_the_logarithm_is_that_of_a_log_normal():
    """One reading of a b with both priors: the closed form in logarithms, where all is linear."""
    priors = [
        Parameter(n, 1.0, transform="log", prior_mean=m, prior_log_std=s)
        for n, m, s in (("a", 2.0, 0.1), ("b", 5.0, 0.3))
    ]
    data = torch.full((1,), math.log(12.0))
    problem = problem_from_function(priors, lambda p: (p["a"] * p["b"]).log().reshape(1), data, weight=1 / 0.05)
    result = calibrate(problem, settings=Settings(noise=Noise.KNOWN))
    variances = np.array([0.01, 0.09])
    gain = variances / (variances.sum() + 0.05**2)
    expected = np.log([2.0, 5.0]) + gain * math.log(12.0 / 10.0)
    np.testing.assert_allclose([math.log(e.value) for e in result.estimates], expected, rtol=1e-8)
    spread = np.sqrt(variances - gain * variances)
    np.testing.assert_allclose(result.statistics.std_t, spread, rtol=1e-6)


def test_prior_residual_is_in_natural_units():
    parameters = ParameterSet(
        [Parameter("a", 3.0, transform="log", prior_mean=5.0, prior_std=2.0), Parameter("b", 1.0)]
    )
    assert float(parameters.prior_residual(torch.as_tensor(parameters.start()))[0]) == pytest.approx(-1.0)
