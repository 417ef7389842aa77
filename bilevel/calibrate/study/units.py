"""Units of measurement: a small explicit table, products and powers of it, and conversion; nothing is guessed."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

from bilevel.report import InputError

Dimension = tuple[Fraction, ...]
"""Exponents of length, mass, time, temperature, electric current, amount of substance."""

NONE: Dimension = (Fraction(0),) * 6


@dataclass(frozen=True)
class Unit:
    """value in SI = scale * value + offset; `offset` is not zero for degrees Celsius alone."""

    name: str
    scale: float
    dimension: Dimension
    offset: float = 0.0

    def to(self, other: Unit) -> Conversion:
        """The conversion from this unit to `other`; InputError if their dimensions differ."""
        if self.dimension != other.dimension:
            raise InputError(
                f"units '{self.name}' ({describe(self)}) do not convert to '{other.name}' ({describe(other)})"
            )
        return Conversion(self.scale / other.scale, (self.offset - other.offset) / other.scale)


@dataclass(frozen=True)
class Conversion:
    """new = scale * old + offset."""

    scale: float = 1.0
    offset: float = 0.0

    def __call__(self, value):  # type: ignore[no-untyped-def]
        """Convert a number, array or tensor."""
        return value if self == Conversion() else self.scale * value + self.offset

    def inverse(self, value):  # type: ignore[no-untyped-def]
        """Convert back."""
        return value if self == Conversion() else (value - self.offset) / self.scale


IDENTITY = Conversion()


def _dimension(
    length: int = 0, mass: int = 0, time: int = 0, temperature: int = 0, current: int = 0, amount: int = 0
) -> Dimension:
    return tuple(Fraction(k) for k in (length, mass, time, temperature, current, amount))


LENGTH, MASS, TIME, TEMPERATURE = _dimension(1), _dimension(0, 1), _dimension(0, 0, 1), _dimension(0, 0, 0, 1)
FORCE, PRESSURE, ENERGY, POWER = _dimension(1, 1, -2), _dimension(-1, 1, -2), _dimension(2, 1, -2), _dimension(2, 1, -3)
VOLUME, CURRENT, AMOUNT = _dimension(3), _dimension(0, 0, 0, 0, 1), _dimension(0, 0, 0, 0, 0, 1)
_YEAR = 365.25 * 86400.0  # Julian year

_TABLE: dict[str, tuple[float, Dimension]] = {
    "m": (1.0, LENGTH), "km": (1e3, LENGTH), "dm": (1e-1, LENGTH), "cm": (1e-2, LENGTH), "mm": (1e-3, LENGTH),
    "um": (1e-6, LENGTH), "nm": (1e-9, LENGTH), "angstrom": (1e-10, LENGTH),
    "in": (0.0254, LENGTH), "ft": (0.3048, LENGTH),
    "kg": (1.0, MASS), "g": (1e-3, MASS), "mg": (1e-6, MASS), "t": (1e3, MASS), "u": (1.66053906660e-27, MASS),
    "s": (1.0, TIME), "ms": (1e-3, TIME), "us": (1e-6, TIME), "ns": (1e-9, TIME), "ps": (1e-12, TIME),
    "fs": (1e-15, TIME),
    "min": (60.0, TIME), "h": (3600.0, TIME), "d": (86400.0, TIME), "a": (_YEAR, TIME), "year": (_YEAR, TIME),
    "K": (1.0, TEMPERATURE), "A": (1.0, CURRENT), "mol": (1.0, AMOUNT),
    "N": (1.0, FORCE), "mN": (1e-3, FORCE), "kN": (1e3, FORCE), "MN": (1e6, FORCE), "kgf": (9.80665, FORCE),
    "Pa": (1.0, PRESSURE), "hPa": (1e2, PRESSURE), "kPa": (1e3, PRESSURE), "MPa": (1e6, PRESSURE),
    "GPa": (1e9, PRESSURE),
    "bar": (1e5, PRESSURE), "mbar": (1e2, PRESSURE), "atm": (101325.0, PRESSURE), "psi": (6894.757293168361, PRESSURE),
    "J": (1.0, ENERGY), "kJ": (1e3, ENERGY), "MJ": (1e6, ENERGY), "eV": (1.602176634e-19, ENERGY),
    "meV": (1.602176634e-22, ENERGY), "cal": (4.184, ENERGY), "kcal": (4184.0, ENERGY), "kWh": (3.6e6, ENERGY),
    "W": (1.0, POWER), "mW": (1e-3, POWER), "kW": (1e3, POWER), "MW": (1e6, POWER),
    "L": (1e-3, VOLUME), "l": (1e-3, VOLUME), "mL": (1e-6, VOLUME), "ha": (1e4, _dimension(2)),
    "Hz": (1.0, _dimension(0, 0, -1)),
    "darcy": (9.869232667160130e-13, _dimension(2)), "mD": (9.869232667160130e-16, _dimension(2)),
    "rad": (1.0, NONE), "deg": (math.pi / 180.0, NONE), "%": (1e-2, NONE), "permille": (1e-3, NONE),
    "ppm": (1e-6, NONE), "1": (1.0, NONE),
}  # fmt: skip

_SI_NAMES = ("m", "kg", "s", "K", "A", "mol")
_TOKEN = re.compile(
    r"\s*(?:(?P<number>[0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?)|(?P<name>[A-Za-z%]+)|(?P<sign>\*\*|[*/^()·.]))"
)
_POWER = re.compile(r"[+-]?[0-9]+")
MAX_POWER, MAX_LENGTH = 12, 100


def parse_unit(text: str) -> Unit:
    """The unit written as products, quotients and powers of the table's names, as "m/d", "W/(m K)", "kgf/cm2", "1/m".

    "" and "-" are dimensionless; "degC" stands alone. Raises InputError, with the nearest name, for anything else.
    """
    stripped = text.strip()
    if stripped in ("", "-"):
        return Unit(text, 1.0, NONE)
    if stripped == "degC":
        return Unit(text, 1.0, TEMPERATURE, 273.15)
    return _Parser(stripped).parse()


def clash(texts: Iterable[str]) -> tuple[str, str] | None:
    """Two names of different size for one quantity among some units, such as cm and m; None if there are none."""
    seen: dict[tuple[Dimension, bool], str] = {}
    for name in (name for text in texts for name in _names(text)):
        dimension = TEMPERATURE if name == "degC" else _TABLE[name][1]
        known = seen.setdefault((dimension, name in ("deg", "rad")), name)
        if known != name and ("degC" in (known, name) or _TABLE[known] != _TABLE[name]):
            return known, name
    return None


def _names(text: str) -> list[str]:
    """The names in a unit; the e of 1e3 is none."""
    return [token.group("name") for token in _TOKEN.finditer(text) if token.group("name")]


def describe(unit: Unit) -> str:
    """The dimension in SI base units, such as "kg m^-1 s^-2"."""
    parts = [n if k == 1 else f"{n}^{k}" for n, k in zip(_SI_NAMES, unit.dimension) if k != 0]
    return " ".join(parts) or "dimensionless"


class _Parser:
    """unit := factor (('*' | ' ' | '/') factor)*; factor := (name | number | '(' unit ')') [power]."""

    def __init__(self, text: str) -> None:
        self.text, self.position = text, 0
        if len(text) > MAX_LENGTH:
            raise self._error(f"is longer than {MAX_LENGTH} characters")

    def parse(self) -> Unit:
        try:
            scale, dimension = self._product()
        except (OverflowError, ZeroDivisionError):
            scale, dimension = math.inf, NONE
        if not 0 < scale < math.inf:
            raise self._error("its size is zero or beyond the range of numbers")
        if scale != 1 and not _names(self.text):
            raise self._error("a number alone names no unit")
        if self.position < len(self.text):
            raise self._error(f"'{self.text[self.position :]}' is not understood")
        return Unit(self.text, scale, dimension)

    def _product(self) -> tuple[float, Dimension]:
        scale, dimension = self._factor()
        divided = False
        while (token := self._peek()) is not None and token.group().strip() != ")":
            sign = token.group("sign")
            if sign in ("^", "**"):
                raise self._error("a power must follow a unit")
            if divided and sign != "/":
                raise self._error("what follows a '/' is ambiguous; use parentheses, as in W/(m K)")
            divided = sign == "/"
            if sign in ("*", "/", "·", "."):
                self.position = token.end()
            power = -1 if sign == "/" else 1
            factor, exponents = self._factor()
            scale *= factor**power
            dimension = tuple(a + power * b for a, b in zip(dimension, exponents))
        return scale, dimension

    def _factor(self) -> tuple[float, Dimension]:
        token = self._peek()
        if token is None:
            raise self._error("a unit is missing at its end")
        self.position = token.end()
        if token.group("number"):
            base = float(token.group("number")), NONE
        elif token.group("name"):
            base = self._lookup(token.group("name"))
        elif token.group("sign") == "(":
            base = self._product()
            if (closing := self._peek()) is None or closing.group("sign") != ")":
                raise self._error("a ')' is missing")
            self.position = closing.end()
        else:
            raise self._error(f"'{token.group().strip()}' is out of place")
        return self._raised(*base)

    def _raised(self, scale: float, dimension: Dimension) -> tuple[float, Dimension]:
        start = self.position
        if (token := self._peek()) is not None and token.group("sign") in ("^", "**"):
            start = token.end()
        match = _POWER.match(self.text, start)
        if match is None:
            if start != self.position:
                raise self._error("a whole number must follow the power sign")
            return scale, dimension
        self.position = match.end()
        power = int(match.group())
        if not 1 <= abs(power) <= MAX_POWER:
            raise self._error(f"a power of {power} makes no unit")
        return scale**power, tuple(power * k for k in dimension)

    def _lookup(self, name: str) -> tuple[float, Dimension]:
        if name in _TABLE:
            return _TABLE[name]
        if name == "degC":
            raise self._error("'degC' can only stand alone; use K in products")
        near = difflib.get_close_matches(name, _TABLE, n=1, cutoff=0.5)
        raise self._error(f"'{name}' is unknown" + (f"; did you mean '{near[0]}'?" if near else ""))

    def _peek(self) -> re.Match[str] | None:
        return _TOKEN.match(self.text, self.position)

    def _error(self, what: str) -> InputError:
        return InputError(f"units '{self.text}': {what}")
