"""What a report calls a picture."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:  # it takes half a second to load
    from matplotlib.figure import Figure

Drawing: TypeAlias = "Callable[[], Figure]"
"""Draws a figure of plain numbers, which it brings along, so that another process may draw it."""


@dataclass(frozen=True)
class Picture:
    """Figures that belong together (side by side where there is room), with their title and caption."""

    title: str
    drawings: tuple[Drawing, ...]
    caption: str = ""
