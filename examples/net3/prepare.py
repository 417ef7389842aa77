"""Makes the twin data of this study: pipes by quarter of the town and size, and thirty pressures with noise of 0.1 m."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import torch

from physics.flow.water.epanet import read_epanet
from physics.flow.water.network import LinkStatus
from physics.flow.water.pipe_flow import PipeFlow

FOLDER = Path(__file__).parent
TRUTH = {
    "north_west": 95.0,
    "north": 120.0,
    "centre": 140.0,
    "east": 105.0,
    "south_west": 130.0,
    "south": 90.0,
    "mains": 125.0,
    "river": 135.0,
}
NODES = ("15", "35", "101", "103", "109", "115", "119", "125", "131", "141", "151", "161", "171", "203", "231")
HOURS = (6, 18)


def group(network, pipe):
    if pipe.name in ("60", "329", "125", "123", "330"):
        return "river"
    if pipe.diameter > 0.6:
        return "mains"
    x, y = np.mean([network.positions[node] for node in pipe.ends], 0)
    if x > 35:
        return "east"
    if y > 22:
        return "north_west" if x < 20 else "north"
    if y > 11:
        return "south_west" if x < 20 else "centre"
    return "south"


def main() -> None:
    network = read_epanet(FOLDER / "Net3.inp")
    groups = [group(network, pipe) for pipe in network.pipes]
    with (FOLDER / "groups.csv").open("w", newline="") as file:
        csv.writer(file).writerows(
            [("pipe", "group"), *((pipe.name, name) for pipe, name in zip(network.pipes, groups))]
        )
    noise = np.random.default_rng(3)
    rows = []
    for hour in HOURS:
        status = {
            "10": LinkStatus.OPEN if hour < 15 else LinkStatus.CLOSED,
            "335": LinkStatus.OPEN,
            "330": LinkStatus.CLOSED,
        }
        flow = PipeFlow(network, status)
        params = flow.parameters(3600.0 * hour)
        params["roughness"] = torch.tensor([TRUTH[name] for name in groups], dtype=torch.float64)
        pressure = flow.heads(flow.solve(params).u, params) - network.elevations
        for node in NODES:
            value = float(pressure[network.nodes[node]]) + 0.1 * noise.standard_normal()
            rows.append((hour, node, "pressure", f"{value:.3f}"))
    with (FOLDER / "pressures.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("hour", "node", "quantity", "pressure_m"), *rows])


if __name__ == "__main__":
    main()
