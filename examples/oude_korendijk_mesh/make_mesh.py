"""The section between well and horizon: quadrilaterals whose length grows with the radius, as a gmsh file."""

from __future__ import annotations

import math
from pathlib import Path

from physics.discretisation import rectangle
from physics.discretisation.write import write_gmsh

HERE = Path(__file__).parent
WELL, HORIZON, THICKNESS = 0.2, 2e4, 7.0
"""Radii and height, m."""


def main() -> None:
    mesh = rectangle(45, 1, (math.log(HORIZON / WELL), THICKNESS), order=2)
    x = mesh.coordinates.clone()
    x[:, 0] = WELL * x[:, 0].exp()
    write_gmsh(HERE / "section.msh", mesh.moved(x))


if __name__ == "__main__":
    main()
