"""Further fits drawn from plain numbers: profiles of phi, strengths of priors, samples, and where several starts ended."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bilevel.calibrate.report.axes import COLOURS, logarithmic, new_figure, plain, with_units

if TYPE_CHECKING:  # it takes half a second to load
    from matplotlib.figure import Figure


def profile_figure(
    values: np.ndarray,
    phi: np.ndarray,
    parabola: tuple[np.ndarray, np.ndarray] | None,
    ends: Sequence[float],
    estimate: float,
    least: float,
    threshold: float,
    label: str,
) -> Figure:
    """phi along a profile, beside the parabola of linear theory; ends: of the interval, infinite where it has none."""
    figure, axis = new_figure(1, 1, 3.4, width=5.5)
    axis.plot(values, phi, "o-", ms=3, color=COLOURS[0], label="least φ")
    if parabola is not None:
        axis.plot(*parabola, "--", lw=1, color=COLOURS[1], label="linear theory")
    axis.axhline(threshold, color="#888888", lw=0.8)
    for end in ends:
        if math.isfinite(end):
            axis.axvline(end, color="#888888", lw=0.8, ls=":")
    axis.axvline(estimate, color=COLOURS[2], lw=0.8)
    axis.set_ylim(top=least + 1.6 * (threshold - least))
    axis.set(xlabel=label, ylabel="φ")
    if values.min() > 0 and values.max() / values.min() > 50:
        logarithmic(axis, values)
    axis.legend(fontsize=8, frameon=False)
    return figure


def strength_figure(strengths: Sequence[float], phi: np.ndarray, phi_fields: np.ndarray) -> Figure:
    """The plane of the L-curve; the last of the fits is the choice."""
    figure, axis = new_figure(1, 1, 3.4, width=5.5)
    axis.plot(phi, phi_fields, "o-", ms=4, lw=0.8, color=COLOURS[0])
    for values, scale in ((phi, axis.set_xscale), (phi_fields, axis.set_yscale)):
        if values.min() > 0 and values.max() / values.min() > 10:
            scale("log")
    axis.plot(phi[-1], phi_fields[-1], "o", ms=8, mfc="none", color=COLOURS[1])
    for strength, *place in zip(strengths, phi, phi_fields):
        axis.annotate(f"{strength:.2g}", place, fontsize=7, xytext=(4, 4), textcoords="offset points")
    axis.set(xlabel="φ of the readings", ylabel="φ of the fields, by their model")
    return figure


@dataclass(frozen=True)
class Samples:
    """Samples (n,) of a parameter or forecast, with the value and standard deviation of linear theory."""

    label: str
    units: str
    samples: np.ndarray
    value: float
    std: float


def samples_figure(shown: Sequence[Samples]) -> Figure:
    """The distribution of each, beside the normal one of linear theory."""
    rows = (len(shown) + 2) // 3
    figure, axes = new_figure(rows, min(len(shown), 3), 2.2 * rows + 0.4)
    for axis, one in zip(np.atleast_1d(axes).flat, shown):
        bins = int(np.clip(len(one.samples) ** 0.5, 5, 40))
        axis.hist(one.samples, bins=bins, density=True, color=COLOURS[0], alpha=0.8)
        if math.isfinite(one.std) and one.std > 0:
            x = np.linspace(one.value - 3 * one.std, one.value + 3 * one.std, 80)
            density = np.exp(-0.5 * ((x - one.value) / one.std) ** 2) / (one.std * math.sqrt(2 * math.pi))
            axis.plot(x, density, "--", lw=1, color=COLOURS[1])
        axis.set(xlabel=with_units(one.label, one.units), yticks=[])
    return figure


def waterfall_figure(ends: Sequence[tuple[float, bool, int | None]], alike: float) -> Figure:
    """phi, whether it converged, and which minimum it reached, of each start in order; alike: relative spread of one minimum."""
    figure, axis = new_figure(1, 1, 3.4, width=4.0)
    for k, (value, converged, minimum) in enumerate(ends, 1):
        colour = "#888888" if minimum is None else COLOURS[minimum % len(COLOURS)]
        axis.plot(k, value, "o" if converged else "x", ms=4, color=colour)
    phi = np.array([value for value, _, _ in ends])
    if phi.min() > 0 and phi.max() / phi.min() > 20:
        axis.set_yscale("log")
    elif np.ptp(phi) <= alike * phi.max():
        axis.set_ylim(0, 1.2 * phi.max() or 1.0)
    axis.set(xlabel="start, in order of φ (x: not converged)", ylabel="φ")
    return figure


def ends_figure(labels: Sequence[str], shares: Sequence[np.ndarray]) -> Figure:
    """Where between their bounds parameters ended, of each start, the best last."""
    figure, axis = new_figure(1, 1, 3.4, width=4.0)
    for rank, share in enumerate(shares):
        best = rank == len(shares) - 1
        axis.plot(range(len(labels)), share, "o-", ms=3, lw=2 if best else 0.7, color=COLOURS[0] if best else "#bbbbbb")
    axis.set_xticks(range(len(labels)), [plain(label) for label in labels], rotation=30, ha="right", fontsize=8)
    axis.set(ylabel="place between the bounds", ylim=(-0.05, 1.05))
    return figure
