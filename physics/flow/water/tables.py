"""Networks from tables: one of nodes, one of pipes, as rows by column name in SI units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bilevel.report import InputError
from physics.flow.water.friction import Friction
from physics.flow.water.network import Demand, FixedHead, Junction, Pipe, WaterNetwork

Row = Mapping[str, str | float | None]


def read_tables(nodes: Sequence[Row], pipes: Sequence[Row], friction: Friction) -> WaterNetwork:
    """The network of nodes (name, elevation, demand, head) and pipes (name, start, end, length, diameter, roughness, minor).

    A node with a head is a reservoir; the others are junctions. Raises InputError for sizes that are not positive.
    """
    junctions, reservoirs = [], []
    for row in nodes:
        if row.get("head") is None:
            demand = Demand(float(row.get("demand") or 0.0))
            junctions.append(Junction(str(row["name"]), float(row["elevation"] or 0.0), (demand,)))
        else:
            reservoirs.append(FixedHead(str(row["name"]), float(row["head"] or 0.0)))
    return WaterNetwork(junctions, reservoirs, [_pipe(row) for row in pipes], friction=friction)


def _pipe(row: Row) -> Pipe:
    length, diameter, roughness, minor = (
        float(row.get(n) or 0.0) for n in ("length", "diameter", "roughness", "minor")
    )
    if min(length, diameter, roughness) <= 0.0:
        raise InputError(f"length, diameter and roughness of pipe '{row['name']}' must be positive")
    return Pipe(str(row["name"]), (str(row["start"]), str(row["end"])), length, diameter, roughness, minor)
