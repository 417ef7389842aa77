"""Read a folder of Karlsruhe fine sand tests and write this study's tables: thinned rows of the tests with odd numbers.

Oedometer tests: the first loading from `--first-stress` on. Triaxial tests: all of the shearing.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
CITATION = "# Karlsruhe fine sand. T. Wichtmann, T. Triantafyllidis (2016), Acta Geotechnica 11, 739-761. Compression positive.\n"


def read(file: Path) -> dict[str, list[dict[str, str]]]:
    """The rows of every test."""
    tests: dict[str, list[dict[str, str]]] = {}
    for row in csv.DictReader(line for line in file.read_text().splitlines() if not line.startswith("#")):
        tests.setdefault(row["test"], []).append(row)
    return tests


def thin(strain: np.ndarray, count: int) -> list[int]:
    """Rows near a quadratic spacing of the driven quantity, the first and the last included, strictly increasing."""
    wanted = strain[0] + (strain[-1] - strain[0]) * np.linspace(0.0, 1.0, count) ** 2
    chosen = [int(np.abs(strain - w).argmin()) for w in wanted]
    kept: list[int] = []
    for i in sorted(set(chosen)):
        if not kept or strain[i] > strain[kept[-1]]:
            kept.append(i)
    return kept


def write(out: Path, name: str, header: list[str], rows: list[list[object]]) -> None:
    with (out / name).open("w", newline="") as file:
        file.write(CITATION)
        csv.writer(file).writerows([header, *rows])


def oedometer(folder: Path, out: Path, first_stress: float, count: int) -> None:
    rows: list[list[object]] = []
    for test, readings in read(folder / "kfs_oedometer.csv").items():
        loading = [r for r in readings if r["phase"] == "load" and float(r["sigma_axial_Pa"]) >= first_stress]
        stress = np.array([float(r["sigma_axial_Pa"]) for r in loading])
        for i in thin(np.log(stress), count):
            rows.append([test, stress[i] / 1e3, loading[i]["void_ratio"]])
    write(out, "oedometer.csv", ["test", "sigma_axial_kPa", "void_ratio"], rows)


def drained(folder: Path, out: Path, count: int) -> None:
    rows: list[list[object]] = []
    for test, readings in read(folder / "kfs_triaxial_drained.csv").items():
        strain = np.array([float(r["eps_axial"]) for r in readings])
        peak = max(float(r["q_Pa"]) for r in readings)
        pressure = (float(readings[0]["p_Pa"]) - float(readings[0]["q_Pa"]) / 3) / 1e3
        for i in thin(strain, count):
            r = readings[i]
            dilation = -100 * float(r["eps_vol"])
            std = 0.05 * peak / 1e3
            rows.append(
                [test, pressure, readings[0]["void_ratio"], 100 * strain[i], float(r["q_Pa"]) / 1e3, std, dilation]
            )
    header = [
        "test",
        "cell_pressure_kPa",
        "initial_void_ratio",
        "strain_axial_percent",
        "deviator_kPa",
        "deviator_std_kPa",
        "dilation_percent",
    ]
    write(out, "drained.csv", header, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="folder with kfs_oedometer.csv and kfs_triaxial_drained.csv")
    parser.add_argument("--out", type=Path, default=HERE, help="where the tables go")
    parser.add_argument("--rows", type=int, default=24, help="rows kept of each test")
    parser.add_argument("--first-stress", type=float, default=10e3, help="axial stress from which oedometers count, Pa")
    arguments = parser.parse_args()
    oedometer(arguments.folder, arguments.out, arguments.first_stress, arguments.rows)
    drained(arguments.folder, arguments.out, arguments.rows)


if __name__ == "__main__":
    main()
