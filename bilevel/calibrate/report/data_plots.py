"""Data against model, drawn from plain numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bilevel.calibrate.report.axes import COLOURS, MANY, logarithmic, new_figure, plain, with_units

if TYPE_CHECKING:  # it takes half a second to load
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class ModelCurve:
    """What the model says along a curve; band: the ends of its 95 % interval, where that is known."""

    x: np.ndarray
    y: np.ndarray
    band: tuple[np.ndarray, np.ndarray] | None


@dataclass(frozen=True)
class GroupCurves:
    """A group of readings (n,), what the model leaves of them, and the model's curves; of `rows` readings in all."""

    name: str
    rows: int
    x: np.ndarray
    measured: np.ndarray
    left: np.ndarray
    curves: Sequence[ModelCurve]


def curves_figure(groups: Sequence[GroupCurves], units: str, label: str, logarithms: np.ndarray | None) -> Figure:
    """Readings and model above, their difference below; logarithms: the positive values of a logarithmic abscissa."""
    figure, (above, below) = new_figure(2, 1, 5.4, sharex=True, height_ratios=[3, 1])
    named = len(groups) <= 8
    for k, group in enumerate(groups):
        colour, many = COLOURS[k % len(COLOURS)], group.rows > MANY
        marker = {"ms": 2 if many else 4.5, "alpha": 0.4 if many else 0.9, "color": colour}
        text = f"{plain(group.name)}, measured" if named else None
        above.plot(group.x, group.measured, "o", mfc="white", label=text, **marker)
        below.plot(group.x, group.left, "o", **marker)
        for n, curve in enumerate(group.curves):
            text = f"{plain(group.name)}, model" if named and n == 0 else None
            if curve.band is not None:
                above.fill_between(curve.x, *curve.band, color=colour, alpha=0.15, lw=0)
            above.plot(curve.x, curve.y, "-" if len(curve.x) > 1 else "_", color=colour, lw=1.8, label=text)
    above.set_ylabel(with_units("value", units))
    below.set_ylabel("measured - model")
    below.axhline(0, color="#888888", lw=0.8)
    below.set_xlabel(label)
    if logarithms is not None:
        logarithmic(below, logarithms)
    if named:
        above.legend(fontsize=8, frameon=False)
    return figure


def map_figure(x: np.ndarray, y: np.ndarray, data: np.ndarray, model: np.ndarray, units: str) -> Figure:
    """Readings in a plane, the model there, and what is left, one below the other."""
    figure, axes = new_figure(3, 1, 6.6, sharex=True)
    low, high = float(min(data.min(), model.min())), float(max(data.max(), model.max()))
    spread = float(np.quantile(np.abs(data - model), 0.98)) or 1.0
    panels = [("measured", data, "viridis", low, high), ("model", model, "viridis", low, high)]
    panels.append(("measured - model", data - model, "RdBu_r", -spread, spread))
    for axis, (name, values, colours, least, most) in zip(axes, panels):
        points = axis.scatter(x, y, c=values, s=6, cmap=colours, vmin=least, vmax=most, rasterized=True, linewidths=0)
        axis.set_aspect("equal")
        axis.set_title(name, fontsize=9)
        figure.colorbar(points, ax=axis, label=plain(units), shrink=0.9)
    return figure
