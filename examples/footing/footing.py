"""Bearing capacity of a strip footing: load against settlement for two soils, beside Prandtl's limit loads."""

from __future__ import annotations

import math
from pathlib import Path

import torch

from physics.constitutive.inelastic.mohr_coulomb import MohrCoulomb
from physics.soil.footing import LoadCurve, bearing_capacity, footing_mesh

HERE = Path(__file__).parent
CASES = ((0.0, 0.06, 60), (10.0, 0.08, 20))
"""Friction angle in degrees, settlement over the footing's width, increments."""


def prandtl(friction: float) -> float:
    """Nc = (tan^2(45 + phi/2) exp(pi tan phi) - 1) cot phi, and 2 + pi without friction (Prandtl 1920)."""
    if friction == 0.0:
        return 2.0 + math.pi
    angle = math.radians(friction)
    return (math.tan(math.pi / 4 + angle / 2) ** 2 * math.exp(math.pi * math.tan(angle)) - 1) / math.tan(angle)


def press(friction: float, settlement: float, increments: int, cells: int = 14) -> LoadCurve:
    """Load curve for cohesion 1 and associated flow."""
    angle = torch.tensor(math.radians(friction), dtype=torch.float64)
    soil = {
        "youngs_modulus": torch.tensor(1e3, dtype=torch.float64),
        "poissons_ratio": torch.tensor(0.3, dtype=torch.float64),
        "cohesion": torch.tensor(1.0, dtype=torch.float64),
        "friction_angle": angle,
        "dilatancy_angle": angle,
    }
    return bearing_capacity(MohrCoulomb(), soil, footing_mesh(cells), settlement, increments)


def main() -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.0, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for k, (friction, settlement, increments) in enumerate(CASES):
        curve, exact = press(friction, settlement, increments), prandtl(friction)
        found = float(curve.pressure[-1])
        print(f"{friction:g} degrees: Nc = {found:.3f}, Prandtl {exact:.3f}, {100 * (found / exact - 1):+.1f} %")
        axes.plot(100 * curve.settlement, curve.pressure, "o-", ms=3, color=f"C{k}", label=f"{friction:g} degrees")
        axes.axhline(exact, color=f"C{k}", ls="--", lw=1)
    axes.set_xlabel("settlement [% of width]")
    axes.set_ylabel("mean pressure / cohesion")
    axes.legend()
    axes.grid(True, alpha=0.3)
    figure.savefig(HERE / "footing.png", dpi=120)


if __name__ == "__main__":
    main()
