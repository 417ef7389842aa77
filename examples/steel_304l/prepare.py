"""Turn the folder of published measurements into this study's table: true stress from 0.5 % to 45 % strain.

Below half a percent the bars yield gradually, which a law with a yield point does not describe.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

HERE = Path(__file__).parent
FIRST, LAST = 0.005, 0.45


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="folder with steel304L_astme8_tension.csv")
    parser.add_argument("--out", type=Path, default=HERE, help="where the table goes")
    arguments = parser.parse_args()
    source = arguments.folder / "steel304L_astme8_tension.csv"
    lines = [line for line in source.read_text().splitlines() if not line.startswith("#")]
    with (arguments.out / "tension.csv").open("w", newline="") as file:
        file.write(
            "# 304L annealed bar, ASTM E8 tension; true stress = engineering stress times (1 + engineering strain)\n"
        )
        writer = csv.writer(file)
        writer.writerow(["specimen", "engineering_strain", "true_stress_MPa"])
        for row in csv.DictReader(lines):
            strain = float(row["eng_strain"])
            if FIRST <= strain <= LAST:
                writer.writerow(
                    [row["specimen"], f"{strain:.9g}", f"{float(row['eng_stress_Pa']) * (1 + strain) / 1e6:.9g}"]
                )


if __name__ == "__main__":
    main()
