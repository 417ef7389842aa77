"""Units of measurement: products and powers of the names of a small table, and conversion; nothing is guessed."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from bilevel.calibrate.study.unit_table import NONE, TABLE, TEMPERATURE, TEMPERATURES, Dimension
from bilevel.report import InputError


@dataclass(frozen=True)
class Unit:
    """value in SI = scale * value + offset; `offset` is not zero for degrees Celsius and Fahrenheit alone."""

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


_SI_NAMES = ("m", "kg", "s", "K", "A", "mol")
_TOKEN = re.compile(
    r"\s*(?:(?P<number>[0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?)|(?P<name>[A-Za-z%]+)|(?P<sign>\*\*|[*/^()·.]))"
)
_POWER = re.compile(r"[+-]?[0-9]+")
MAX_POWER, MAX_LENGTH = 12, 100


def parse_unit(text: str, meant: Unit | None = None) -> Unit:
    """The unit written as products, quotients and powers of the table's names, as "m/d", "W/(m K)", "kgf/cm2", "m³/s".

    "" and "-" are dimensionless; "degC" and "degF" stand alone. Raises InputError for anything else, with the nearest
    name that makes the dimension of `meant`; where that is not known, with a name that is the same but for capitals.
    """
    stripped = _plain(text.strip())
    if stripped in ("", "-"):
        return Unit(text, 1.0, NONE)
    if stripped in TEMPERATURES:
        scale, zero = TEMPERATURES[stripped]
        return Unit(text, scale, TEMPERATURE, zero)
    return replace(_Parser(stripped, meant).parse(), name=text)


_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺", "0123456789-+")
_SIGNS = {"µ": "u", "μ": "u", "°C": "degC", "°F": "degF", "Ω": "ohm", "−": "-"}


def _plain(text: str) -> str:
    """Superscripts as powers, and signs that keyboards lack as the table's names."""
    text = re.sub("[⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺]+", lambda found: "^" + found.group().translate(_SUPERSCRIPTS), text)
    for sign, name in _SIGNS.items():
        text = text.replace(sign, name)
    return text


def clash(texts: Iterable[str]) -> tuple[str, str] | None:
    """Two names of different size for one quantity among some units, such as cm and m; None if there are none."""
    seen: dict[tuple[Dimension, bool], str] = {}
    for name in (name for text in texts for name in _names(text)):
        dimension = TEMPERATURE if name in TEMPERATURES else TABLE[name][1]
        known = seen.setdefault((dimension, name in ("deg", "rad")), name)
        if known != name and ({known, name} & set(TEMPERATURES) or TABLE[known] != TABLE[name]):
            return known, name
    return None


def _names(text: str) -> list[str]:
    """The names in a unit; the e of 1e3 is none."""
    return [token.group("name") for token in _TOKEN.finditer(_plain(text)) if token.group("name")]


def describe(unit: Unit) -> str:
    """The dimension in SI base units, such as "kg m^-1 s^-2"."""
    parts = [n if k == 1 else f"{n}^{k}" for n, k in zip(_SI_NAMES, unit.dimension) if k != 0]
    return " ".join(parts) or "dimensionless"


class _Parser:
    """unit := factor (('*' | ' ' | '/') factor)*; factor := (name | number | '(' unit ')') [power]."""

    def __init__(self, text: str, meant: Unit | None = None) -> None:
        self.text, self.position, self.meant = text, 0, meant
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
        if name in TABLE:
            return TABLE[name]
        if name in TEMPERATURES:
            raise self._error(f"'{name}' can only stand alone; use K in products")
        near = next(
            (other for other in difflib.get_close_matches(name, TABLE, n=9, cutoff=0.3) if self._means(name, other)),
            None,
        )
        raise self._error(f"'{name}' is unknown" + (f"; did you mean '{near}'?" if near else ""))

    def _means(self, name: str, other: str) -> bool:
        """Whether another name in the place of an unknown one makes what is meant."""
        if self.meant is None:
            return name.lower() == other.lower()
        try:
            return (
                _Parser(re.sub(rf"(?<![A-Za-z]){re.escape(name)}(?![A-Za-z])", other, self.text)).parse().dimension
                == self.meant.dimension
            )
        except InputError:
            return False

    def _peek(self) -> re.Match[str] | None:
        return _TOKEN.match(self.text, self.position)

    def _error(self, what: str) -> InputError:
        return InputError(f"units '{self.text}': {what}")
