"""Residuals, the way there, and correlations, drawn from plain numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from bilevel.calibrate.report.axes import COLOURS, MANY, new_figure, plain

if TYPE_CHECKING:  # it takes half a second to load
    from matplotlib.figure import Figure


def residuals_figure(groups: Sequence[tuple[np.ndarray, np.ndarray]], label: str, rows: int) -> Figure:
    """Weighted residuals by group, against predictions or rows; of `rows` rows in all."""
    figure, axis = new_figure(1, 1, 3.0, width=4.0)
    many = rows > MANY
    for k, (x, weighted) in enumerate(groups):
        axis.scatter(x, weighted, s=3 if many else 14, color=COLOURS[k % len(COLOURS)], alpha=0.7, rasterized=many)
    axis.axhline(0, color="#888888", lw=0.8)
    axis.set(xlabel=label, ylabel="weighted residual")
    return figure


def distribution_figure(weighted: np.ndarray) -> Figure:
    """How many weighted residuals there are of each size."""
    figure, axis = new_figure(1, 1, 3.0, width=4.0)
    # "auto" asks for millions of bins where one residual lies far out
    axis.hist(weighted, bins=int(np.clip(2 * len(weighted) ** (1 / 3), 8, 60)), color=COLOURS[0], alpha=0.85)
    axis.locator_params(axis="x", nbins=5)
    axis.set(xlabel="weighted residual", ylabel="count")
    return figure


def quantiles_figure(theory: np.ndarray, ordered: np.ndarray) -> Figure:
    """Residuals in order against the quantiles of a normal distribution, with their line; nothing for two or less."""
    figure, axis = new_figure(1, 1, 3.0, width=4.0)
    if len(ordered) > 2:
        slope, shift = np.polyfit(theory, ordered, 1)
        axis.plot(theory, ordered, "o", ms=3, color=COLOURS[0], rasterized=len(ordered) > MANY)
        axis.plot(theory, slope * theory + shift, "-", color=COLOURS[1])
    axis.set(xlabel="normal quantile", ylabel="residual quantile")
    return figure


def misfit_figure(phi: np.ndarray) -> Figure:
    """phi over the iterations."""
    figure, axis = new_figure(1, 1, 3.0, width=4.0)
    axis.semilogy(np.where(phi > 0, phi, np.nan), "o-", ms=3, color=COLOURS[0])
    axis.set(xlabel="iteration", ylabel="phi")
    return figure


def traces_figure(labels: Sequence[str], ratios: Sequence[np.ndarray]) -> Figure:
    """Parameters over the iterations, relative to their final values."""
    figure, axis = new_figure(1, 1, 3.0, width=4.0)
    for k, (label, ratio) in enumerate(zip(labels, ratios)):
        colour, line = COLOURS[k % len(COLOURS)], "-" if k < len(COLOURS) else "--"
        axis.plot(ratio, marker="o", ms=3, color=colour, ls=line, label=plain(label))
    axis.set(xlabel="iteration", ylabel="value / final value")
    every = np.concatenate(ratios)
    if (every > 0).all() and every.max() / every.min() > 20:
        axis.set_yscale("log")
    axis.legend(fontsize=7, frameon=False)
    return figure


def correlation_figure(labels: Sequence[str], matrix: np.ndarray) -> Figure:
    """A correlation matrix in colours, with its numbers where there is room."""
    size = min(2.2 + 0.5 * len(labels), 7.0)
    figure, axis = new_figure(1, 1, size, width=size + 1.2)
    image = axis.imshow(matrix, cmap="RdBu_r", vmin=-1, vmax=1)
    if len(labels) <= 12:
        for i, j in np.ndindex(matrix.shape):
            text = "-" if np.isnan(matrix[i, j]) else f"{matrix[i, j]:.2f}"
            colour = "white" if abs(matrix[i, j]) > 0.6 else "#222222"
            axis.text(j, i, text, ha="center", va="center", fontsize=8, color=colour)
    if len(labels) <= 40:
        names = [plain(label) for label in labels]
        axis.set_xticks(range(len(labels)), names, rotation=45, ha="right", fontsize=8)
        axis.set_yticks(range(len(labels)), names, fontsize=8)
    axis.grid(False)
    figure.colorbar(image, ax=axis, shrink=0.85)
    return figure
