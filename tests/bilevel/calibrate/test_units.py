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
        ("m³ s⁻¹", 1.0),
        ("µm", 1e-6),
        ("μS/cm", 1e-4),
        ("Ω", 1.0),
        ("day", 86400.0),
        ("1/days", 1 / 86400),
        ("hr", 3600.0),
        ("gal", 3.785411784e-3),
        ("gpm", 6.30901964e-5),
        ("Mgal/d", 0.0438126363889),
        ("ft²/d", 0.09290304 / 86400),
        ("cfs", 0.028316846592),
        ("ksi", 6.894757293168361e6),
        ("lbf/in2", 6894.757293168361),
        ("cP", 1e-3),
        ("mmHg", 133.322387415),
        ("V/A", 1.0),
        ("mGal", 1e-5),
        ("nT", 1e-9),
        ("microstrain", 1e-6),
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


def test_a_hint_never_leads_to_another_dimension():
    for text, meant, says in [
        ("mins", "s", "did you mean 'min'?"),
        ("kgal", "m3", "did you mean 'gal'?"),
        ("Lm/s", "m3/s", "did you mean 'L'?"),
    ]:
        with pytest.raises(InputError) as error:
            parse_unit(text, parse_unit(meant))
        assert says in str(error.value)
    for text, meant in [("mins", "m"), ("hp", "m"), ("pascals", "K"), ("dms", "Pa"), ("gals", "m")]:
        with pytest.raises(InputError) as error:
            parse_unit(text, parse_unit(meant))
        if "did you mean" in str(error.value):
            name = str(error.value).split("did you mean '")[1].split("'")[0]
            assert parse_unit(name).dimension == parse_unit(meant).dimension


def test_units_of_electricity_and_of_flow_go_together():
    assert parse_unit("V A").to(parse_unit("W")).scale == 1
    assert parse_unit("1/ohm").to(parse_unit("S")).scale == 1
    assert parse_unit("gpm").to(parse_unit("L/s")).scale == pytest.approx(0.0630901964)
    assert parse_unit("T m2").to(parse_unit("V s")).scale == 1


def test_celsius_has_an_offset():
    assert parse_unit("degF").to(parse_unit("degC"))(212.0) == pytest.approx(100.0)
    assert parse_unit("°F").to(parse_unit("K"))(32.0) == pytest.approx(273.15)
    assert clash(["degF", "degC"]) == ("degF", "degC")
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
