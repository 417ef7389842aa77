"""The setfl format of embedded-atom tables (LAMMPS: eam/alloy)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bilevel.report import InputError


@dataclass(frozen=True)
class Setfl:
    """Tables of an alloy of K elements, in eV and angstrom.

    embedding (K, n_rho) at densities k drho; density (K, n_r) and r_phi (K (K + 1) / 2, n_r), which is r phi, at
    distances k dr. Pairs come as (1,1), (1,2), ..., (2,2), ...; lattice: structure and constant of each element.
    """

    species: tuple[str, ...]
    drho: float
    dr: float
    cutoff: float
    embedding: np.ndarray
    density: np.ndarray
    r_phi: np.ndarray
    masses: tuple[float, ...]
    lattice: tuple[tuple[float, str], ...]
    comments: tuple[str, str, str] = ("", "", "")


def pair_order(species: int) -> list[tuple[int, int]]:
    """The pairs in the order in which ours are stored."""
    return [(a, b) for a in range(species) for b in range(a, species)]


def read_setfl(path: str | Path) -> Setfl:
    """Read a setfl file; raises InputError if it is not one, ends early, or holds entries that are not finite."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: there is no such file")
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    words = " ".join(lines[3:]).split()
    try:
        return _parse(words, (lines[0], lines[1], lines[2]))
    except (ValueError, IndexError) as error:
        raise InputError(f"{path}: is not a complete setfl (eam/alloy) file: {error}") from None


def _parse(words: list[str], comments: tuple[str, str, str]) -> Setfl:
    k = int(words[0])
    species = tuple(words[1 : 1 + k])
    n_rho, drho, n_r, dr, cutoff = words[1 + k : 6 + k]
    at, size = 6 + k, (int(n_rho), int(n_r))

    def take(count: int) -> np.ndarray:
        nonlocal at
        if at + count > len(words):
            raise ValueError(f"{count} numbers are expected after the first {at}, there are {len(words) - at}")
        numbers = np.array(words[at : at + count], dtype=float)
        if not np.isfinite(numbers).all():
            raise ValueError("a table has entries that are NaN or infinite")
        at += count
        return numbers

    embedding, density, masses, lattice = [], [], [], []
    for _ in species:
        _, mass, constant, kind = words[at : at + 4]
        at += 4
        masses.append(float(mass))
        lattice.append((float(constant), kind))
        embedding.append(take(size[0]))
        density.append(take(size[1]))
    in_file = [(b, a) for a in range(k) for b in range(a + 1)]
    tables = {pair: take(size[1]) for pair in in_file}
    r_phi = np.stack([tables[pair] for pair in pair_order(k)])
    return Setfl(
        species, float(drho), float(dr), float(cutoff), np.stack(embedding), np.stack(density), r_phi, tuple(masses),
        tuple(lattice), comments,
    )  # fmt: skip


def write_setfl(table: Setfl, path: str | Path) -> None:
    """Write a setfl file, with numbers that read back exactly."""
    from ase.data import atomic_numbers

    k = len(table.species)
    lines = [*table.comments, f"{k} {' '.join(table.species)}"]
    sizes = f"{table.embedding.shape[1]} {table.drho!r} {table.density.shape[1]} {table.dr!r} {table.cutoff!r}"
    lines.append(sizes)
    for e, symbol in enumerate(table.species):
        constant, kind = table.lattice[e]
        lines.append(f"{atomic_numbers[symbol]} {table.masses[e]!r} {constant!r} {kind}")
        lines += _rows(table.embedding[e]) + _rows(table.density[e])
    place = {pair: row for row, pair in enumerate(pair_order(k))}
    for a in range(k):
        for b in range(a + 1):
            lines += _rows(table.r_phi[place[(b, a)]])
    Path(path).write_text("\n".join(lines) + "\n", encoding="utf-8")


def _rows(numbers: np.ndarray) -> list[str]:
    return [" ".join(f"{float(x):.17g}" for x in numbers[k : k + 5]) for k in range(0, len(numbers), 5)]
