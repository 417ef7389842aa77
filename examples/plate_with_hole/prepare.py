"""Makes points.csv and plate.msh, which study.yml reads.

The points are those of the published measurement, the mesh has the dimensions of the specimen.

    python prepare.py path/to/dic_s235_hole_raw.csv

The origin moves to the hole's centre, (40, 10) mm in the raw file. Image correlation also returns points beside the
specimen and on its rim, where a part of the correlation window sees the background: points outside |x| <= 40 mm,
|y| <= 10 mm, or nearer to the centre than the hole's radius of 4 mm, are left out. Every point becomes two rows,
one for each component.
"""

from __future__ import annotations

import csv
import math
import sys
from pathlib import Path

from physics.discretisation.write import write_gmsh
from physics.solids.plate_with_hole import PlateWithHole

PLATE = PlateWithHole(radius=4e-3, width=20.05e-3, left=-60e-3, shoulder=-45e-3, right=40e-3, fillet=25e-3)


def prepare(raw: Path, prepared: Path) -> tuple[int, int]:
    """Write `prepared`; returns how many points the raw file has and how many were kept."""
    with raw.open() as lines:
        points = list(csv.DictReader(line for line in lines if not line.startswith("#")))
    kept = 0
    with prepared.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["x_mm", "y_mm", "component", "displacement_um"])
        for point in points:
            x, y = 1e3 * float(point["x_m"]) - 40.0, 1e3 * float(point["y_m"]) - 10.0
            if abs(x) > 40.0 or abs(y) > 10.0 or math.hypot(x, y) < 4.0:
                continue
            kept += 1
            for component in "xy":
                displacement = 1e6 * float(point[f"u{component}_m"])
                writer.writerow([f"{x:.6f}", f"{y:.6f}", f"u{component}", f"{displacement:.6f}"])
    return len(points), kept


if __name__ == "__main__":
    if len(sys.argv) != 2 or not Path(sys.argv[1]).is_file():
        sys.exit("usage: python prepare.py path/to/dic_s235_hole_raw.csv")
    write_gmsh(Path(__file__).with_name("plate.msh"), PLATE.mesh(6))
    total, kept = prepare(Path(sys.argv[1]), Path(__file__).with_name("points.csv"))
    print(f"{kept} of {total} points are on the specimen; wrote points.csv and plate.msh beside this script")
