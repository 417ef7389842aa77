"""Figures as files: SVG in one go, where Matplotlib's savefig draws twice."""

from __future__ import annotations

import io
import math
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bilevel.calibrate.report.picture import Drawing

if TYPE_CHECKING:  # it takes half a second to load
    from matplotlib.figure import Figure

DPI = 160
"""Of PNG files, and of what is a picture of dots inside an SVG file."""

_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class Image:
    """A figure as the content of a file, with its width in inches."""

    content: bytes
    width: float


def rendered(drawing: Drawing, kind: str) -> Image:
    """What is drawn, as a file, "svg" or "png"."""
    figure, buffer = drawing(), io.BytesIO()
    with warnings.catch_warnings():
        # names may be written in any script, and be so many that little room is left
        warnings.filterwarnings("ignore", message="Glyph|constrained_layout not applied")
        if kind == "svg":
            _print_svg(figure, buffer)
        else:
            figure.savefig(buffer, format=kind, dpi=DPI)
    return Image(buffer.getvalue(), figure.get_figwidth())


def _print_svg(figure: Figure, buffer: io.BytesIO) -> None:
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    _label_powers(figure)
    figure.set_dpi(DPI)
    # savefig would draw once before, for the sake of a layout that drawing makes in any case
    FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None})  # type: ignore[no-untyped-call]


def _label_powers(figure: Figure) -> None:
    """Give logarithmic axes labels that are plain text; to set them as formulas takes as long as a whole figure."""
    from matplotlib.ticker import LogFormatter, LogFormatterMathtext

    for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
        if isinstance(axis.get_major_formatter(), LogFormatterMathtext):
            axis.set_major_formatter(power_of_ten)
        if isinstance(axis.get_minor_formatter(), LogFormatterMathtext):
            axis.set_minor_formatter(LogFormatter())


def power_of_ten(value: float, position: float = 0.0) -> str:
    """ "10⁻²" for 0.01; as Matplotlib's formatters are called, with the position of the label, which does not matter."""
    return f"10{str(round(math.log10(value))).translate(_RAISED)}"
