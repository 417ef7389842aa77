"""Units: the table, the parser, and conversion; what is not in the table is an error."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bilevel.calibrate.study.units import clash, parse_unit
from bilevel.report import InputError


@pytest.mark.parametrize(
    ("text", "si"),
    [
        ("m/d", 1 / 86400),
        ("kgf/cm2", 98066.5),
        ("W/(m K)", 1.0),
        ("1/m", 1.0),
        ("m^2/s", 1.0),
        ("m**2", 1.0),
        ("kg m^-1 s^-2", 1.0),
        ("m3/d/m", 1 / 86400),
        ("%", 0.01),
        ("deg", math.pi / 180),
        ("", 1.0),
        ("kN/(mm^2)", 1e9),
    ],
)
def test_scale_to_si(text, si):
    assert parse_unit(text).scale == pytest.approx(si, rel=1e-14)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("Mpa", "did you mean 'MPa'"),
        ("furlong", "'furlong' is unknown"),
        ("m/", "missing at its end"),
        ("(m", "')' is missing"),
        ("m^x", "whole number"),
        ("W/m K", "ambiguous"),
        ("degC/m", "stand alone"),
        ("m)", "not understood"),
        ("m $", "not understood"),
    ],
)
def test_unknown_units_are_errors(text, says):
    with pytest.raises(InputError, match=None) as error:
        parse_unit(text)
    assert says in str(error.value)
    assert text in str(error.value)


def test_dimensions_must_match():
    with pytest.raises(InputError, match=r"'m/d' \(m s\^-1\) do not convert to 'm' \(m\)"):
        parse_unit("m/d").to(parse_unit("m"))


def test_celsius_has_an_offset():
    to_kelvin = parse_unit("degC").to(parse_unit("K"))
    assert to_kelvin(25.0) == pytest.approx(298.15)
    assert to_kelvin.inverse(298.15) == pytest.approx(25.0)


@given(
    value=st.floats(-1e6, 1e6),
    pair=st.sampled_from([("m/d", "ft/s"), ("MPa", "psi"), ("degC", "K"), ("eV", "J"), ("min", "d"), ("L/s", "m3/d")]),
)
def test_conversion_there_and_back(value, pair):
    first, second = map(parse_unit, pair)
    there, back = first.to(second), second.to(first)
    assert back(there(value)) == pytest.approx(value, rel=1e-12, abs=1e-9)
    assert there.inverse(there(value)) == pytest.approx(value, rel=1e-12, abs=1e-9)


def test_names_of_different_size_clash_and_the_exponent_of_a_number_is_no_name():
    assert clash(["1e3 m", "m/d", "1e-2 1/d"]) is None
    assert clash(["m/d", "1e3 cm"]) == ("m", "cm")
    assert clash(["degC", "1/K"]) == ("degC", "K")
    assert clash(["%", "deg"]) is None


@pytest.mark.parametrize("text", ["50", "0.5", "1e3", "1e308", "2/3"])
def test_a_number_alone_is_no_unit(text):
    with pytest.raises(InputError, match="a number alone names no unit"):
        parse_unit(text)
