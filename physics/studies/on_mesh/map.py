"""A map of a plane mesh: its cells by zone, boundaries by name, and sensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor

from bilevel.calibrate.model import ModelFigure
from physics.discretisation import Mesh

MANY = 2000
"""More cells than this are drawn as an image: as paths they would make the report large, and slow to write."""


def draw_map(mesh: Mesh, points: Mapping[str, np.ndarray], caption: str = "") -> list[ModelFigure]:
    """The map, in metres; points: places (points, dim) by what they are. Nothing for meshes in space."""
    from matplotlib.collections import LineCollection, PolyCollection
    from matplotlib.figure import Figure

    if mesh.dim != 2:
        return []
    figure = Figure(figsize=(7.0, 5.0), layout="constrained")
    axes = figure.add_subplot()
    cells = mesh.positions[mesh.corners]
    zone = np.zeros(len(cells), dtype=int)
    for number, name in enumerate(mesh.regions):
        zone[mesh.regions[name]] = number
    for number, name in enumerate([*mesh.regions] or [""]):
        colour = f"C{number % 10}"
        drawn = PolyCollection(
            cells[zone == number],
            facecolor=colour,
            edgecolor="0.6",
            lw=0.2,
            alpha=0.35,
            label=name,
            rasterized=len(cells) > MANY,
        )
        axes.add_collection(drawn)
    for number, name in enumerate(mesh.boundaries):
        lines = LineCollection(_segments(mesh, name), colors=f"C{(number + 3) % 10}", lw=2.0, label=name)
        axes.add_collection(lines)
    for marker, (name, places) in zip("o^sDv", points.items()):
        if len(places):
            axes.plot(*places.T, marker, ms=4, mfc="none", color="k", label=name)
    axes.set_aspect("equal")
    axes.autoscale_view()
    axes.set_xlabel("x [m]")
    axes.set_ylabel("y [m]")
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8)
    return [ModelFigure("Mesh", figure, caption or "Zones, boundaries and sensors.")]


def _segments(mesh: Mesh, boundary: str) -> list[Any]:
    """The two ends (2, 2) of each facet."""
    facets = mesh.boundary(boundary)
    ends = [mesh.corners[cell][list(mesh.element.refdom.facets[f])] for cell, f in zip(facets.cells, facets.local)]
    return [mesh.positions[nodes] for nodes in ends]


STATE = "At the calibrated parameters; at the end of the last step where time runs."
BESIDE = "Beside it its standard deviation, grey where the readings do not tell it."


def draw_field(mesh: Mesh, values: Tensor, name: str, units: str, deviation: bool = False) -> list[ModelFigure]:
    """A picture of a field at nodes (nodes,), (nodes, dim), or on cells (cells,) of a plane mesh, or of its standard deviation.

    Of vectors the size is shown. Nothing in space, nor where no value is finite.
    """
    from matplotlib import colormaps
    from matplotlib.collections import PolyCollection
    from matplotlib.figure import Figure

    if mesh.dim != 2 or not bool(values.isfinite().any()):
        return []
    size = values.detach().numpy() if values.dim() == 1 else values.detach().norm(dim=-1).numpy()
    if len(size) != len(mesh.cells):
        size = size[mesh.corners].mean(1)
    title = name.replace("_", " ")
    label = f"{'standard deviation' if deviation else title} [{units or '-'}]"
    figure = Figure(figsize=(7.0, 4.5), layout="constrained")
    axes = figure.add_subplot()
    colours = colormaps["magma" if deviation else "viridis"].with_extremes(bad="0.8")
    shown, many = np.ma.masked_invalid(size), len(values) > MANY
    drawn = axes.add_collection(
        PolyCollection(mesh.positions[mesh.corners], array=shown, cmap=colours, rasterized=many)
    )
    figure.colorbar(drawn, ax=axes, label=label)
    axes.set_aspect("equal")
    axes.autoscale_view()
    axes.set_xlabel("x [m]")
    axes.set_ylabel("y [m]")
    return [ModelFigure(title[:1].upper() + title[1:], figure, BESIDE if deviation else STATE)]
