"""The names of units, each with its size in SI units and its dimension."""

from __future__ import annotations

import math
from fractions import Fraction

Dimension = tuple[Fraction, ...]
"""Exponents of length, mass, time, temperature, electric current, amount of substance."""

NONE: Dimension = (Fraction(0),) * 6


def _dimension(
    length: int = 0, mass: int = 0, time: int = 0, temperature: int = 0, current: int = 0, amount: int = 0
) -> Dimension:
    return tuple(Fraction(k) for k in (length, mass, time, temperature, current, amount))


LENGTH, MASS, TIME, TEMPERATURE = _dimension(1), _dimension(0, 1), _dimension(0, 0, 1), _dimension(0, 0, 0, 1)
FORCE, PRESSURE, ENERGY, POWER = _dimension(1, 1, -2), _dimension(-1, 1, -2), _dimension(2, 1, -2), _dimension(2, 1, -3)
VOLUME, CURRENT, AMOUNT = _dimension(3), _dimension(0, 0, 0, 0, 1), _dimension(0, 0, 0, 0, 0, 1)
_VOLT, _OHM, _SIEMENS = _dimension(2, 1, -3, 0, -1), _dimension(2, 1, -3, 0, -2), _dimension(-2, -1, 3, 0, 2)
_TESLA = _dimension(0, 1, -2, 0, -1)
_YEAR = 365.25 * 86400.0  # Julian year
_GALLON = 231 * 0.0254**3  # of the United States, 231 cubic inches
TEMPERATURES = {"degC": (1.0, 273.15), "degF": (5 / 9, 273.15 - 32 * 5 / 9)}
"""Names that stand alone, since their zero is not the absolute one."""

TABLE: dict[str, tuple[float, Dimension]] = {
    "m": (1.0, LENGTH), "km": (1e3, LENGTH), "dm": (1e-1, LENGTH), "cm": (1e-2, LENGTH), "mm": (1e-3, LENGTH),
    "um": (1e-6, LENGTH), "nm": (1e-9, LENGTH), "angstrom": (1e-10, LENGTH),
    "in": (0.0254, LENGTH), "ft": (0.3048, LENGTH), "foot": (0.3048, LENGTH), "feet": (0.3048, LENGTH),
    "kg": (1.0, MASS), "g": (1e-3, MASS), "mg": (1e-6, MASS), "t": (1e3, MASS), "u": (1.66053906660e-27, MASS),
    "s": (1.0, TIME), "ms": (1e-3, TIME), "us": (1e-6, TIME), "ns": (1e-9, TIME), "ps": (1e-12, TIME),
    "fs": (1e-15, TIME),
    "min": (60.0, TIME), "h": (3600.0, TIME), "d": (86400.0, TIME), "day": (86400.0, TIME), "days": (86400.0, TIME),
    "hr": (3600.0, TIME), "a": (_YEAR, TIME), "year": (_YEAR, TIME),
    "K": (1.0, TEMPERATURE), "A": (1.0, CURRENT), "mol": (1.0, AMOUNT),
    "N": (1.0, FORCE), "mN": (1e-3, FORCE), "kN": (1e3, FORCE), "MN": (1e6, FORCE), "kgf": (9.80665, FORCE),
    "lbf": (4.4482216152605, FORCE),
    "Pa": (1.0, PRESSURE), "hPa": (1e2, PRESSURE), "kPa": (1e3, PRESSURE), "MPa": (1e6, PRESSURE),
    "GPa": (1e9, PRESSURE),
    "bar": (1e5, PRESSURE), "mbar": (1e2, PRESSURE), "atm": (101325.0, PRESSURE), "psi": (6894.757293168361, PRESSURE),
    "ksi": (6894757.293168361, PRESSURE), "mmHg": (133.322387415, PRESSURE), "cP": (1e-3, _dimension(-1, 1, -1)),
    "J": (1.0, ENERGY), "kJ": (1e3, ENERGY), "MJ": (1e6, ENERGY), "eV": (1.602176634e-19, ENERGY),
    "meV": (1.602176634e-22, ENERGY), "cal": (4.184, ENERGY), "kcal": (4184.0, ENERGY), "kWh": (3.6e6, ENERGY),
    "W": (1.0, POWER), "mW": (1e-3, POWER), "kW": (1e3, POWER), "MW": (1e6, POWER),
    "L": (1e-3, VOLUME), "l": (1e-3, VOLUME), "mL": (1e-6, VOLUME), "ha": (1e4, _dimension(2)),
    "gal": (_GALLON, VOLUME), "Mgal": (1e6 * _GALLON, VOLUME), "gpm": (_GALLON / 60.0, _dimension(3, 0, -1)),
    "cfs": (0.3048**3, _dimension(3, 0, -1)),
    "V": (1.0, _VOLT), "mV": (1e-3, _VOLT), "ohm": (1.0, _OHM), "S": (1.0, _SIEMENS), "mS": (1e-3, _SIEMENS),
    "uS": (1e-6, _SIEMENS), "T": (1.0, _TESLA), "nT": (1e-9, _TESLA), "mGal": (1e-5, _dimension(1, 0, -2)),
    "Hz": (1.0, _dimension(0, 0, -1)),
    "darcy": (9.869232667160130e-13, _dimension(2)), "mD": (9.869232667160130e-16, _dimension(2)),
    "rad": (1.0, NONE), "deg": (math.pi / 180.0, NONE), "%": (1e-2, NONE), "permille": (1e-3, NONE),
    "ppm": (1e-6, NONE), "microstrain": (1e-6, NONE), "ustrain": (1e-6, NONE), "1": (1.0, NONE),
}  # fmt: skip
