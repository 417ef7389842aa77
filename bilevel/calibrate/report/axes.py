"""How all pictures look: figures that no window system knows of, colours, and users' texts as they stand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:  # it takes most of a second to load
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0b6e99", "#d9730d", "#0f7b6c", "#ad1a72", "#6940a5", "#9a6700", "#e03e3e", "#4f5b66")
MANY = 400
"""From here on markers are small and pale."""


def plain(text: str) -> str:
    """A user's text for Matplotlib, which would read $...$ as mathematics and leave _names out of legends; cut if long."""
    text = text if len(text) <= 50 else text[:49] + "…"
    text = text.replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text


def with_units(name: str, units: str) -> str:
    """ "time [h]", or the name alone."""
    return plain(f"{name} [{units}]" if units else name)


def new_figure(
    rows: int,
    columns: int,
    height: float,
    *,
    width: float = 7.0,
    sharex: bool = False,
    height_ratios: Sequence[float] | None = None,
) -> tuple[Figure, Any]:
    """A figure and its axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(
        rows, columns, sharex=sharex, gridspec_kw={"height_ratios": height_ratios} if height_ratios else None
    )
    for axis in np.atleast_1d(axes).flat:
        axis.grid(True, color="#e6e6e6", lw=0.7)
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(labelsize=8)
        axis.xaxis.label.set_size(9)
        axis.yaxis.label.set_size(9)
        axis.title.set_size(9)
    return figure, axes


def logarithmic(axis: Axes, values: np.ndarray) -> None:
    """A logarithmic horizontal axis whose labels are plain numbers and do not overlap."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axis.set_xscale("log")
    axis.xaxis.set_minor_formatter(NullFormatter())
    if values.max() / values.min() < 1e3:
        axis.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axis.xaxis.set_major_formatter("{x:g}")
