"""What drives a scalar field on a mesh: prescribed values, flows through boundaries, sources and wells, in time or not."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bilevel.calibrate.model import ConfigError, ParameterDefault
from physics.discretisation import Mesh
from physics.studies.on_mesh.mesh_section import require_boundary
from physics.studies.on_mesh.quantities import Given, Key, Signal
from physics.studies.on_mesh.zones import Zones


@dataclass(frozen=True)
class Words:
    """How a kind calls what diffuses, and the units in which its model works.

    material: the conductivity, then the capacity, by their names. through: the flow through a boundary. level: what the
    far side of an exchange is called. source, inflow, exchange, discharge: units of what flows in by volume, by boundary,
    through it by difference, and at a point.
    """

    field: str
    units: str
    time: str
    material: Mapping[str, ParameterDefault]
    through: str
    level: str
    source: str
    inflow: str
    exchange: str
    discharge: str

    @property
    def coefficient(self) -> str:
        return next(iter(self.material))

    @property
    def capacity(self) -> str:
        return list(self.material)[1]


@dataclass
class Boundaries:
    """The keys of boundaries, sources and wells, by what they do: each with the path of its key."""

    prescribed: dict[str, tuple[Key, Given]] = field(default_factory=dict)
    inflow: dict[str, tuple[Key, Given]] = field(default_factory=dict)
    exchange: dict[str, tuple[Key, Given, Given]] = field(default_factory=dict)
    sources: dict[str, tuple[Key, Given]] = field(default_factory=dict)
    wells: dict[str, tuple[Key, Sequence[str], Given]] = field(default_factory=dict)
    leakage: tuple[Key, Given, Given] | None = None


@dataclass(frozen=True)
class Drive:
    """One thing that drives the field: an entry of the energy's parameters, made of signals.

    entry: its name, or ("boundary", name). build: from the signals' values (...) to the entry.
    """

    entry: tuple[str, ...]
    signals: tuple[Signal, ...]
    build: Callable[[Sequence[Tensor]], Any]

    @property
    def varies(self) -> bool:
        """Whether any of its signals does."""
        return any(signal.varies for signal in self.signals)

    def at(self, times: np.ndarray | None, parameters: Mapping[str, Tensor]) -> dict[str, Any]:
        """The parameters with this entry alone."""
        value = self.build([signal.at(times, parameters) for signal in self.signals])
        return {self.entry[0]: value} if len(self.entry) == 1 else {self.entry[0]: {self.entry[1]: value}}


def driven(drives: Sequence[Drive], times: np.ndarray | None, parameters: Mapping[str, Tensor]) -> dict[str, Any]:
    """The entries of all drives, at times (...) or without."""
    found: dict[str, Any] = {}
    for drive in drives:
        for name, value in drive.at(times, parameters).items():
            found[name] = {**found[name], **value} if name in found else value
    return found


def read_drives(keys: Boundaries, words: Words, mesh: Mesh, zones: Zones | None, folder: Path) -> list[Drive]:
    """The drives that the keys mean; ConfigError, with the key, for what the mesh or the units do not allow."""

    def read(given: Given, units: str, key: Key, hold: bool = False) -> Signal:
        return Signal.read(given, units, folder, key, words.time, hold)

    drives = []
    for name, (key, given) in keys.prescribed.items():
        require_boundary(mesh, name, key[:-1], points=True)
        drives.append(Drive(("boundary", name), (read(given, words.units, key),), _first))
    for name, (key, given) in keys.inflow.items():
        require_boundary(mesh, name, key[:-1])
        drives.append(Drive((f"inflow_{name}",), (read(given, words.inflow, key, hold=True),), _first))
    for name, (key, coefficient, level) in keys.exchange.items():
        require_boundary(mesh, name, key[:-1])
        far = read(level, words.units, (*key, words.level))
        film = (read(coefficient, words.exchange, (*key, "coefficient")), far)
        drives.append(Drive((f"exchange_{name}",), film, lambda v: {"coefficient": v[0], "level": v[1]}))
    if keys.sources:
        signals = tuple(read(given, words.source, key, hold=True) for key, given in keys.sources.values())
        drives.append(Drive(("source",), signals, _source(keys, zones)))
    if keys.wells:
        wells = tuple(read(given, words.discharge, (*key, "rate"), hold=True) for key, _, given in keys.wells.values())
        drives.append(Drive(("wells",), wells, lambda values: torch.stack(torch.broadcast_tensors(*values), -1)))
    if keys.leakage is not None:
        key, resistance, level = keys.leakage
        far = read(level, words.units, (*key, words.level))
        layer = (read(resistance, words.time, (*key, "resistance")), far)
        drives.append(Drive(("leakage",), layer, lambda v: {"resistance": v[0], "head": v[1]}))
    return drives


def _first(values: Sequence[Tensor]) -> Tensor:
    return values[0]


def _source(keys: Boundaries, zones: Zones | None) -> Callable[[Sequence[Tensor]], Tensor]:
    """From the sources of some zones to those of all cells (..., cells), or to one for all."""
    names = list(keys.sources)
    if names == ["all"]:
        return _first
    assert zones is not None
    for name, (key, _) in keys.sources.items():
        if name not in zones.names:
            raise ConfigError(key, f"there is no zone '{name}'; there are {', '.join(zones.names)}, or 'all' alone")
    places = [names.index(zone) if zone in names else len(names) for zone in zones.names]
    of_cell = torch.tensor(places)[zones.of_cell]

    def build(values: Sequence[Tensor]) -> Tensor:
        values = torch.broadcast_tensors(*values)
        return torch.stack([*values, torch.zeros_like(values[0])], -1)[..., of_cell]

    return build
