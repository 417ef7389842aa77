"""Embedded-atom potentials as tables: read from a file, or splines whose knots are the parameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from bilevel.problem import Params
from bilevel.report import InputError
from physics.atoms.bonds import Bonds
from physics.atoms.cutoff import taper
from physics.atoms.formats.setfl import Setfl, read_setfl
from physics.atoms.potential import PairFunctional
from physics.atoms.spline import Grid
from physics.local.parameters import LawParameter, LawParameters


class _Tables(PairFunctional):
    """phi, f and F by cubic splines on grids of distances and of densities."""

    embeds = True
    pair_grid: Grid
    density_grid: Grid
    embedding_grid: Grid

    def inspect(self, bonds: Bonds, params: Params, names: tuple[str, ...]) -> None:
        r = bonds.lengths
        if len(r) and float(r.min()) < self.pair_grid.first:
            where = names[int(bonds.owner[bonds.centre[r.argmin()]])]
            raise InputError(
                f"{where}: two atoms are {float(r.min()):.4g} angstrom apart, nearer than the table's {self.pair_grid.first:.4g}"
            )
        rho = bonds.sum_at_centres(self.density(r, bonds, params))
        if float(rho.max()) > self.embedding_grid.last:
            where = names[int(bonds.owner[rho.argmax()])]
            raise InputError(
                f"{where}: the density {float(rho.max()):.4g} at an atom is beyond the table's {self.embedding_grid.last:.4g}"
            )

    def _pair_rows(self, bonds: Bonds) -> Tensor:
        centre, neighbour = bonds.ends
        low, high = torch.minimum(centre, neighbour), torch.maximum(centre, neighbour)
        return low * len(self.species) - low * (low - 1) // 2 + high - low


class TabulatedEAM(_Tables):
    """A potential in a setfl (eam.alloy) file, by cubic not-a-knot splines of F, f and phi; it has no parameters.

    end: a cut-off shorter than the file's, in angstrom. Raises InputError for a longer one: the table ends there.
    Source of the format: Daw, Foiles and Baskes; LAMMPS manual, pair_style eam/alloy.
    """

    parameters = LawParameters()

    def __init__(self, table: Setfl | str | Path, end: float | None = None) -> None:
        table = table if isinstance(table, Setfl) else read_setfl(table)
        self.table, self.species, self.end = table, table.species, table.cutoff if end is None else end
        r = Grid(0.0, table.dr, table.density.shape[1])
        if not 0.0 < self.end <= r.last * (1 + 1e-9):
            raise InputError(
                f"the cut-off {self.end:g} angstrom is beyond the table, which ends at {r.last:g} angstrom"
            )
        self.pair_grid, self.density_grid = Grid(r.spacing, r.spacing, r.count - 1), r
        self.embedding_grid = Grid(0.0, table.drho, table.embedding.shape[1])
        self._phi = self.pair_grid.coefficients(table.r_phi[:, 1:] / r.knots()[1:])
        self._f = r.coefficients(table.density)
        self._embedding = self.embedding_grid.coefficients(table.embedding)

    def cutoff(self, params: Params) -> float:
        return self.end

    def pair(self, r: Tensor, bonds: Bonds, params: Params) -> Tensor:
        return self.pair_grid.evaluate(self._phi, r, self._pair_rows(bonds))

    def density(self, r: Tensor, bonds: Bonds, params: Params) -> Tensor:
        return self.density_grid.evaluate(self._f, r, bonds.ends[1])

    def embedding(self, rho: Tensor, bonds: Bonds, params: Params) -> Tensor:
        return self.embedding_grid.evaluate(self._embedding, rho, bonds.kinds)


@dataclass(frozen=True)
class SplineEAM(_Tables):
    """An embedded-atom potential whose parameters are its splines' values at equally spaced knots.

    Parameters: "pair" (pairs of species, knots) and "density" (species, knots) at distances from `start` to `end`,
    "embedding" (species, embedding_knots) at densities from 0 to `densest`; one species may leave the first dimension
    out. phi and f are brought smoothly to zero over the last `width` angstrom.
    """

    species: tuple[str, ...]
    start: float
    end: float
    densest: float
    knots: int = 20
    embedding_knots: int = 15
    width: float = 1.0

    parameters = LawParameters(
        LawParameter("pair", "eV", description="pair energy at the knots"),
        LawParameter("density", description="density at the knots"),
        LawParameter("embedding", "eV", description="embedding energy at the knots"),
    )

    @property
    def sizes(self) -> Mapping[str, int]:
        kinds = len(self.species)
        pairs = kinds * (kinds + 1) // 2
        return {"pair": pairs * self.knots, "density": kinds * self.knots, "embedding": kinds * self.embedding_knots}

    @property
    def pair_grid(self) -> Grid:  # type: ignore[override]
        return Grid(self.start, (self.end - self.start) / (self.knots - 1), self.knots)

    density_grid = pair_grid  # type: ignore[assignment]

    @property
    def embedding_grid(self) -> Grid:  # type: ignore[override]
        return Grid(0.0, self.densest / (self.embedding_knots - 1), self.embedding_knots)

    def cutoff(self, params: Params) -> float:
        return self.end

    def pair(self, r: Tensor, bonds: Bonds, params: Params) -> Tensor:
        return self._radial(params["pair"], r, self._pair_rows(bonds))

    def density(self, r: Tensor, bonds: Bonds, params: Params) -> Tensor:
        return self._radial(params["density"], r, bonds.ends[1])

    def embedding(self, rho: Tensor, bonds: Bonds, params: Params) -> Tensor:
        grid = self.embedding_grid
        values = params["embedding"].reshape(-1, grid.count)
        return grid.evaluate(grid.differentiable(values), rho, bonds.kinds)

    def _radial(self, values: Tensor, r: Tensor, row: Tensor) -> Tensor:
        grid = self.pair_grid
        coefficients = grid.differentiable(values.reshape(-1, grid.count))
        return grid.evaluate(coefficients, r, row) * taper(r, self.end - self.width, self.end)
