"""What a water supply network consists of, in SI units; immutable, as a file says it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from typing import TypeAlias

import torch
from torch import Tensor

from bilevel.report import InputError
from physics.flow.water.friction import Friction, HazenWilliams


class LinkStatus(Enum):
    """How a link stands. ACTIVE: a valve that holds its setting."""

    OPEN = "open"
    CLOSED = "closed"
    ACTIVE = "active"


class ValveKind(Enum):
    """What the setting of a valve is, by EPANET's names."""

    PRV = "the pressure at its second node"
    PSV = "the pressure at its first node"
    PBV = "the head that it takes"
    FCV = "the flow through it"
    TCV = "the loss coefficient"


@dataclass(frozen=True)
class Demand:
    """base [m3/s] times the pattern of that name."""

    base: float
    pattern: str | None = None


@dataclass(frozen=True)
class Junction:
    """A node whose head is unknown. elevation [m]."""

    name: str
    elevation: float
    demands: tuple[Demand, ...] = ()


@dataclass(frozen=True)
class FixedHead:
    """A reservoir, or a tank at a level. elevation [m]: of the tank's bottom, or of the water. level [m] above it."""

    name: str
    elevation: float
    level: float = 0.0
    pattern: str | None = None
    tank: bool = False


@dataclass(frozen=True)
class Pipe:
    """length, diameter [m]; roughness as its formula has it; minor: loss coefficient K of K v^2 / 2g; one_way: a check valve."""

    name: str
    ends: tuple[str, str]
    length: float
    diameter: float
    roughness: float
    minor: float = 0.0
    one_way: bool = False
    status: LinkStatus = LinkStatus.OPEN


@dataclass(frozen=True)
class Pump:
    """A pump lifts by rest - decrement q^exponent [m], q in m3/s, and lets nothing back.

    curve: such pieces, each from its flow on: (from flow, rest, decrement, exponent). A constant power of P watts is
    rest = 0, decrement = - P / 9807, exponent -1. design [m3/s]: a typical flow. speed: relative to the curve's.
    """

    name: str
    ends: tuple[str, str]
    curve: tuple[tuple[float, float, float, float], ...]
    design: float
    speed: float = 1.0
    pattern: str | None = None
    status: LinkStatus = LinkStatus.OPEN


@dataclass(frozen=True)
class Valve:
    """diameter [m]; setting: a pressure or head [m], a flow [m3/s] or a coefficient, see `ValveKind`; minor: loss coefficient when open."""

    name: str
    ends: tuple[str, str]
    kind: ValveKind
    diameter: float
    setting: float
    minor: float = 0.0
    status: LinkStatus = LinkStatus.ACTIVE


Link: TypeAlias = Pipe | Pump | Valve


@dataclass(frozen=True)
class WaterNetwork:
    """Nodes, links and what drives them. patterns: factors that hold for `pattern_step` [s] each, over and over again.

    controls: texts of rules by which links open and close, as the file has them: a state does not obey them. positions:
    of nodes on a map. specific_gravity: of the liquid. Raises InputError for names that are not unique or not known.
    """

    junctions: Sequence[Junction]
    fixed_heads: Sequence[FixedHead]
    pipes: Sequence[Pipe]
    pumps: Sequence[Pump] = ()
    valves: Sequence[Valve] = ()
    friction: Friction = field(default_factory=HazenWilliams)
    patterns: Mapping[str, Sequence[float]] = field(default_factory=dict)
    pattern_step: float = 3600.0
    pattern_start: float = 0.0
    specific_gravity: float = 1.0
    controls: Mapping[str, str] = field(default_factory=dict)
    positions: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _require_unique("node", [node.name for node in self._all_nodes])
        _require_unique("link", [link.name for link in self.links])
        if not self.junctions or not self.fixed_heads:
            raise InputError("a network needs junctions, and a reservoir or tank whose head is known")
        for link in self.links:
            for node in link.ends:
                if node not in self.nodes:
                    raise InputError(f"link '{link.name}' ends at node '{node}', which the network does not have")
            if link.ends[0] == link.ends[1]:
                raise InputError(f"link '{link.name}' begins and ends at node '{link.ends[0]}'")
        driven: list[FixedHead | Pump] = [*self.fixed_heads, *self.pumps]
        used = [d.pattern for j in self.junctions for d in j.demands] + [x.pattern for x in driven]
        for pattern in used:
            if pattern is not None and pattern not in self.patterns:
                raise InputError(f"there is no pattern '{pattern}' in the network")

    @cached_property
    def _all_nodes(self) -> list[Junction | FixedHead]:
        return [*self.junctions, *self.fixed_heads]

    @cached_property
    def links(self) -> tuple[Link, ...]:
        """Pipes, pumps and valves, in this order."""
        return (*self.pipes, *self.pumps, *self.valves)

    @cached_property
    def nodes(self) -> dict[str, int]:
        """The numbers of the nodes by name: junctions first."""
        return {node.name: i for i, node in enumerate(self._all_nodes)}

    @cached_property
    def link_numbers(self) -> dict[str, int]:
        return {link.name: i for i, link in enumerate(self.links)}

    @cached_property
    def elevations(self) -> Tensor:
        """Of all nodes [m]."""
        return torch.tensor([node.elevation for node in self._all_nodes], dtype=torch.float64)

    def factor(self, pattern: str | None, time: float) -> float:
        """What a pattern multiplies by at a time [s]."""
        if pattern is None:
            return 1.0
        factors = self.patterns[pattern]
        return factors[math.floor((time + self.pattern_start) / self.pattern_step + 1e-9) % len(factors)]

    def demands(self, time: float) -> Tensor:
        """What is drawn at the junctions (J,) [m3/s] at a time [s]."""
        drawn = [sum(d.base * self.factor(d.pattern, time) for d in j.demands) for j in self.junctions]
        return torch.tensor(drawn, dtype=torch.float64)

    def heads(self, time: float, levels: Mapping[str, float] | None = None) -> Tensor:
        """The known heads (F,) [m] at a time [s], with levels [m] of tanks by name in place of the file's."""
        levels = levels or {}
        known = [
            (node.elevation + levels.get(node.name, node.level)) * self.factor(node.pattern, time)
            for node in self.fixed_heads
        ]
        return torch.tensor(known, dtype=torch.float64)

    def speeds(self, time: float) -> Tensor:
        """The speeds (pumps,) at a time [s], relative to those of the curves; see `resting_pumps` for those that rest."""
        speeds = [speed if speed > 0.0 else 1.0 for speed in self._speeds(time)]
        return torch.tensor(speeds, dtype=torch.float64)

    def resting_pumps(self, time: float) -> dict[str, LinkStatus]:
        """The pumps whose pattern gives them no speed at a time [s], as closed links."""
        return {pump.name: LinkStatus.CLOSED for pump, speed in zip(self.pumps, self._speeds(time)) if speed <= 0.0}

    def _speeds(self, time: float) -> list[float]:
        return [self.factor(pump.pattern, time) if pump.pattern else pump.speed for pump in self.pumps]


def _require_unique(what: str, names: Sequence[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise InputError(f"there are two {what}s '{name}' in the network")
        seen.add(name)
