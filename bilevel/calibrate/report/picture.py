"""What a report calls a picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # it takes most of a second to load
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Picture:
    """Figures that belong together (side by side where there is room), with their title and caption."""

    title: str
    figures: tuple[Figure, ...]
    caption: str = ""
