"""Derivatives of the hypoplastic rate in closed form; those by automatic differentiation take ten times as long.

In NumPy, whose calls cost a fifth of PyTorch's: a laboratory test is a few points at a time.

The rate is h = c (F^2 D + a^2 s r + fd a F |D| m) with r = T/tr T, m = 2 r - 1/3, s = r : D and c = fs/(r : r). Its scalars
fs, fd, a and F have gradients, and h is moved by each of them along one direction.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from physics.constitutive.mandel import ROOT2, TINY

Array = np.ndarray
UNIT = np.array([1.0, 1.0, 1.0, 0.0, 0.0, 0.0])
EYE = np.eye(6)
ROOT3 = math.sqrt(3.0)


class RateSlopes(NamedTuple):
    """The stress rate h (*batch, 6) with its derivatives by stress and strain rate (*batch, 6, 6), void ratio (*batch, 6)
    and parameters by name (*batch, 6)."""

    rate: Array
    by_stress: Array
    by_strain: Array
    by_void_ratio: Array
    by_values: dict[str, Array]


def rate_slopes(stress: Array, void_ratio: Array, strain: Array, values: Mapping[str, Array]) -> RateSlopes:
    """As `Hypoplastic.rate`, with both parts together."""
    whole = stress[..., :3].sum(-1)
    ratio = stress / whole[..., None]
    lode, lode_slope = _lode_slope(ratio - UNIT / 3.0)
    factors = _Factors.of(-whole / 3.0, void_ratio, values)
    a, density = factors.a, factors.density
    square, along = (ratio * ratio).sum(-1), (ratio * strain).sum(-1)
    length = np.sqrt((strain * strain).sum(-1))
    c, twice = factors.stiffness / square, 2.0 * ratio - UNIT / 3.0
    flow = a * density * length  # what stands before F m
    inner = (lode**2)[..., None] * strain + (a**2 * along)[..., None] * ratio + (flow * lode)[..., None] * twice
    rate = c[..., None] * inner
    by_lode = 2.0 * lode[..., None] * strain + flow[..., None] * twice
    by_a = (2.0 * a * along)[..., None] * ratio + (density * lode * length)[..., None] * twice
    by_density = (a * lode * length)[..., None] * twice
    move = (
        by_lode[..., None] * lode_slope[..., None, :]
        + (a**2)[..., None, None] * ratio[..., None] * strain[..., None, :]
    )
    move = move - (2.0 / square)[..., None, None] * inner[..., None] * ratio[..., None, :]
    move = c[..., None, None] * (move + (a**2 * along + 2.0 * flow * lode)[..., None, None] * EYE)

    def moved(log_stiffness: Array, density: Array) -> Array:
        return rate * log_stiffness[..., None] + by_density * (c * density)[..., None]

    by_pressure = moved(factors.stiffness_by["pressure"], factors.density_by["pressure"])
    # d r = (d T - r tr d T)/tr T and d p = -tr d T/3
    of_trace = (move @ ratio[..., None])[..., 0] / whole[..., None] + by_pressure / 3.0
    by_stress = move / whole[..., None, None] - of_trace[..., None] * UNIT
    direction = strain / np.where(length > 0, length, 1.0)[..., None]
    by_strain = (a**2)[..., None, None] * ratio[..., None] * ratio[..., None, :]
    by_strain = by_strain + (a * density * lode)[..., None, None] * twice[..., None] * direction[..., None, :]
    by_strain = c[..., None, None] * (by_strain + (lode**2)[..., None, None] * EYE)
    by_values = {name: moved(factors.stiffness_by[name], factors.density_by[name]) for name in _PARAMETERS}
    by_angle = rate * factors.stiffness_by["a"][..., None] + c[..., None] * by_a
    by_values["friction_angle"] = by_angle * factors.a_by_angle[..., None]
    by_void_ratio = moved(factors.stiffness_by["void_ratio"], factors.density_by["void_ratio"])
    return RateSlopes(rate, by_stress, by_strain, by_void_ratio, by_values)


_PARAMETERS = (
    "granular_hardness",
    "hardness_exponent",
    "void_ratio_min",
    "void_ratio_critical",
    "void_ratio_max",
    "pyknotropy",
    "barotropy",
)


def _lode_slope(offset: Array) -> tuple[Array, Array]:
    """F (*batch,) and d F / d offset (*batch, 6)."""
    square, cofactor = (offset * offset).sum(-1), _cofactor(offset)
    tangent = np.sqrt(3.0 * square + TINY)
    third = (cofactor * offset).sum(-1) / 3.0  # the determinant is of degree three
    below = square + TINY
    cosine = -9.0 * ROOT2 * third / below
    bottom = 2.0 + ROOT2 * cosine
    inside = tangent**2 / 8.0 + (2.0 - tangent**2) / bottom
    root = np.sqrt(inside)
    by_tangent = tangent * (0.25 - 2.0 / bottom) / (2.0 * root) - 1.0 / (2.0 * ROOT2)
    by_cosine = -ROOT2 * (2.0 - tangent**2) / (2.0 * root * bottom**2)
    by_third = -9.0 * ROOT2 / below * by_cosine
    by_offset = 3.0 / tangent * by_tangent - 2.0 * cosine / below * by_cosine
    lode = root - tangent / (2.0 * ROOT2)
    return lode, by_offset[..., None] * offset + by_third[..., None] * cofactor


def _cofactor(a: Array) -> Array:
    """d det a / d a (*batch, 6)."""
    xx, yy, zz, yz, xz, xy = np.moveaxis(a, -1, 0)
    return np.stack(
        [
            yy * zz - yz**2 / 2,
            xx * zz - xz**2 / 2,
            xx * yy - xy**2 / 2,
            xz * xy / ROOT2 - xx * yz,
            yz * xy / ROOT2 - yy * xz,
            yz * xz / ROOT2 - zz * xy,
        ],
        axis=-1,
    )


class _Factors(NamedTuple):
    """a, fd and fs, with derivatives of fd and of log fs by name."""

    a: Array
    a_by_angle: Array
    density: Array
    density_by: dict[str, Array]
    stiffness: Array
    stiffness_by: dict[str, Array]

    @staticmethod
    def of(pressure: Array, void_ratio: Array, values: Mapping[str, Array]) -> _Factors:
        angle = values["friction_angle"]
        sine = np.sin(angle)
        a = math.sqrt(3.0 / 8.0) * (3.0 - sine) / sine
        hardness, n = values["granular_hardness"], values["hardness_exponent"]
        densest, critical, loosest = values["void_ratio_min"], values["void_ratio_critical"], values["void_ratio_max"]
        alpha, beta = values["pyknotropy"], values["barotropy"]
        load = 3.0 * pressure / hardness
        log_load, power = np.log(load), load**n
        shrink, between = np.exp(-power), critical - densest
        scaled = void_ratio / (between * shrink)
        relative = scaled - densest / between
        room = relative > 0
        some = np.where(room, relative, 1.0)
        density = np.where(room, some**alpha, 0.0)
        steep = density * alpha / some
        by_power = steep * scaled
        zero = np.zeros_like(density)
        density_by = {
            "pressure": by_power * power * n / pressure,
            "void_ratio": steep / (between * shrink),
            "granular_hardness": -by_power * power * n / hardness,
            "hardness_exponent": by_power * power * log_load,
            "void_ratio_min": steep * (relative - 1.0) / between,
            "void_ratio_critical": -steep * relative / between,
            "void_ratio_max": zero,
            "pyknotropy": density * np.log(some),
            "barotropy": zero,
        }
        room_above = loosest - densest
        loose, loosest_now = (room_above / between) ** alpha, loosest * shrink
        bottom = 3.0 + a**2 - ROOT3 * a * loose
        bulk = hardness / n * (1.0 + loosest_now) / loosest_now * load ** (1.0 - n)
        stiffness = bulk * (loosest_now / void_ratio) ** beta / bottom
        by_log = beta - 1.0 / (1.0 + loosest_now)  # by the logarithm of loosest_now
        by_loose = ROOT3 * a * loose / bottom
        stiffness_by = {
            "pressure": (1.0 - n - by_log * power * n) / pressure,
            "void_ratio": -beta / void_ratio,
            "granular_hardness": n / hardness * (1.0 + by_log * power),
            "hardness_exponent": -1.0 / n - log_load * (1.0 + by_log * power),
            "void_ratio_min": by_loose * alpha * (1.0 / between - 1.0 / room_above) + zero,
            "void_ratio_critical": -by_loose * alpha / between + zero,
            "void_ratio_max": by_log / loosest + by_loose * alpha / room_above,
            "pyknotropy": by_loose * np.log(room_above / between) + zero,
            "barotropy": np.log(loosest_now / void_ratio),
            "a": (ROOT3 * loose - 2.0 * a) / bottom + zero,
        }
        by_angle = -3.0 * math.sqrt(3.0 / 8.0) * np.cos(angle) / sine**2 + zero
        return _Factors(a + zero, by_angle, density, density_by, stiffness, stiffness_by)
