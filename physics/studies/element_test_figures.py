"""The pictures that geotechnical engineers draw of element tests: q-eps_a, eps_v-eps_a, q-p with critical states, e-ln p."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from bilevel.calibrate.model import ModelFigure
from bilevel.calibrate.observations import ObservationTable
from physics.constitutive.inelastic.law import InelasticLaw
from physics.soil.control import Quantity
from physics.soil.element_test import March
from physics.soil.laboratory import LaboratoryTest

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Places = Sequence[tuple[int, int, str]]


def draw(
    tests: Sequence[LaboratoryTest],
    march: March,
    observations: ObservationTable,
    places: Places,
    law: InelasticLaw,
    parameters: Mapping[str, Tensor],
) -> list[ModelFigure]:
    """The four pictures, as far as the tests have something to show in them."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.0, 8.0), layout="constrained")
    axes = figure.subplots(2, 2)
    sheared = [t for t, test in enumerate(tests) if test.kind is not None and not test.kind.driven.is_stress]
    measured = _measured(observations, places)
    for k, t in enumerate(sheared):
        strain = -100.0 * _all(march, t, Quantity.STRAIN_AXIAL)
        _pair(
            axes[0, 0],
            strain,
            _all(march, t, Quantity.DEVIATOR) / 1e3,
            march,
            t,
            measured,
            "deviator",
            1e-3,
            f"C{k % 10}",
        )
        volume = 100.0 * _all(march, t, Quantity.STRAIN_VOLUMETRIC)
        _pair(axes[1, 0], strain, volume, march, t, measured, "volumetric_strain", 100.0, f"C{k % 10}")
        pressure = _all(march, t, Quantity.PRESSURE) / 1e3
        axes[0, 1].plot(pressure, _all(march, t, Quantity.DEVIATOR) / 1e3, color=f"C{k % 10}", label=tests[t].name)
    if sheared:
        _critical_state_line(axes[0, 1], parameters)
        axes[0, 1].legend(fontsize=7)
    if "void_ratio" in law.internal:
        column = law.position("void_ratio")
        for k, t in enumerate(t for t in range(len(tests)) if t not in sheared):
            line = march.states[:, t, column].detach().numpy()
            axes[1, 1].semilogx(_all(march, t, Quantity.PRESSURE) / 1e3, line, color=f"C{k % 10}", label=tests[t].name)
            found = measured.get((t, "void_ratio"))
            if found is not None:
                rows = march.quantity(t, Quantity.PRESSURE)[found[0]].detach().numpy() / 1e3
                axes[1, 1].semilogx(rows, found[1], "o", ms=3, mfc="none", color=f"C{k % 10}")
        axes[1, 1].legend(fontsize=7)
    _label(axes)
    return [
        ModelFigure("Element tests", figure, "Circles: measured. Lines: the calibrated model. Dashed: critical state.")
    ]


def _measured(observations: ObservationTable, places: Places) -> dict[tuple[int, str], tuple[list[int], np.ndarray]]:
    found: dict[tuple[int, str], tuple[list[int], list[float]]] = {}
    for (test, row, quantity), value in zip(places, observations.value.tolist()):
        rows, values = found.setdefault((test, quantity), ([], []))
        rows.append(row)
        values.append(value)
    return {key: (rows, np.array(values)) for key, (rows, values) in found.items()}


def _all(march: March, test: int, quantity: Quantity) -> np.ndarray:
    return quantity.of(march.states[:, test, :6], march.strains[:, test]).detach().numpy()


def _pair(
    axes: Axes,
    strain: np.ndarray,
    line: np.ndarray,
    march: March,
    test: int,
    measured: Mapping[tuple[int, str], tuple[list[int], np.ndarray]],
    quantity: str,
    scale: float,
    color: str,
) -> None:
    axes.plot(strain, line, color=color)
    found = measured.get((test, quantity))
    if found is not None:
        rows = -100.0 * march.quantity(test, Quantity.STRAIN_AXIAL)[found[0]].detach().numpy()
        axes.plot(rows, scale * found[1], "o", ms=3, mfc="none", color=color)


def _critical_state_line(axes: Axes, parameters: Mapping[str, Tensor]) -> None:
    """q = M p in triaxial compression, from M itself or from the critical friction angle."""
    if "critical_ratio" in parameters:
        slope = float(parameters["critical_ratio"])
    elif "friction_angle" in parameters:
        sine = math.sin(float(torch.as_tensor(parameters["friction_angle"])))
        slope = 6.0 * sine / (3.0 - sine)
    else:
        return
    end = axes.get_xlim()[1]
    axes.plot([0.0, end], [0.0, slope * end], "k--", lw=1, label=f"critical state, M = {slope:.3g}")


def _label(axes: np.ndarray) -> None:
    from matplotlib.ticker import NullFormatter

    axes[1, 1].xaxis.set_minor_formatter(NullFormatter())
    titles = (
        ("axial strain [%]", "q [kPa]"),
        ("p' [kPa]", "q [kPa]"),
        ("axial strain [%]", "volumetric strain, dilation + [%]"),
        ("p' [kPa]", "void ratio"),
    )
    for panel, (x, y) in zip(axes.ravel(), titles):
        panel.set_xlabel(x)
        panel.set_ylabel(y)
        panel.grid(True, which="both", alpha=0.3)
