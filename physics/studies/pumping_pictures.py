"""Pictures of a pumping test: drawdowns, and discharges of a well that is held, against the logarithm of time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Curve = tuple[np.ndarray, np.ndarray]
"""Times since the beginning [d], and values."""


def wells_in_time(
    measured: Mapping[str, Curve], calibrated: Mapping[str, Curve], labels: Sequence[str], axis: str, *, event: str
) -> Figure:
    """By well: circles for what was measured, lines for the model. event: what the time is since; drawdowns point downwards."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter

    figure = Figure(figsize=(7.0, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for k, (well, label) in enumerate(zip(measured, labels)):
        axes.semilogx(*measured[well], "o", ms=4, color=f"C{k}", mfc="none")
        axes.semilogx(*calibrated[well], color=f"C{k}", label=label)
    times = np.concatenate([time for time, _ in calibrated.values()])
    few = (times.max() / times.min()) < 300.0
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if few else (1.0,)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel(f"time since {event} [d]")
    axes.set_ylabel(axis)
    if axis.startswith("drawdown"):
        axes.invert_yaxis()
    axes.grid(True, which="both", alpha=0.3)
    axes.legend()
    return figure
