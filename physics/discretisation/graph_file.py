"""Graphs from tables: nodes by name with their places, and edges between names."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bilevel.calibrate.study.csv_file import read_csv
from bilevel.calibrate.study.validated import hint
from bilevel.report import InputError


def read_graph(nodes: Path, edges: Path) -> tuple[np.ndarray, np.ndarray]:
    """Points (N, dim) and edges (E, 2), each once, of two CSV files: nodes (name, x, y and perhaps z), edges (start, end).

    Edges from a node to itself are left out. Raises InputError for names that are not among the nodes, for names twice, and
    where no edge is left.
    """
    table, ends = read_csv(nodes), read_csv(edges)
    names = table.texts("name")
    number = {name: k for k, name in enumerate(names)}
    if len(number) < len(names):
        twice = next(k for k, name in enumerate(names) if number[name] != k)
        raise InputError(f"{table.where(twice)}: there are two nodes '{names[twice]}'")
    points = np.stack([table.numbers(axis) for axis in "xyz" if axis != "z" or axis in table.header], 1)
    pairs = np.empty((len(ends.rows), 2), dtype=np.int64)
    for k, column in enumerate(("start", "end")):
        for row, name in enumerate(ends.texts(column)):
            if name not in number:
                raise InputError(f"{ends.where(row)}, column '{column}': there is no node '{name}'{hint(name, names)}")
            pairs[row, k] = number[name]
    pairs = np.unique(np.sort(pairs[pairs[:, 0] != pairs[:, 1]], 1), axis=0)
    if not len(pairs):
        raise InputError(f"{edges}: no edge joins two nodes")
    return points, pairs
