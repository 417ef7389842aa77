"""Linear diffusion as entries of its matrices and loads, differentiable in all parameters, for many times at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bilevel.problem import Params
from physics.constitutive.flow.anisotropic import AnisotropicConduction
from physics.discretisation.operator import LocalOperator
from physics.flow.condensed import Places
from physics.flow.darcy import Diffusion


@dataclass(frozen=True)
class Entries:
    """Places (k,) of matrix entries by node, and their values for a coefficient of one, (cells, A * A)."""

    rows: Tensor
    columns: Tensor
    unit: Tensor

    @staticmethod
    def of(cells: Tensor, unit: Tensor) -> Entries:
        """From the nodes of cells (cells, A) and element matrices (cells, ..., A, A)."""
        count = cells.shape[1]
        rows, columns = cells.repeat_interleave(count, 1), cells.repeat(1, count)
        return Entries(rows.reshape(-1), columns.reshape(-1), unit.flatten(-2))

    def times(self, coefficient: Tensor) -> Tensor:
        """The entries (k,) for a coefficient () or (cells,)."""
        return (coefficient.reshape(-1, 1) * self.unit).reshape(-1)


class LinearSystem:
    """K h + C dh/dt = f of a linear `Diffusion`, by nodes, before constraints.

    blocks: the terms of K by name, in order; their entries follow one another in rows, columns and `stiffness`.
    """

    def __init__(self, flow: Diffusion) -> None:
        self.flow, self.nodes = flow, len(flow.mesh.coordinates)
        operators = {term.name: term.operator for term in flow.terms}
        self.law: Any = next(term.density for term in flow.terms if term.name == "flow")
        springs = [n for n in operators if n == "leakage" or n.startswith("exchange_")]
        self.blocks = {"flow": self._conduction(operators["flow"])} | {n: _mass(operators[n]) for n in springs}
        self.rows = torch.cat([block.rows for block in self.blocks.values()])
        self.columns = torch.cat([block.columns for block in self.blocks.values()])
        self.store = _mass(flow.values)
        loaded = [n for n in operators if n not in ("flow", "storage")]
        self.shares = {name: _shares(operators[name]) for name in loaded}
        self.cells = {name: operators[name].cells for name in loaded}

    @property
    def places(self) -> tuple[Places, Places]:
        """Where the entries of K and of C are."""
        return (self.rows.numpy(), self.columns.numpy()), (self.store.rows.numpy(), self.store.columns.numpy())

    def _conduction(self, operator: LocalOperator) -> Entries:
        matrix, weight = operator.evaluate(None, slice(None))
        matrix = matrix[..., : self.flow.mesh.dim]  # the hoop term is no gradient
        if isinstance(self.law, AnisotropicConduction):
            return Entries.of(operator.cells, torch.einsum("eaqi,ebqj,eq->eijab", matrix, matrix, weight))
        return Entries.of(operator.cells, torch.einsum("eaqi,ebqi,eq->eab", matrix, matrix, weight))

    def place(self, name: str) -> slice:
        """Where the entries of a block are."""
        sizes = {block: len(entries.rows) for block, entries in self.blocks.items()}
        start = sum(size for block, size in sizes.items() if list(sizes).index(block) < list(sizes).index(name))
        return slice(start, start + sizes[name])

    def stiffness(self, params: Params) -> Tensor:
        """The entries of K."""
        return torch.cat([self._stiffness(name, block, params) for name, block in self.blocks.items()])

    def _stiffness(self, name: str, block: Entries, params: Params) -> Tensor:
        if name == "leakage":
            return block.times(1.0 / _constant(params[name]["resistance"]))
        if name != "flow":
            return block.times(_constant(params[name]["coefficient"]))
        if not isinstance(self.law, AnisotropicConduction):
            return block.times(params["flow"][self.law.coefficient])
        conductivity = self.law.matrix(params["flow"]).expand(len(block.unit), -1, -1)
        return (conductivity.unsqueeze(-1) * block.unit).sum((1, 2)).reshape(-1)

    def capacity(self, params: Params) -> Tensor:
        """The entries of C."""
        return self.store.times(params["storage"][self.flow.capacity])

    def load(self, params: Mapping[str, Any], names: tuple[str, ...] | None = None) -> Tensor:
        """f (..., nodes), of some terms or all, for parameters () or with leading times (...)."""
        parts = []
        for name in self.shares if names is None else names:
            if name not in params or name not in self.shares:
                continue
            given = params[name]
            if name == "leakage":
                given = given["head"] / given["resistance"]
            elif name.startswith("exchange_"):
                given = given["coefficient"] * given["level"]
            parts.append(self._spread(name, torch.as_tensor(given)))
        total = torch.zeros(self.nodes, dtype=torch.float64)
        for part in parts:
            total = total + part
        return total

    def _spread(self, name: str, density: Tensor) -> Tensor:
        cells, share = self.cells[name], self.shares[name]
        if density.dim() == 0 or density.shape[-1] != len(cells) or name not in ("source", "wells"):
            one = torch.zeros(self.nodes, dtype=torch.float64).index_add(0, cells.reshape(-1), share.reshape(-1))
            return density.unsqueeze(-1) * one
        forces = (density.unsqueeze(-1) * share).flatten(-2)
        zero = torch.zeros(*forces.shape[:-1], self.nodes, dtype=torch.float64)
        return zero.index_add(-1, cells.reshape(-1), forces)


def _constant(value: Tensor) -> Tensor:
    """A value that does not vary in time, for matrices do not, without leading times."""
    return value.reshape(-1)[0]


def _mass(operator: LocalOperator) -> Entries:
    matrix, weight = operator.evaluate(None, slice(None))
    return Entries.of(operator.cells, torch.einsum("eaq,ebq,eq->eab", matrix[..., -1], matrix[..., -1], weight))


def _shares(operator: LocalOperator) -> Tensor:
    """What the nodes of each cell get of a unit density, (cells, A)."""
    matrix, weight = operator.evaluate(None, slice(None))
    return torch.einsum("eaq,eq->ea", matrix[..., -1], weight)
